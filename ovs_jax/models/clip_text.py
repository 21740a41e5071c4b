"""CLIP's text transformer."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from ovs_jax.core.types import Array, Float, Int
from ovs_jax.models.layers import clip_blocks, layer_norm


class ClipText(nn.Module):
  """Embeds tokenised texts; causal, pooled at the end-of-text token.

  Attributes:
    vocab_size: number of token ids.
    context_length: the most tokens per text.
    width: of the tokens.
    layers: number of transformer blocks.
    heads: number of attention heads.
    mlp: hidden units of a block's MLP.
    activation: of the MLP, from `layers.ACTIVATIONS`.
    epsilon: of the layer norms.
    end_token: id of the end of a text; 0 takes the largest id in it.
    embed_dim: of the joint image-text space.
    dtype: of the computation; parameters are float32.
    remat: whether to recompute blocks in the backward pass.
    unroll: blocks per iteration of the scan.
  """

  vocab_size: int
  context_length: int
  width: int
  layers: int
  heads: int
  mlp: int
  activation: str
  epsilon: float
  end_token: int
  embed_dim: int
  dtype: Any
  remat: bool
  unroll: int

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
    length = tokens.shape[1]
    if length > self.context_length:
      raise ValueError(
        f'this CLIP reads {self.context_length} tokens, got {length}; tokenise with '
        'its context_length'
      )
    normal = nn.initializers.normal(0.02)
    x = nn.Embed(
      self.vocab_size,
      self.width,
      embedding_init=normal,
      dtype=self.dtype,
      name='token_embedding',
    )(tokens)
    position = self.param(
      'positional_embedding',
      nn.initializers.normal(0.01),
      (self.context_length, self.width),
    )
    x = x + position[None, :length].astype(self.dtype)
    blocks = clip_blocks(
      layers=self.layers,
      num_heads=self.heads,
      mlp=self.mlp,
      activation=self.activation,
      epsilon=self.epsilon,
      dtype=self.dtype,
      remat=self.remat,
      unroll=self.unroll,
    )
    causal = jnp.tril(jnp.ones((length, length), bool))
    x, _ = blocks(x, None, None, None, causal)
    x = layer_norm('ln_final', jnp.float32, self.epsilon)(x)
    # The first largest id, or the first end token.
    last = tokens == self.end_token if self.end_token else tokens
    end = jnp.argmax(last, axis=1)
    x = jnp.take_along_axis(x, end[:, None, None], axis=1)[:, 0]  # b d
    projection = self.param(
      'text_projection',
      nn.initializers.normal(self.width**-0.5),
      (self.width, self.embed_dim),
    )
    return x @ projection
