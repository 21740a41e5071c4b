"""Textures of the stuff in the drawn world: sky, grass, sand, water and so on.

Every texture is a few large tiles, painted once per process from fixed seeds. A scene
cuts a window out of a tile, mirrors it and tints it, which takes microseconds.
"""

import functools
from collections.abc import Callable

import numpy as np
from PIL import Image

TILE = 256  # px; a scene cuts a smaller window out of it
NUM_TILES = 3
_TILE_SEED = 20_240

STUFF = ('sky', 'grass', 'sand', 'water', 'brick', 'wood', 'snow', 'gravel')


def _grid() -> tuple[np.ndarray, np.ndarray]:
  """Pixel coordinates of a tile: y (TILE, 1) and x (1, TILE), float32."""
  axis = np.arange(TILE, dtype=np.float32)
  return axis[:, None], axis[None, :]


def noise(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
  """Smooth random field, (TILE, TILE) float32, mean 0 and standard deviation 1.

  Args:
    rng: source of randomness.
    rows: how many bumps fit into the height; more is finer.
    columns: how many bumps fit into the width.
  """
  grid = rng.standard_normal((rows + 3, columns + 3)).astype(np.float32)
  field = Image.fromarray(grid).resize((TILE, TILE), Image.Resampling.BICUBIC)
  field = np.asarray(field)
  return (field - field.mean()) / field.std()


def _mix(low: tuple, high: tuple, weight: np.ndarray) -> np.ndarray:
  """Blends two colours by `weight` (h, w), clipped to 0..1; returns (h, w, 3)."""
  weight = np.clip(weight, 0, 1)[..., None].astype(np.float32)
  return np.float32(low) * (1 - weight) + np.float32(high) * weight


def _sky(rng: np.random.Generator) -> np.ndarray:
  clouds = noise(rng, 9, 4) + 0.5 * noise(rng, 18, 9) + 0.2 * noise(rng, 50, 30)
  return _mix((0.42, 0.67, 0.93), (0.94, 0.96, 0.99), 0.55 * clouds - 0.05)


def _grass(rng: np.random.Generator) -> np.ndarray:
  blades = noise(rng, 26, 110) + 0.7 * noise(rng, 50, 200) + 0.5 * noise(rng, 5, 5)
  return _mix((0.13, 0.30, 0.08), (0.50, 0.68, 0.26), 0.48 + 0.24 * blades)


def _sand(rng: np.random.Generator) -> np.ndarray:
  y, x = _grid()
  ripples = np.sin((y + 0.25 * x + 7 * noise(rng, 5, 5)) * (2 * np.pi / 17))
  grain = noise(rng, 250, 250) + 0.6 * noise(rng, 90, 90)
  return _mix(
    (0.70, 0.56, 0.36), (0.95, 0.85, 0.65), 0.55 + 0.15 * ripples + 0.11 * grain
  )


def _water(rng: np.random.Generator) -> np.ndarray:
  y, _ = _grid()
  waves = np.sin((y + 4.5 * noise(rng, 12, 6)) * (2 * np.pi / 11))
  crests = np.maximum(waves, 0) ** 3 * (0.6 + 0.4 * noise(rng, 20, 10))
  depth = 0.22 + 0.08 * noise(rng, 4, 4) + 0.10 * waves + 0.55 * crests
  return _mix((0.02, 0.20, 0.42), (0.62, 0.86, 0.92), depth)


def _brick(rng: np.random.Generator) -> np.ndarray:
  y, x = _grid()
  height, width, mortar = 13, 28, 2
  row = (y // height).astype(int)
  shifted = x + (row % 2) * (width // 2)
  column = (shifted // width).astype(int)
  tint = rng.standard_normal((64, 64))[row, column]
  wall = _mix(
    (0.40, 0.17, 0.12),
    (0.74, 0.40, 0.31),
    0.5 + 0.18 * tint + 0.1 * noise(rng, 120, 120),
  )
  joint = (y % height < mortar) | (shifted % width < mortar)
  grey = 0.76 + 0.04 * noise(rng, 128, 128)
  return np.where(joint[..., None], grey[..., None], wall)


def _wood(rng: np.random.Generator) -> np.ndarray:
  y, _ = _grid()
  plank = (y // 30).astype(int)
  offset = rng.uniform(0, 40, 16)[plank]
  tint = rng.standard_normal(16)[plank]
  rings = np.sin((y + offset + 7 * noise(rng, 10, 3)) * (2 * np.pi / 6.5))
  fibre = noise(rng, 200, 10)
  board = _mix(
    (0.33, 0.19, 0.08),
    (0.76, 0.54, 0.31),
    0.52 + 0.16 * rings + 0.10 * fibre + 0.10 * tint,
  )
  return np.where((y % 30 < 1.5)[..., None], np.float32((0.20, 0.11, 0.05)), board)


def _snow(rng: np.random.Generator) -> np.ndarray:
  drifts = noise(rng, 7, 5) + 0.4 * noise(rng, 20, 14)
  sparkle = np.maximum(noise(rng, 250, 250) - 1.7, 0)
  weight = 0.65 + 0.22 * drifts + 0.6 * sparkle
  return _mix((0.68, 0.76, 0.88), (0.95, 0.96, 0.98), weight)


def _gravel(rng: np.random.Generator) -> np.ndarray:
  y, x = _grid()
  cell = 9
  count = TILE // cell + 4
  jitter = rng.uniform(0.1, 0.9, (2, count, count)).astype(np.float32)
  tints = rng.standard_normal((count, count))
  row, column = (y // cell).astype(int) + 1, (x // cell).astype(int) + 1
  nearest = np.full((TILE, TILE), np.inf, np.float32)
  second, tint = nearest.copy(), np.zeros((TILE, TILE), np.float32)
  for dy in (-1, 0, 1):
    for dx in (-1, 0, 1):
      r, c = row + dy, column + dx
      distance = np.hypot(
        (r - 1 + jitter[0][r, c]) * cell - y, (c - 1 + jitter[1][r, c]) * cell - x
      )
      closer = distance < nearest
      second = np.where(closer, nearest, np.minimum(second, distance))
      tint = np.where(closer, tints[r, c], tint)
      nearest = np.minimum(nearest, distance)
  dome = np.clip((second - nearest) / 4.5, 0, 1)  # 0 in the gaps, 1 on the stones
  stone = 0.16 + dome * (0.42 + 0.15 * tint) + 0.04 * noise(rng, 200, 200)
  return _mix((0.12, 0.11, 0.11), (0.86, 0.83, 0.80), stone)


_PAINTERS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
  'sky': _sky,
  'grass': _grass,
  'sand': _sand,
  'water': _water,
  'brick': _brick,
  'wood': _wood,
  'snow': _snow,
  'gravel': _gravel,
}


@functools.cache
def tiles(name: str) -> np.ndarray:
  """Tiles of one stuff, (NUM_TILES, 3, TILE, TILE) uint8, RGB."""
  seeds = [_TILE_SEED, STUFF.index(name)]
  rng = np.random.default_rng(seeds)
  painted = np.stack([_PAINTERS[name](rng) for _ in range(NUM_TILES)])
  painted = np.clip(painted * 255, 0, 255).astype(np.uint8)
  # Planes, because NumPy is several times faster along rows than along 3 channels.
  return np.ascontiguousarray(painted.transpose(0, 3, 1, 2))


@functools.cache
def grain() -> np.ndarray:
  """A long strip of unit white noise, (2**19,) float32, to cut sensor noise from."""
  return np.random.default_rng(_TILE_SEED).standard_normal(2**19, dtype=np.float32)


def window(rng: np.random.Generator, name: str, size: int) -> np.ndarray:
  """Cuts one tinted window of texture, (3, size, size) float32, about 0..255."""
  choice = tiles(name)[rng.integers(NUM_TILES)]
  top, left = rng.integers(0, TILE - size + 1, 2)
  cut = choice[:, top : top + size, left : left + size]
  if rng.random() < 0.5:
    cut = cut[:, :, ::-1]
  tint = (1 + rng.normal(0, 0.07)) * (1 + rng.normal(0, 0.03, 3))
  return cut * tint.astype(np.float32)[:, None, None]
