"""MaskFormer's pixel decoder: a feature pyramid down to stride 4."""

from collections.abc import Sequence

import flax.linen as nn
import numpy as np

from ovs_jax.core.types import Array, Float
from ovs_jax.models.layers import NORM_EPSILON

_INIT = nn.initializers.variance_scaling(1.0, 'fan_in', 'uniform')  # Caffe2's Xavier


class PixelDecoder(nn.Module):
  """Merges backbone features from coarse to fine.

  Attributes:
    width: channels of the pyramid.
    mask_dim: channels of the result.
    groups: of the group norms.
  """

  width: int
  mask_dim: int
  groups: int

  @nn.compact
  def __call__(
    self, features: Sequence[Float[Array, 'b _y _x _c']]
  ) -> Float[Array, 'b y x d']:
    """Returns mask features at the resolution of `features[0]`.

    Args:
      features: res2 to res5, fine to coarse.
    """
    y = None
    for i in reversed(range(len(features))):
      x = features[i]
      if y is not None:
        x = self._norm(
          nn.Conv(
            self.width,
            (1, 1),
            use_bias=False,
            kernel_init=_INIT,
            name=f'adapter_{i + 1}',
          )(x),
          f'adapter_{i + 1}_norm',
        )
        x = x + upsample_nearest(y, x.shape[1:3])
      x = self._conv3(x, self.width, name=f'layer_{i + 1}', use_bias=False)
      y = nn.relu(self._norm(x, f'layer_{i + 1}_norm'))
    return self._conv3(y, self.mask_dim, name='mask_features', use_bias=True)

  def _conv3(self, x: Array, width: int, *, name: str, use_bias: bool) -> Array:
    return nn.Conv(
      width,
      (3, 3),
      padding=((1, 1), (1, 1)),
      use_bias=use_bias,
      kernel_init=_INIT,
      name=name,
    )(x)

  def _norm(self, x: Array, name: str) -> Array:
    return nn.GroupNorm(self.groups, epsilon=NORM_EPSILON, name=name)(x)


def upsample_nearest(
  x: Float[Array, 'b y x c'], size: tuple[int, int]
) -> Float[Array, 'b v u c']:
  """Takes pixel floor(i * in / out), as PyTorch's nearest interpolation."""
  rows = (np.arange(size[0]) * x.shape[1]) // size[0]
  columns = (np.arange(size[1]) * x.shape[2]) // size[1]
  return x[:, rows][:, :, columns]
