"""Swin transformer: the backbone of OVSeg's larger model."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.flops import recomputes
from ovs_jax.core.limits import Rate, Size
from ovs_jax.core.types import Array, Bool, Float, Int
from ovs_jax.models.content import Content, zero_outside
from ovs_jax.models.layers import layer_norm, linear
from ovs_jax.ops.attention import attend

_INIT = nn.initializers.truncated_normal(0.02)
_BLOCKED = -100.0  # added to the scores of positions that are apart; the reference's


@dataclasses.dataclass(frozen=True)
class SwinConfig:
  """Sizes of the backbone.

  Attributes:
    embed_dim: channels of the first stage; doubles per stage.
    depths: blocks of each stage.
    heads: attention heads of each stage.
    window: side of the attention windows, in tokens.
    drop_path: share of residual branches dropped by the last block in training; rises
      linearly from 0 in the first.
    patch: side of the patches, in pixels.
    mlp_ratio: hidden width of the blocks' MLPs, as a multiple of their channels.
    unroll: blocks in one step of a stage's loop; more compile longer.
  """

  embed_dim: Size
  depths: tuple[Size, ...]
  heads: tuple[Size, ...]
  window: Size
  drop_path: Rate = 0.3
  patch: Size = 4
  mlp_ratio: Size = 4
  unroll: Size = 1

  def __post_init__(self) -> None:
    widths = self.stage_widths()
    odd = len(self.heads) != len(self.depths) or any(
      width % heads for width, heads in zip(widths, self.heads, strict=False)
    )
    if odd:
      raise UserError(
        f'{list(self.heads)} heads do not divide the widths {list(widths)} of the '
        f'{len(self.depths)} stages'
      )

  def stage_widths(self) -> tuple[int, ...]:
    """Returns the channels of each stage."""
    return tuple(self.embed_dim * 2**i for i in range(len(self.depths)))

  @classmethod
  def from_dict(cls, config: Mapping[str, Any]) -> 'SwinConfig':
    """Reads what a checkpoint holds, where tuples have become lists."""
    tuples = {k: tuple(v) for k, v in config.items() if isinstance(v, list | tuple)}
    return cls(**{**config, **tuples})


PRESETS: dict[str, SwinConfig] = {
  'swin_tiny': SwinConfig(96, (2, 2, 6, 2), (3, 6, 12, 24), 7),
  'swin_small': SwinConfig(96, (2, 2, 18, 2), (3, 6, 12, 24), 7),
  'swin_base': SwinConfig(128, (2, 2, 18, 2), (4, 8, 16, 32), 12),
  'swin_large': SwinConfig(192, (2, 2, 18, 2), (6, 12, 24, 48), 12),
  # For trying out: of no published model.
  'swin_mini': SwinConfig(16, (1, 1, 2, 1), (1, 2, 4, 8), 4),
  'swin_micro': SwinConfig(16, (1, 1, 2, 1), (1, 2, 4, 8), 4, drop_path=0.0),
}


def relative_index(window: int) -> Int[np.ndarray, 'n n']:
  """Returns the row of the bias table for each pair of positions in a window."""
  y, x = np.divmod(np.arange(window * window), window)
  dy, dx = y[:, None] - y[None], x[:, None] - x[None]
  return (dy + window - 1) * (2 * window - 1) + dx + window - 1


def region_labels(
  grid: tuple[int, int], window: int, content: Content | None
) -> Int[Array, 'w n']:
  """Returns, for shifted windows, which of their positions belong together.

  A shift rolls the grid, so that the last windows hold both of its ends. Positions
  attend to each other if they have the same label.

  Args:
    grid: rows and columns, padded to whole windows.
    window: side of the windows; the shift is half of it.
    content: as the grid sees it; None is all of it.
  """
  labels = []
  for axis, length in enumerate(grid):
    place = np.arange(length)
    wrapped = jnp.asarray(place >= length - window // 2, jnp.int32)
    label = wrapped
    if content is not None:
      # What comes after the last whole window of the content.
      end = -(-content.size[axis] // window) * window
      origin = (place + window // 2) % length
      label = 2 * wrapped + (jnp.asarray(origin) >= end)
    labels.append(label)
  both = 4 * labels[0][:, None] + labels[1][None]
  return windows(both[None, :, :, None], window)[0, :, :, 0]


def windows(x: Any, side: int) -> Any:
  """Cuts (b, y, x, c) into windows (b, w, n, c), both row-major."""
  b, y, x_, c = x.shape
  x = x.reshape(b, y // side, side, x_ // side, side, c)
  return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, -1, side * side, c)


def unite(x: Any, grid: tuple[int, int]) -> Any:
  """Inverse of `windows` for a grid of rows and columns."""
  b, _, n, c = x.shape
  side = int(n**0.5)
  x = x.reshape(b, grid[0] // side, grid[1] // side, side, side, c)
  return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, *grid, c)


class WindowAttention(nn.Module):
  """Attention within windows, with a learned bias for each relative position."""

  heads: int
  window: int
  dtype: Any

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b w n c'], together: Bool[Array, 'w n n']
  ) -> Float[Array, 'b w n c']:
    """Attends inside each window, between positions that are `together`."""
    width = x.shape[-1]
    heads = (self.heads, width // self.heads)
    q, k, v = (linear(heads, name=s, dtype=self.dtype, init=_INIT)(x) for s in 'qkv')
    table = self.param(
      'relative_position_bias', _INIT, ((2 * self.window - 1) ** 2, self.heads)
    )
    bias = table[relative_index(self.window)].transpose(2, 0, 1)  # h n m
    apart = jnp.where(together, 0.0, _BLOCKED)[None, :, None]
    # For every window of every image: its gradient is then summed over both at once,
    # and devices that share the images add up one window's instead of all windows'.
    bias = jnp.broadcast_to(bias, (*x.shape[:2], *bias.shape))
    mixed = attend(q, k, v, bias=bias + apart)
    out = linear(width, name='out', dtype=self.dtype, axis=(-2, -1), init=_INIT)
    return out(mixed)


class SwinBlock(nn.Module):
  """Pre-norm block: attention in plain or shifted windows, then an MLP."""

  heads: int
  window: int
  mlp_ratio: int
  dtype: Any
  train: bool

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b y x c'],
    shifted: Bool[Array, ''],
    rate: Float[Array, ''],
    labels: Int[Array, 'w n'],
    content: Content | None,
  ) -> tuple[Float[Array, 'b y x c'], None]:
    """Runs the block.

    Args:
      x: tokens.
      shifted: whether its windows are shifted by half their side.
      rate: probability that an image skips each of the two residual branches.
      labels: from `region_labels`.
      content: which tokens are there.
    """
    b, rows, columns, width = x.shape
    shift = self.window // 2
    # Padding comes after the norm: its tokens are 0 and do take part in attention.
    y = zero_outside(layer_norm('norm1', self.dtype)(x), content)
    y = pad_to(y, self.window)
    grid = y.shape[1:3]
    y = jnp.where(shifted, jnp.roll(y, (-shift, -shift), (1, 2)), y)
    together = (labels[:, :, None] == labels[:, None, :]) | ~shifted
    attention = WindowAttention(self.heads, self.window, self.dtype, name='attn')
    y = unite(attention(windows(y, self.window), together), grid)
    y = jnp.where(shifted, jnp.roll(y, (shift, shift), (1, 2)), y)
    x = x + self._drop(y[:, :rows, :columns], rate)
    y = layer_norm('norm2', self.dtype)(x)
    y = linear(self.mlp_ratio * width, name='fc1', dtype=self.dtype, init=_INIT)(y)
    y = nn.gelu(y, approximate=False)  # the exact one, as in the reference
    y = linear(width, name='fc2', dtype=self.dtype, init=_INIT)(y)
    return x + self._drop(y, rate), None

  def _drop(self, y: Array, rate: Array) -> Array:
    if not self.train:
      return y
    shape = (y.shape[0], 1, 1, 1)
    kept = jax.random.bernoulli(self.make_rng('dropout'), 1 - rate, shape)
    return jnp.where(kept, y / (1 - rate).astype(y.dtype), jnp.zeros((), y.dtype))


class PatchMerging(nn.Module):
  """Halves the resolution and doubles the channels."""

  dtype: Any

  @nn.compact
  def __call__(self, x: Float[Array, 'b y x c']) -> Float[Array, 'b v u d']:
    """Joins squares of four tokens; odd sides are padded with zeros."""
    x = pad_to(x, 2)
    rows = [x[:, dy::2, dx::2] for dx in range(2) for dy in range(2)]
    x = layer_norm('norm', self.dtype)(jnp.concatenate(rows, axis=-1))
    width = x.shape[-1] // 2
    reduce = linear(
      width, name='reduction', dtype=self.dtype, init=_INIT, use_bias=False
    )
    return reduce(x)


class Swin(nn.Module):
  """Features of an image at strides 4, 8, 16, ..., each after a norm of its own."""

  config: SwinConfig
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
    """Returns res2, res3, ... of an image normalised with ImageNet's statistics.

    Args:
      image: of any size.
      content: the part that may be seen; None is all of it.
      train: whether residual branches are dropped (needs the rng 'dropout').
    """
    c = self.config
    x = pad_to(image.astype(self.dtype), c.patch)
    x = nn.Conv(
      c.embed_dim,
      (c.patch, c.patch),
      (c.patch, c.patch),
      padding='VALID',
      dtype=self.dtype,
      kernel_init=_INIT,
      name='patch_embed',
    )(x)
    x = layer_norm('patch_norm', self.dtype)(x)
    rates = np.split(
      np.linspace(0, c.drop_path, sum(c.depths), dtype=np.float32),
      np.cumsum(c.depths)[:-1],
    )
    features = []
    for stage, depth in enumerate(c.depths):
      if stage:
        x = zero_outside(x, content)
        x = PatchMerging(self.dtype, name=f'merge_{stage - 1}')(x)
      x = self._blocks(stage, train)(
        x,
        jnp.arange(depth) % 2 == 1,
        jnp.asarray(rates[stage]),
        region_labels(padded(x.shape[1:3], c.window), c.window, at(content, x)),
        content,
      )[0]
      features.append(zero_outside(layer_norm(f'norm_{stage}', self.dtype)(x), content))
    return features

  def _blocks(self, stage: int, train: bool) -> nn.Module:
    """One stage as a scan: it compiles once, and parameters are stacked on axis 0."""
    c = self.config
    block = (
      nn.remat(SwinBlock, prevent_cse=False) if recomputes(self.remat) else SwinBlock
    )
    scan = nn.scan(
      block,
      variable_axes={'params': 0},
      split_rngs={'params': True, 'dropout': True},
      in_axes=(0, 0, nn.broadcast, nn.broadcast),
      length=c.depths[stage],
      unroll=c.unroll,
    )
    return scan(
      c.heads[stage], c.window, c.mlp_ratio, self.dtype, train, name=f'blocks_{stage}'
    )


def padded(grid: tuple[int, ...], multiple: int) -> tuple[int, int]:
  """Returns rows and columns rounded up."""
  return -(-grid[0] // multiple) * multiple, -(-grid[1] // multiple) * multiple


def pad_to(x: Float[Array, 'b y x c'], multiple: int) -> Float[Array, 'b v u c']:
  """Pads right and bottom with zeros to a multiple."""
  rows, columns = padded(x.shape[1:3], multiple)
  return jnp.pad(x, ((0, 0), (0, rows - x.shape[1]), (0, columns - x.shape[2]), (0, 0)))


def at(content: Content | None, x: Float[Array, 'b y x c']) -> Content | None:
  """Returns the content in units of the tokens `x`."""
  if content is None:
    return None
  grid = x.shape[1:3]
  inside = content.mask(grid)
  size = jnp.stack([jnp.sum(inside[:, 0]), jnp.sum(inside[0])])
  return Content(size, grid)
