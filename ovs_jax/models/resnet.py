"""ResNet with the DeepLab stem ("c"): the backbone of OVSeg's smaller model."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ovs_jax.core.types import Array, Float
from ovs_jax.models.layers import NORM_EPSILON


@dataclasses.dataclass(frozen=True)
class ResNetConfig:
  """Sizes of the backbone.

  Attributes:
    depths: bottleneck blocks of res2 to res5.
    stem_width: channels of the first two stem convolutions; the third has twice.
    bottleneck: channels inside the blocks of res2; doubles per stage.
    out_width: channels after res2; doubles per stage.
    multi_grid: dilations of the blocks of res5, in order and repeated.
    norm: 'frozen' (constant batch statistics) or 'group' (to train from scratch).
    strides: of the first block of res2 to res5; every published model has these.
  """

  depths: tuple[int, ...]
  stem_width: int
  bottleneck: int
  out_width: int
  multi_grid: tuple[int, ...]
  norm: str
  strides: tuple[int, ...] = (1, 2, 2, 2)

  @classmethod
  def from_dict(cls, config: Mapping[str, Any]) -> 'ResNetConfig':
    """Reads what a checkpoint holds, where tuples have become lists."""
    tuples = {k: tuple(v) for k, v in config.items() if isinstance(v, list | tuple)}
    return cls(**{**config, **tuples})


PRESETS: dict[str, ResNetConfig] = {
  'r50c': ResNetConfig((3, 4, 6, 3), 64, 64, 256, (1, 2, 4), 'frozen'),
  'r101c': ResNetConfig((3, 4, 23, 3), 64, 64, 256, (1, 2, 4), 'frozen'),
  # 128x128 pixels at stride 32 would leave 16 positions for up to nine things.
  'tiny': ResNetConfig((1, 1, 1, 1), 16, 12, 24, (1,), 'group', (1, 2, 1, 1)),
}


class FrozenBatchNorm(nn.Module):
  """Batch norm whose statistics are constants, as in detectron2."""

  @nn.compact
  def __call__(self, x: Float[Array, 'b y x c']) -> Float[Array, 'b y x c']:
    """Normalises the channels with the stored mean and variance."""
    shape = (x.shape[-1],)
    ones, zeros = nn.initializers.ones, nn.initializers.zeros
    scale = self.param('scale', ones, shape)
    bias = self.param('bias', zeros, shape)
    mean = self.param('mean', zeros, shape)
    var = self.param('var', ones, shape)
    scale = scale * jax.lax.rsqrt(var + NORM_EPSILON)
    shift = bias - mean * scale
    row = (1, 1, 1, -1)
    return x * scale.reshape(row) + shift.reshape(row)


class ConvNorm(nn.Module):
  """A convolution without bias, then a norm, then (optionally) ReLU."""

  features: int
  kernel: int
  norm: str
  stride: int = 1
  dilation: int = 1
  relu: bool = True

  @nn.compact
  def __call__(self, x: Float[Array, 'b y x c']) -> Float[Array, 'b v u d']:
    """Pads symmetrically by `dilation * (kernel // 2)`, as PyTorch does."""
    pad = self.dilation * (self.kernel // 2)
    x = nn.Conv(
      self.features,
      (self.kernel, self.kernel),
      (self.stride, self.stride),
      padding=((pad, pad), (pad, pad)),
      kernel_dilation=(self.dilation, self.dilation),
      use_bias=False,
      kernel_init=nn.initializers.he_normal(),
      name='conv',
    )(x)
    if self.norm == 'frozen':
      x = FrozenBatchNorm(name='norm')(x)
    else:
      groups = min(32, self.features // 4)
      x = nn.GroupNorm(groups, epsilon=NORM_EPSILON, name='norm')(x)
    return nn.relu(x) if self.relu else x


class Bottleneck(nn.Module):
  """1x1, 3x3 (with the stride), 1x1, and a shortcut."""

  inner: int
  features: int
  stride: int
  dilation: int
  norm: str

  @nn.compact
  def __call__(self, x: Float[Array, 'b y x c']) -> Float[Array, 'b v u d']:
    """Maps to `features` channels at `1 / stride` of the resolution."""
    y = ConvNorm(self.inner, 1, self.norm, name='conv1')(x)
    y = ConvNorm(self.inner, 3, self.norm, self.stride, self.dilation, name='conv2')(y)
    y = ConvNorm(self.features, 1, self.norm, relu=False, name='conv3')(y)
    if x.shape[-1] != self.features:
      x = ConvNorm(
        self.features, 1, self.norm, self.stride, relu=False, name='shortcut'
      )(x)
    return nn.relu(x + y)


class ResNet(nn.Module):
  """Features of an image at strides 4, 8, 16 and 32 (with the published strides)."""

  config: ResNetConfig
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: Float[Array, 'b h w 3']) -> list[Float[Array, 'b y x c']]:
    """Returns res2 to res5 of an image normalised with `IMAGENET_MEAN` and `_STD`."""
    c = self.config
    x = image.astype(self.dtype)
    for i, (width, stride) in enumerate(
      [(c.stem_width, 2), (c.stem_width, 1), (2 * c.stem_width, 1)]
    ):
      x = ConvNorm(width, 3, c.norm, stride, name=f'stem_conv{i + 1}')(x)
    x = max_pool(x)
    features = []
    for stage, depth in enumerate(c.depths):
      for i in range(depth):
        last = stage == len(c.depths) - 1
        x = Bottleneck(
          inner=c.bottleneck * 2**stage,
          features=c.out_width * 2**stage,
          stride=c.strides[stage] if i == 0 else 1,
          dilation=c.multi_grid[i % len(c.multi_grid)] if last else 1,
          norm=c.norm,
          name=f'res{stage + 2}_{i}',
        )(x)
      features.append(x)
    return features


def max_pool(x: Float[Array, 'b y x c']) -> Float[Array, 'b v u c']:
  """Takes the maximum of 3x3 windows at stride 2, padded by one on every side.

  As maxima over shifted copies, first of rows and then of columns: the gradient of a
  windowed reduction takes several times as long on CPUs.
  """
  pad = ((0, 0), (1, 1), (1, 1), (0, 0))
  x = jnp.pad(x, pad, constant_values=-jnp.inf)
  height, width = (x.shape[1] - 1) // 2, (x.shape[2] - 1) // 2
  rows = [x[:, dy : dy + 2 * height - 1 : 2] for dy in range(3)]
  x = functools.reduce(jnp.maximum, rows)
  columns = [x[:, :, dx : dx + 2 * width - 1 : 2] for dx in range(3)]
  return functools.reduce(jnp.maximum, columns)
