"""CoSeg's prefix language model (section 3.4): slots in front of the patches."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from ovs_jax.core.types import Array, Bool, Float
from ovs_jax.models.clipseg_decoder import EncoderBlock
from ovs_jax.models.coseg_slots import LanguageConfig, Slots
from ovs_jax.models.layers import layer_norm


class PrefixModel(nn.Module):
  """One encoder over N slots and L patches; attention is not masked."""

  config: LanguageConfig
  dtype: Any

  @nn.compact
  def __call__(
    self, patches: Float[Array, 'b l d'], *, train: bool = False
  ) -> Float[Array, 'b n d']:
    """Returns the slots after the last block, float32."""
    c = self.config
    slots, patches = Slots(c, name='slots')(patches)
    x = jnp.concatenate([slots, patches], axis=1).astype(self.dtype)
    mask = None if c.context else _alone(c.num_slots, patches.shape[1])
    for i in range(c.encoder_layers):
      x = EncoderBlock(
        c.heads, c.mlp, c.dropout, self.dtype, c.pre_norm, name=f'block_{i}'
      )(x, mask, train=train)
    x = x[:, : c.num_slots]
    if c.pre_norm:
      x = layer_norm('ln_final', self.dtype)(x)
    return x.astype(jnp.float32)


def _alone(slots: int, patches: int) -> Bool[Array, 'm m']:
  """Allows a slot itself and the patches, and patches each other.

  Patches must not see slots, through which those would see each other.
  """
  count = slots + patches
  place = jnp.arange(count)
  return (place[None, :] >= slots) | (place[None, :] == place[:, None])
