"""Resampling with PyTorch's conventions (`align_corners=False`, no antialiasing).

`jax.image.resize` differs from them by up to 0.29 of the value range (its cubic kernel
has a=-0.5, it antialiases when shrinking and renormalises at borders), so the weights
are written out here. With antialiasing PyTorch's are the same, and taken from there.
Resizing is separable: a matrix over rows, another over columns.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.types import Array, Bool, Float, Int, Num

# Matrix products at full float32 precision on every device: GPUs and TPUs round to
# TF32 or bfloat16 by default, which moves a mask across its threshold.
EXACT = jax.lax.Precision.HIGHEST

_CUBIC = -0.75  # PyTorch's coefficient; Keys' and jax.image's is -0.5


def cubic_weights(fraction: Float[Array, '*n']) -> Float[Array, '*n 4']:
  """Returns the weights of the taps -1, 0, 1, 2 around `floor(position)`."""

  def near(x: Array) -> Array:
    return ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1

  def far(x: Array) -> Array:
    return ((_CUBIC * x - 5 * _CUBIC) * x + 8 * _CUBIC) * x - 4 * _CUBIC

  t = fraction
  return jnp.stack([far(t + 1), near(t), near(1 - t), far(2 - t)], axis=-1)


def cubic_matrix(
  start: Int[Array, ''], stop: Int[Array, ''], num_in: int, num_out: int
) -> Float[Array, 'o i']:
  """Returns the bicubic weights that resize the span [start, stop) to `num_out`.

  Samples beyond the span repeat its border, as if it had been cut out first.

  Args:
    start: first index of the span; may be traced.
    stop: one past its last index, > start.
    num_in: length of the whole axis.
    num_out: length of the result.
  """
  length = (stop - start).astype(jnp.float32)
  position = (jnp.arange(num_out) + 0.5) * (length / num_out) - 0.5
  base = jnp.floor(position)
  weights = cubic_weights(position - base)  # o 4
  taps = base.astype(jnp.int32)[:, None] + jnp.arange(-1, 3)[None]  # o 4
  taps = jnp.clip(taps, 0, stop - start - 1) + start
  hit = taps[:, :, None] == jnp.arange(num_in)[None, None]  # o 4 i
  return jnp.sum(jnp.where(hit, weights[:, :, None], 0.0), axis=1)


def nearest_indices(
  start: Int[Array, ''], stop: Int[Array, ''], num_out: int
) -> Int[Array, 'o']:
  """Returns PyTorch's nearest-neighbour indices, `start + floor(i * in / out)`."""
  return start + (jnp.arange(num_out) * (stop - start)) // num_out


def linear_taps(
  num_in: int, num_out: int
) -> tuple[Int[np.ndarray, 'o'], Int[np.ndarray, 'o'], Float[np.ndarray, 'o']]:
  """Returns lower index, upper index and weight of the upper one, for each output."""
  scale = np.float32(num_in / num_out)
  position = scale * (np.arange(num_out, dtype=np.float32) + 0.5) - 0.5
  position = np.maximum(position, 0).astype(np.float32)
  low = np.minimum(np.floor(position).astype(np.int32), num_in - 1)
  high = np.minimum(low + 1, num_in - 1)
  return low, high, (position - low).astype(np.float32)


def linear_matrix(num_in: int, num_out: int) -> Float[np.ndarray, 'o i']:
  """Returns the bilinear weights that resize an axis of `num_in` to `num_out`."""
  low, high, weight = linear_taps(num_in, num_out)
  matrix = np.zeros((num_out, num_in), np.float32)
  rows = np.arange(num_out)
  np.add.at(matrix, (rows, low), 1 - weight)
  np.add.at(matrix, (rows, high), weight)
  return matrix


def resize_bilinear(
  x: Float[Array, '*b h w'], size: tuple[int, int]
) -> Float[Array, '*b H W']:
  """Resizes the last two axes to `size`, as PyTorch's `interpolate` does."""
  h, w = x.shape[-2:]
  if (h, w) == tuple(size):
    return x
  rows = jnp.asarray(linear_matrix(h, size[0]), x.dtype)
  columns = jnp.asarray(linear_matrix(w, size[1]), x.dtype)
  x = jnp.einsum('Hh,...hw->...Hw', rows, x, precision=EXACT)
  return jnp.einsum('Ww,...hw->...hW', columns, x, precision=EXACT)


def resize_nearest(
  x: Num[Array, '*b h w'] | Bool[Array, '*b h w'], size: tuple[int, int]
) -> Num[Array, '*b H W'] | Bool[Array, '*b H W']:
  """Takes pixel floor(i * in / out) along the last two axes."""
  rows = (np.arange(size[0]) * x.shape[-2]) // size[0]
  columns = (np.arange(size[1]) * x.shape[-1]) // size[1]
  return x[..., rows, :][..., columns]


def resize_grid(
  table: Float[Array, '*b n d'],
  grid: tuple[int, int],
  method: str = 'bicubic',
  *,
  antialias: bool = False,
) -> Float[Array, '*b m d']:
  """Resizes a square grid of vectors, row-major, to another one.

  Args:
    table: one vector, or several tables of one, for each place.
    grid: rows and columns that are wanted.
    method: 'bicubic' or 'bilinear'.
    antialias: whether it is done as open_clip and timm do it, with PyTorch's
      antialiasing: filters grow with the step when the grid shrinks, what hangs over a
      border is left out, and the cubic kernel has a=-0.5, so that larger grids differ
      too (bilinear ones do not). Otherwise as Hugging Face has it, and the CLIPSeg that
      was trained with it.

  Raises:
    ValueError: it is not a square.
  """
  count, width = table.shape[-2:]
  side = math.isqrt(count)
  if side * side != count:
    raise UserError(f'{count} positions are not a square grid; cannot resize them')
  if (side, side) == tuple(grid):
    return table
  start, stop = jnp.asarray(0), jnp.asarray(side)
  if antialias:
    rows, columns = (_antialiased(side, size, method) for size in grid)
  elif method == 'bilinear':
    rows, columns = (jnp.asarray(linear_matrix(side, size)) for size in grid)
  else:
    rows, columns = (cubic_matrix(start, stop, side, size) for size in grid)
  square = table.astype(jnp.float32).reshape(*table.shape[:-2], side, side, width)
  square = jnp.einsum('Yy,...yxd->...Yxd', rows, square, precision=EXACT)
  square = jnp.einsum('Xx,...yxd->...yXd', columns, square, precision=EXACT)
  return square.reshape(*table.shape[:-2], -1, width).astype(table.dtype)


def _antialiased(num_in: int, num_out: int, method: str) -> Float[Array, 'o i']:
  """Returns the weights of PyTorch's resizing with antialiasing, which are JAX's."""
  kernel = {'bicubic': 'cubic', 'bilinear': 'linear'}[method]
  return jax.image.resize(jnp.eye(num_in), (num_out, num_in), kernel, antialias=True)


def resize_positions(
  table: Float[Array, 'n d'],
  grid: tuple[int, int],
  method: str = 'bicubic',
  *,
  first: int = 1,
  antialias: bool = False,
) -> Float[Array, 'm d']:
  """Resizes a vision transformer's table of positions to another grid of patches.

  As `resize_grid`; the `first` rows belong to tokens before the patches, and stay.
  """
  patches = table[first:]
  resized = resize_grid(patches, grid, method, antialias=antialias)
  return table if resized is patches else jnp.concatenate([table[:first], resized])
