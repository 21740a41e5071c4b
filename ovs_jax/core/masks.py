"""Masks as arrays: of files, and the box around one."""

import numpy as np
from PIL import Image

from ovs_jax.core.files import Path
from ovs_jax.core.images import read_image
from ovs_jax.core.types import Bool


def box_of(mask: Bool[np.ndarray, 'h w']) -> tuple[int, int, int, int]:
  """Returns x0, y0, x1, y1 in pixels, exclusive ends, of a mask that is not empty."""
  rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
  return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def read_mask(path: Path) -> Bool[np.ndarray, 'h w']:
  """Reads a mask of any number of channels: not 0 where the thing is.

  Raises:
    FileNotFoundError, ValueError: there is no such file, or it is no image.
  """
  read_image(path)  # says what is wrong with it
  with Image.open(path) as image:
    values = np.asarray(image)
  return values.reshape(*values.shape[:2], -1).any(axis=2)
