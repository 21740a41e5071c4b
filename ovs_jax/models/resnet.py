"""ResNet: with the DeepLab stem ("c"), the backbone of OVSeg's smaller model."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ovs_jax.core.errors import UserError
from ovs_jax.core.flops import recomputes
from ovs_jax.core.limits import OneOf, Size
from ovs_jax.core.types import Array, Float
from ovs_jax.models.content import Content, norm_mask, zero_outside
from ovs_jax.models.layers import NORM_EPSILON, group_norm

_CHOICES = {
  'stem': ('deep', 'plain'),
  'block': ('bottleneck', 'basic'),
  'norm': ('frozen', 'group'),
}


@dataclasses.dataclass(frozen=True)
class ResNetConfig:
  """Sizes of the backbone.

  Attributes:
    depths: blocks of res2 to res5.
    stem_width: channels of the first two stem convolutions; the third has twice. Of
      a 'plain' stem: of its only convolution.
    bottleneck: channels inside the blocks of res2; grows with those of the stages.
    out_width: channels after res2; doubles per stage.
    multi_grid: dilations of the blocks of res5, in order and repeated.
    norm: 'frozen' (constant batch statistics) or 'group' (to train from scratch).
    strides: of the first block of res2 to res5; every published model has these.
    stem: 'deep' (three 3x3 convolutions) or 'plain' (one of 7x7).
    block: 'bottleneck' or 'basic' (two 3x3 convolutions, of ResNet-18 and -34).
    stride_first: whether a bottleneck's stride is on its first convolution, as in the
      first ResNets, and not on its 3x3 one.
    widths: channels after each stage where they do not double.
  """

  depths: tuple[Size, ...]
  stem_width: Size
  bottleneck: Size
  out_width: Size
  multi_grid: tuple[Size, ...]
  norm: Annotated[str, OneOf(_CHOICES['norm'])]
  strides: tuple[Size, ...] = (1, 2, 2, 2)
  stem: Annotated[str, OneOf(_CHOICES['stem'])] = 'deep'
  block: Annotated[str, OneOf(_CHOICES['block'])] = 'bottleneck'
  stride_first: bool = False
  widths: tuple[Size, ...] = ()

  def __post_init__(self) -> None:
    for name, known in _CHOICES.items():
      if getattr(self, name) not in known:
        value = getattr(self, name)
        raise UserError(f'{value!r} is none of {known} in the sizes of a ResNet')

  def stage_widths(self) -> tuple[int, ...]:
    """Returns the channels after each stage."""
    doubled = tuple(self.out_width * 2**i for i in range(len(self.depths)))
    return self.widths or doubled

  @classmethod
  def from_dict(cls, config: Mapping[str, Any]) -> 'ResNetConfig':
    """Reads what a checkpoint holds, where tuples have become lists."""
    tuples = {k: tuple(v) for k, v in config.items() if isinstance(v, list | tuple)}
    return cls(**{**config, **tuples})


PRESETS: dict[str, ResNetConfig] = {
  'r50c': ResNetConfig((3, 4, 6, 3), 64, 64, 256, (1, 2, 4), 'frozen'),
  'r101c': ResNetConfig((3, 4, 23, 3), 64, 64, 256, (1, 2, 4), 'frozen'),
  'r50': ResNetConfig((3, 4, 6, 3), 64, 64, 256, (1,), 'frozen', stem='plain'),
  'r101': ResNetConfig((3, 4, 23, 3), 64, 64, 256, (1,), 'frozen', stem='plain'),
  # For trying out: of no published model.
  'r_mini': ResNetConfig((1, 1, 1, 1), 8, 8, 16, (1, 2, 4), 'frozen'),
  # 128x128 pixels at stride 32 would leave 16 positions for up to nine things.
  'tiny': ResNetConfig((1, 1, 1, 1), 16, 12, 24, (1,), 'group', (1, 2, 1, 1)),
}


class FrozenBatchNorm(nn.Module):
  """Batch norm whose statistics and scales are constants, as in detectron2."""

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b y x c']) -> Float[Array, 'b y x c']:
    """Normalises the channels with the stored mean and variance."""
    shape = (x.shape[-1],)
    ones, zeros = nn.initializers.ones, nn.initializers.zeros
    # No gradients: they are no part of the clipped norm, and nothing moves them.
    scale = jax.lax.stop_gradient(self.param('scale', ones, shape))
    bias = jax.lax.stop_gradient(self.param('bias', zeros, shape))
    mean = jax.lax.stop_gradient(self.param('mean', zeros, shape))
    var = jax.lax.stop_gradient(self.param('var', ones, shape))
    scale = scale * jax.lax.rsqrt(var + NORM_EPSILON)
    shift = bias - mean * scale
    row = (1, 1, 1, -1)
    y = x.astype(jnp.float32) * scale.reshape(row) + shift.reshape(row)
    return y.astype(self.dtype)


class ConvNorm(nn.Module):
  """A convolution without bias, then a norm, then (optionally) ReLU."""

  features: int
  kernel: int
  norm: str
  stride: int = 1
  dilation: int = 1
  relu: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b y x c'], content: Content | None = None
  ) -> Float[Array, 'b v u d']:
    """Pads symmetrically by `dilation * (kernel // 2)`, as PyTorch does."""
    pad = self.dilation * (self.kernel // 2)
    x = nn.Conv(
      self.features,
      (self.kernel, self.kernel),
      (self.stride, self.stride),
      padding=((pad, pad), (pad, pad)),
      kernel_dilation=(self.dilation, self.dilation),
      use_bias=False,
      dtype=self.dtype,
      kernel_init=nn.initializers.he_normal(),
      name='conv',
    )(x)
    if self.norm == 'frozen':
      x = FrozenBatchNorm(self.dtype, name='norm')(x)
    else:
      groups = min(32, self.features // 4)
      norm = group_norm(groups, name='norm', dtype=self.dtype)
      x = norm(x, mask=norm_mask(x, content))
    return zero_outside(nn.relu(x) if self.relu else x, content)


class Block(nn.Module):
  """A residual block of either kind, and its shortcut."""

  config: ResNetConfig
  features: int
  stride: int
  dilation: int
  dtype: Any

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b y x c'], content: Content | None
  ) -> Float[Array, 'b v u d']:
    """Maps to `features` channels at `1 / stride` of the resolution."""
    c, stride, y = self.config, self.stride, x

    def conv(
      name: str, features: int, kernel: int, stride: int = 1, *, relu: bool = True
    ) -> ConvNorm:
      dilation = self.dilation if kernel == 3 else 1
      return ConvNorm(
        features, kernel, c.norm, stride, dilation, relu, self.dtype, name=name
      )

    if c.block == 'basic':
      y = conv('conv1', self.features, 3, stride)(y, content)
      y = conv('conv2', self.features, 3, relu=False)(y, content)
    else:
      inner = self.features * c.bottleneck // c.out_width
      first, second = (stride, 1) if c.stride_first else (1, stride)
      y = conv('conv1', inner, 1, first)(y, content)
      y = conv('conv2', inner, 3, second)(y, content)
      y = conv('conv3', self.features, 1, relu=False)(y, content)
    if x.shape[-1] != self.features or stride != 1:
      x = conv('shortcut', self.features, 1, stride, relu=False)(x, content)
    return nn.relu(x + y)


class ResNet(nn.Module):
  """Features of an image at strides 4, 8, 16 and 32 (with the published strides)."""

  config: ResNetConfig
  dtype: Any = jnp.float32
  remat: bool = False

  @nn.compact
  def __call__(
    self,
    image: Float[Array, 'b h w 3'],
    *,
    content: Content | None = None,
    train: bool = False,
  ) -> list[Float[Array, 'b _y _x _c']]:
    """Returns res2 to res5 of an image normalised with `IMAGENET_MEAN` and `_STD`.

    Args:
      image: of any size.
      content: the part that may be seen; None is all of it.
      train: changes nothing here.
    """
    del train
    c = self.config
    x = zero_outside(image.astype(self.dtype), content)
    convs = [(3, c.stem_width, 2), (3, c.stem_width, 1), (3, 2 * c.stem_width, 1)]
    if c.stem == 'plain':
      convs = [(7, c.stem_width, 2)]
    for i, (kernel, width, stride) in enumerate(convs):
      conv = ConvNorm(
        width, kernel, c.norm, stride, dtype=self.dtype, name=f'stem_conv{i + 1}'
      )
      x = conv(x, content)
    # Zeros outside do as well as minus infinity here: the stem ends with a ReLU.
    x = zero_outside(max_pool(x), content)
    block = nn.remat(Block, prevent_cse=True) if recomputes(self.remat) else Block
    features = []
    for stage, (depth, width) in enumerate(
      zip(c.depths, c.stage_widths(), strict=True)
    ):
      last = stage == len(c.depths) - 1
      for i in range(depth):
        x = block(
          config=c,
          features=width,
          stride=c.strides[stage] if i == 0 else 1,
          dilation=c.multi_grid[i % len(c.multi_grid)] if last else 1,
          dtype=self.dtype,
          name=f'res{stage + 2}_{i}',
        )(x, content)
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
