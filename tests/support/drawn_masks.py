"""Masks that formats find hard, as what was found in a photo."""

import pathlib

import numpy as np
from PIL import Image

from ovs_jax.formats.found import Found, Instance

NAMES = ('red ball', 'käse, "alt"', 'grass')


def cases() -> dict[str, np.ndarray]:
  """Returns label maps: indices into `NAMES`, and -1 where there is nothing."""
  generator = np.random.default_rng(0)
  hole = np.full((9, 11), -1)
  hole[1:8, 1:10] = 0
  hole[3:6, 3:5] = -1  # two holes side by side, and one below
  hole[3:6, 7:8] = -1
  hole[6, 4] = -1
  inside = hole.copy()
  inside[4, 3] = 0  # an island in a hole
  point = np.full((6, 8), -1)
  point[2, 5] = 1
  border = np.full((5, 7), 0)
  border[1:4, 1:6] = 2
  corners = np.full((6, 6), -1)
  corners[np.arange(6), np.arange(6)] = 0
  corners[0, 5] = 1
  return {
    'holes': hole,
    'an island': inside,
    'one pixel': point,
    'nothing': np.full((4, 5), -1),
    'all': np.full((4, 5), 1),
    'all borders': border,
    'corners': corners,
    'one row': np.array([[0, 0, -1, 1, 0, -1, -1]]),
    'one column': np.array([[-1], [0], [0], [2]]),
    'one by one': np.array([[0]]),
    'noise': generator.integers(-1, 3, (23, 31)),
    'blobs': np.kron(generator.integers(-1, 3, (9, 7)), np.ones((5, 5), int)),
  }


def found_in(
  labels: np.ndarray, photo: pathlib.Path, *, stem: str = 'photo', names=NAMES
) -> Found:
  """Returns a segment per name, of which the k-th is sure by (k + 1) / 4."""
  found = [k for k in np.unique(labels).tolist() if k >= 0]
  instances = [Instance(k, labels == k, (k + 1) / 4) for k in found]
  confidence = np.where(labels < 0, 0, (labels + 1) / 4).astype(np.float32)
  return Found(
    photo=photo,
    stem=stem,
    names=names,
    labels=labels.astype(np.int32),
    confidence=confidence,
    instances=tuple(sorted(instances, key=lambda i: -i.area)),
    output=photo.parent,
  )


def draw_photo(path: pathlib.Path, shape: tuple[int, int]) -> pathlib.Path:
  """Writes a photo of a size."""
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.new('RGB', (shape[1], shape[0]), (10, 200, 30)).save(path)
  return path
