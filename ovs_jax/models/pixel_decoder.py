"""MaskFormer's pixel decoder: a feature pyramid down to stride 4."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.types import Array, Float
from ovs_jax.models.content import Content, norm_mask, zero_outside
from ovs_jax.models.layers import group_norm

_INIT = nn.initializers.variance_scaling(1.0, 'fan_in', 'uniform')  # Caffe2's Xavier


class PixelDecoder(nn.Module):
  """Merges backbone features from coarse to fine.

  Attributes:
    width: channels of the pyramid.
    mask_dim: channels of the result.
    groups: of the group norms.
    dtype: of the computation.
  """

  width: int
  mask_dim: int
  groups: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    features: Sequence[Float[Array, 'b _y _x _c']],
    content: Content | None = None,
  ) -> Float[Array, 'b y x d']:
    """Returns mask features at the resolution of `features[0]`.

    Args:
      features: res2 to res5, fine to coarse.
      content: the part that may be seen; None is all of it.
    """
    y = None
    for i in reversed(range(len(features))):
      x = features[i]
      if y is not None:
        x = self._conv(x, self.width, name=f'adapter_{i + 1}', kernel=1)
        x = self._norm(x, f'adapter_{i + 1}_norm', content)
        x = zero_outside(x + upsample_nearest(y, x.shape[1:3]), content)
      x = self._conv(x, self.width, name=f'layer_{i + 1}')
      y = nn.relu(self._norm(x, f'layer_{i + 1}_norm', content))
    y = zero_outside(y, content)
    return self._conv(y, self.mask_dim, name='mask_features', use_bias=True)

  def _conv(
    self, x: Array, width: int, *, name: str, kernel: int = 3, use_bias: bool = False
  ) -> Array:
    pad = kernel // 2
    return nn.Conv(
      width,
      (kernel, kernel),
      padding=((pad, pad), (pad, pad)),
      use_bias=use_bias,
      dtype=self.dtype,
      kernel_init=_INIT,
      name=name,
    )(x)

  def _norm(self, x: Array, name: str, content: Content | None) -> Array:
    norm = group_norm(self.groups, name=name, dtype=self.dtype)
    return norm(x, mask=norm_mask(x, content))


def upsample_nearest(
  x: Float[Array, 'b y x c'], size: tuple[int, int]
) -> Float[Array, 'b v u c']:
  """Takes pixel floor(i * in / out), as PyTorch's nearest interpolation."""
  rows = (np.arange(size[0]) * x.shape[1]) // size[0]
  columns = (np.arange(size[1]) * x.shape[2]) // size[1]
  return x[:, rows][:, :, columns]
