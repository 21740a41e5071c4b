"""Colours of labels, which differ as much as possible."""

import functools
import math

import numpy as np

from ovs_jax.core.types import Float, UInt8

# The first colours: those of Okabe and Ito (2008), which colour-blind people can tell
# apart, without black, and then others far from them and from each other.
_FIRST = (
  (0, 114, 178),
  (230, 159, 0),
  (0, 158, 115),
  (204, 121, 167),
  (213, 94, 0),
  (86, 180, 233),
  (240, 228, 66),
  (130, 20, 40),
  (90, 40, 140),
  (170, 255, 170),
  (150, 95, 30),
  (255, 60, 60),
  (0, 80, 40),
  (255, 190, 200),
  (0, 220, 220),
  (240, 0, 200),
  (130, 130, 0),
  (20, 40, 255),
  (120, 220, 0),
  (185, 165, 255),
)
_MOST = 2048  # different colours
_STEPS = 17  # levels of each channel among which further colours are chosen


def palette(count: int) -> UInt8[np.ndarray, 'n 3']:
  """Returns RGB colours that differ as much as possible, always the same ones.

  Colour i does not depend on `count`. After 2048 they repeat.
  """
  size = min(max(64, 2 ** math.ceil(math.log2(max(count, 1)))), _MOST)
  return _colours(size)[np.arange(count) % size]


@functools.cache
def _colours(count: int) -> UInt8[np.ndarray, 'n 3']:
  """Returns the colours chosen by hand, then always the one farthest from all."""
  levels = np.linspace(0, 255, _STEPS).round()
  grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 3)
  lab = to_lab(grid)
  vivid = (lab[:, 0] > 25) & (lab[:, 0] < 92) & (np.ptp(grid, axis=1) > 40)
  grid, lab = grid[vivid], lab[vivid]
  chosen = [np.array(colour, float) for colour in _FIRST]
  first = to_lab(np.stack(chosen))
  distance = np.linalg.norm(lab[:, None] - first[None], axis=2).min(axis=1)
  while len(chosen) < count:
    best = int(np.argmax(distance))
    chosen.append(grid[best])
    away = np.linalg.norm(lab - lab[best][None], axis=1)
    distance = np.minimum(distance, away)
  return np.stack(chosen).astype(np.uint8)


def to_lab(rgb: Float[np.ndarray, 'n 3']) -> Float[np.ndarray, 'n 3']:
  """Converts sRGB in 0..255 to CIELAB (D65), where distances are those one sees."""
  x = rgb / 255
  x = np.where(x > 0.04045, ((x + 0.055) / 1.055) ** 2.4, x / 12.92)
  to_xyz = [
    [0.4124, 0.3576, 0.1805],
    [0.2126, 0.7152, 0.0722],
    [0.0193, 0.1192, 0.9505],
  ]
  x = x @ np.array(to_xyz).T / np.array([[0.95047, 1.0, 1.08883]])
  x = np.where(x > 216 / 24389, np.cbrt(x), (24389 / 27 * x + 16) / 116)
  light = 116 * x[:, 1] - 16
  a, b = 500 * (x[:, 0] - x[:, 1]), 200 * (x[:, 1] - x[:, 2])
  return np.stack([light, a, b], axis=1)
