"""CLIP's text transformer."""

import flax.linen as nn
import jax.numpy as jnp

from ovs_jax.core.errors import UserError
from ovs_jax.core.types import Array, Float, Int
from ovs_jax.models.clip_blocks import ClipBlocks, Tower
from ovs_jax.models.layers import layer_norm


class ClipText(nn.Module):
  """Embeds tokenised texts; causal, pooled at the end-of-text token.

  Attributes:
    tower: sizes of the transformer.
    vocab_size: number of token ids.
    context_length: the most tokens per text.
    end_token: id of the end of a text; 0 takes the largest id in it.
    embed_dim: of the joint image-text space.
  """

  tower: Tower
  vocab_size: int
  context_length: int
  end_token: int
  embed_dim: int

  @nn.compact
  def __call__(self, tokens: Int[Array, 'b t']) -> Float[Array, 'b d']:
    """Embeds texts.

    Args:
      tokens: ids from `text.tokenizer`, zero-padded. Trailing columns that are
        padding in every row may be cut off: attention is causal, so they change
        nothing.

    Returns:
      The end-of-text token after the projection, not L2-normalised, float32.
    """
    t, length = self.tower, tokens.shape[1]
    if length > self.context_length:
      raise UserError(
        f'this CLIP reads {self.context_length} tokens, got {length}; tokenise with '
        'its context_length'
      )
    normal = nn.initializers.normal(0.02)
    x = nn.Embed(
      self.vocab_size,
      t.width,
      embedding_init=normal,
      dtype=t.dtype,
      name='token_embedding',
    )(tokens)
    position = self.param(
      'positional_embedding',
      nn.initializers.normal(0.01),
      (self.context_length, t.width),
    )
    x = x + position[None, :length].astype(t.dtype)
    causal = jnp.tril(jnp.ones((length, length), bool))
    x, _ = ClipBlocks(t, name='blocks')(x, causal)
    x = layer_norm('ln_final', jnp.float32, t.epsilon)(x)
    # The first largest id, or the first end token.
    last = tokens == self.end_token if self.end_token else tokens
    end = jnp.argmax(last, axis=1)
    x = jnp.take_along_axis(x, end[:, None, None], axis=1)[:, 0]  # b d
    projection = self.param(
      'text_projection',
      nn.initializers.normal(t.width**-0.5),
      (t.width, self.embed_dim),
    )
    return x @ projection
