"""CoSeg's prefix language model (section 3.4): slots in front of the patches."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from ovs_jax.core.types import Array, Bool, Float
from ovs_jax.models.clipseg_decoder import EncoderBlock
from ovs_jax.models.coseg_slots import LanguageConfig, Slots, final_norm


class PrefixModel(nn.Module):
  """One encoder over N slots and L patches; attention is not masked."""

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
    slots, patches = Slots(c, name='slots')(patches, grid)
    x = jnp.concatenate([slots, patches], axis=1).astype(self.dtype)
    mask = None if c.context else _alone(c.num_slots, patches.shape[1])
    norm = final_norm(c, self.dtype)
    for i in range(c.encoder_layers):
      x = EncoderBlock(
        c.heads, c.mlp, c.dropout, self.dtype, c.pre_norm, name=f'block_{i}'
      )(x, mask, train=train)
      out = norm(x[:, : c.num_slots])
      self.sow('intermediates', 'tokens', out)
    return out


def _alone(slots: int, patches: int) -> Bool[Array, 'm m']:
  """Allows a slot itself and the patches, and patches each other.

  Patches must not see slots, through which those would see each other.
  """
  count = slots + patches
  place = jnp.arange(count)
  return (place[None, :] >= slots) | (place[None, :] == place[:, None])
