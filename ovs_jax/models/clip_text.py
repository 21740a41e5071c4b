"""CLIP's text transformer."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.types import Array, Bool, Float, Int
from ovs_jax.models.clip_blocks import ClipBlocks, Tower
from ovs_jax.models.clip_config import TextTower
from ovs_jax.models.layers import layer_norm, linear


class ClipText(nn.Module):
  """Embeds tokenised texts.

  Attributes:
    tower: sizes of the transformer.
    vocab_size: number of token ids.
    context_length: the most tokens per text.
    end_token: id of the end of a text; 0 takes the largest id in it.
    embed_dim: of the joint image-text space.
    kind: what is read and computed.
  """

  tower: Tower
  vocab_size: int
  context_length: int
  end_token: int
  embed_dim: int
  kind: TextTower

  @nn.compact
  def __call__(self, tokens: Int[Array, 'b t']) -> Float[Array, 'b d']:
    """Embeds texts.

    Args:
      tokens: ids with padding. Where attention is causal and the end token is the
        embedding, trailing columns that are padding in every row change nothing, and
        may be cut off.

    Returns:
      The end token, the last of all, or the mean, after the projection, float32, not
      L2-normalised.

    Raises:
      ValueError: rows are longer than the context, or another length where padding
        counts.
    """
    t, length = self.tower, tokens.shape[1]
    if self.kind.sees_padding and length != self.context_length:
      raise UserError(
        f'this CLIP sees padding, and reads {self.context_length} tokens always; got '
        f'{length}'
      )
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
    if self.kind.scale_tokens:
      x = x * jnp.asarray(t.width**0.5, t.dtype)
    if self.kind.positions == 'sinusoidal':
      position = waves(length, t.width)
    else:
      position = self.param(
        'positional_embedding',
        nn.initializers.normal(0.01),
        (self.context_length, t.width),
      )[:length]
    x = x + position[None].astype(t.dtype)
    x, _ = ClipBlocks(t, name='blocks')(x, self._seen(tokens))
    x = layer_norm('ln_final', jnp.float32, t.epsilon)(x)
    x = self._pool(x, tokens)
    draw = nn.initializers.normal(t.width**-0.5)
    if self.kind.projection == 'none':
      return x
    if self.kind.projection == 'bias':
      return linear(self.embed_dim, name='head', dtype=jnp.float32, init=draw)(x)
    return x @ self.param('text_projection', draw, (t.width, self.embed_dim))

  def _seen(
    self, tokens: Int[Array, 'b t']
  ) -> Bool[Array, 't t'] | Bool[Array, 'b t t'] | None:
    """Returns which tokens each one sees; None: all."""
    b, length = tokens.shape
    causal = jnp.tril(jnp.ones((length, length), bool)) if self.kind.causal else None
    if not self.kind.hide_padding:
      return causal
    shown = (tokens != self.kind.pad)[:, None]
    seen = jnp.broadcast_to(shown, (b, length, length))
    return seen if causal is None else seen & causal[None]

  def _pool(
    self, x: Float[Array, 'b t e'], tokens: Int[Array, 'b t']
  ) -> Float[Array, 'b e']:
    if self.kind.pool == 'last':
      return x[:, -1]
    if self.kind.pool == 'mean':
      kept = (tokens != self.kind.pad).astype(x.dtype)[:, :, None]
      # TIPSv2's; a row of padding alone is 0.
      return jnp.sum(x * kept, axis=1) / (jnp.sum(kept, axis=1) + 1e-8)
    # The first largest id, or the first end token.
    last = tokens == self.end_token if self.end_token else tokens
    end = jnp.argmax(last, axis=1)
    return jnp.take_along_axis(x, end[:, None, None], axis=1)[:, 0]


def waves(length: int, width: int) -> Float[Array, 't e']:
  """Returns sines and then cosines of places (Vaswani et al., 2017, as tensor2tensor).

  Args:
    length: of a row.
    width: features, an even number.
  """
  half = width // 2
  frequency = np.exp(-np.arange(half) * np.log(10_000) / max(half - 1, 1))
  angle = np.arange(length)[:, None] * frequency[None]
  return jnp.asarray(
    np.concatenate([np.sin(angle), np.cos(angle)], axis=1), jnp.float32
  )
