"""Photographs of a user's own, drawn: of several sizes, with masks and names."""

import pathlib

import numpy as np
from PIL import Image

NAMES = ('sky', 'grass', 'red ball', 'blue box')
COLOURS = np.array([[130, 180, 240], [60, 150, 50], [210, 40, 40], [40, 60, 200]])


def draw(size: tuple[int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns a picture (h, w, 3) uint8 and its classes (h, w) uint8."""
  rng = np.random.default_rng(seed)
  h, w = size
  y, x = np.mgrid[:h, :w]
  label = (y > h * rng.uniform(0.4, 0.7)).astype(np.uint8)
  for value in (2, 3):
    if rng.random() < 0.7:
      r = min(h, w) * rng.uniform(0.12, 0.25)
      cy, cx = rng.uniform(r, h - r), rng.uniform(r, w - r)
      far = (
        np.hypot(y - cy, x - cx) if value == 2 else np.maximum(abs(y - cy), abs(x - cx))
      )
      label[far < r] = value
  noise = rng.normal(0, 12, (h, w, 3))
  return np.clip(COLOURS[label] + noise, 0, 255).astype(np.uint8), label


def write(
  root: pathlib.Path, count: int, *, side: int = 64, alike: bool = False
) -> None:
  """Writes a folder: images/, masks/ and names.txt; `alike` ones have one size."""
  for kind in ('images', 'masks'):
    (root / kind).mkdir(parents=True)
  for i in range(count):
    longer = side * 4 // 3
    sizes = [(side, side), (side, longer), (longer, side)]
    size = sizes[0 if alike else i % 3]
    picture, label = draw(size, i)
    Image.fromarray(picture).save(root / 'images' / f'{i:03d}.jpg', quality=95)
    Image.fromarray(label).save(root / 'masks' / f'{i:03d}.png')
  (root / 'names.txt').write_text('\n'.join(NAMES) + '\n')
