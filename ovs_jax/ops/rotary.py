"""Rotary positions on a grid (RoFormer, section 3; EVA-02 and PE have two axes).

Features of queries and keys are turned in pairs, by angles that grow with the place.
"""

import jax.numpy as jnp
import numpy as np

from ovs_jax.core.types import Array, Float

_BASE = 10_000.0


def grid_angles(
  grid: tuple[int, int],
  size: int,
  *,
  order: str,
  start: int = 0,
  reference: int = 0,
) -> Float[np.ndarray, 'n p']:
  """Returns the angle of each pair of features at each place, row-major.

  Args:
    grid: rows and columns of patches.
    size: features of a head, a multiple of 4: half of the pairs are of either axis.
    order: 'yx' or 'xy', the axis of the first half and of the other.
    start: of the first row and column.
    reference: rows and columns that places are told in, whatever the grid; 0: its own.
  """
  frequency = _BASE ** (-np.arange(0, size // 2, 2) / (size // 2))
  y, x = (
    (np.arange(count) + start) * (reference / count if reference else 1)
    for count in grid
  )
  places = dict(zip('yx', np.meshgrid(y, x, indexing='ij'), strict=True))
  angles = [places[axis].reshape(-1, 1) * frequency for axis in order]
  return np.concatenate(angles, axis=1).astype(np.float32)


def turn(
  x: Float[Array, '*b n h d'], angles: Float[Array, 'n p']
) -> Float[Array, '*b n h d']:
  """Turns neighbouring features as pairs, in float32; `p` is half of `d`."""
  angles = angles.reshape(*(1,) * (x.ndim - 3), len(angles), 1, -1)
  pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, 2)
  a, b = pairs[..., 0], pairs[..., 1]
  cos, sin = jnp.cos(angles), jnp.sin(angles)
  turned = jnp.stack([a * cos - b * sin, b * cos + a * sin], axis=-1)
  return turned.reshape(x.shape).astype(x.dtype)
