"""CoSeg's cross-attention language model (section 3.4): an encoder and a decoder."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from ovs_jax.core.types import Array, Bool, Float
from ovs_jax.models.clipseg_decoder import EncoderBlock
from ovs_jax.models.coseg_slots import LanguageConfig, Slots, final_norm
from ovs_jax.models.layers import Attention, gelu, layer_norm, linear


class DecoderBlock(nn.Module):
  """PyTorch's decoder layer: self-attention, cross-attention, feed-forward."""

  heads: int
  mlp: int
  dropout: float
  dtype: Any
  pre_norm: bool

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b n d'],
    memory: Float[Array, 'b l d'],
    mask: Bool[Array, 'n n'] | None,
    *,
    train: bool = False,
  ) -> Float[Array, 'b n d']:
    """Updates the slots; `mask` is True where they may see each other."""

    def drop(y: Array) -> Array:
      return nn.Dropout(self.dropout, deterministic=not train)(y)

    def attend(name: str) -> Attention:
      return Attention(self.heads, self.dtype, self.dropout, name=name)

    norms = [layer_norm(f'ln_{i}', self.dtype) for i in (1, 2, 3)]
    before = norms if self.pre_norm else [lambda y: y] * 3
    after = [lambda y: y] * 3 if self.pre_norm else norms
    y = before[0](x)
    x = after[0](x + drop(attend('self_attn')(y, y, y, mask, train=train)))
    y = before[1](x)
    x = after[1](x + drop(attend('cross_attn')(y, memory, memory, train=train)))
    y = linear(self.mlp, name='c_fc', dtype=self.dtype)(before[2](x))
    y = drop(gelu(y) if self.pre_norm else nn.relu(y))
    y = linear(x.shape[-1], name='c_proj', dtype=self.dtype)(y)
    return after[2](x + drop(y))


class CrossModel(nn.Module):
  """An encoder over L patches, and a decoder whose N slots read from it."""

  config: LanguageConfig
  dtype: Any

  @nn.compact
  def __call__(
    self,
    patches: Float[Array, 'b l d'],
    grid: tuple[int, int],
    *,
    train: bool = False,
  ) -> Float[Array, 'b n d']:
    """Returns the slots after the last block, float32.

    Those after every block go to the collection `intermediates`, `tokens`, where it is
    mutable.

    Args:
      patches: projected, row by row.
      grid: patches per column and row.
      train: whether to drop units out.
    """
    c = self.config
    x, memory = Slots(c, name='slots')(patches, grid)
    x, memory = x.astype(self.dtype), memory.astype(self.dtype)
    for i in range(c.encoder_layers):
      memory = EncoderBlock(
        c.heads, c.mlp, c.dropout, self.dtype, c.pre_norm, name=f'encoder_{i}'
      )(memory, train=train)
    if c.pre_norm:
      memory = layer_norm('ln_encoder', self.dtype)(memory)
    mask = None if c.context else jnp.eye(c.num_slots, dtype=bool)
    norm = final_norm(c, self.dtype)
    for i in range(c.decoder_layers):
      x = DecoderBlock(
        c.heads, c.mlp, c.dropout, self.dtype, c.pre_norm, name=f'decoder_{i}'
      )(x, memory, mask, train=train)
      out = norm(x)
      self.sow('intermediates', 'tokens', out)
    return out
