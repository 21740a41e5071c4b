"""Position tables of CLIP for another input size."""

import math

import jax.numpy as jnp
import numpy as np

from ovs_jax.core.types import Float
from ovs_jax.ops.resize import cubic_matrix


def resize_grid(
  table: Float[np.ndarray, '*p n d'], grid: int
) -> Float[np.ndarray, '*p m d']:
  """Resizes a square grid of vectors, row-major, to `grid` x `grid`.

  Bicubic as in PyTorch (a=-0.75, half-pixel centres, repeated borders) without
  antialiasing: what Hugging Face does, and the CLIPSeg that was trained with it. The
  resizing of open_clip antialiases, which differs when the grid shrinks.
  """
  count, width = table.shape[-2:]
  side = math.isqrt(count)
  if side * side != count:
    raise ValueError(f'{count} positions are not a square grid; cannot resize them')
  if side == grid:
    return table
  weights = cubic_matrix(jnp.asarray(0), jnp.asarray(side), side, grid)
  weights = np.asarray(weights, np.float64)
  square = table.astype(np.float64).reshape(*table.shape[:-2], side, side, width)
  square = np.einsum('Yy,...yxd->...Yxd', weights, square)
  square = np.einsum('Xx,...yxd->...yXd', weights, square)
  return square.reshape(*table.shape[:-2], grid * grid, width).astype(np.float32)


def resize_positions(
  table: Float[np.ndarray, 'n d'], grid: int
) -> Float[np.ndarray, 'm d']:
  """Resizes a table whose first row is the class token's, which stays."""
  patches = resize_grid(table[1:], grid)
  if patches.shape[0] == table.shape[0] - 1:
    return table
  return np.concatenate([table[:1].astype(np.float32), patches])
