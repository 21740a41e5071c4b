"""Masks as arrays: of files, and the box around one."""

import numpy as np
from PIL import Image

from ovs_jax.core.files import Path
from ovs_jax.core.images import read_image
from ovs_jax.core.types import Bool

# Shares of the picture from which a mask is of the next size.
SIZES = {'small': 0.0, 'medium': 0.01, 'large': 0.1}


def box_of(mask: Bool[np.ndarray, 'h w']) -> tuple[int, int, int, int]:
  """Returns x0, y0, x1, y1 in pixels, exclusive ends, of a mask that is not empty."""
  rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
  return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def read_mask(path: Path) -> Bool[np.ndarray, 'h w']:
  """Reads a mask of any kind of picture: not 0 where the thing is.

  Transparency is no colour: what cannot be seen is outside. Of a JPEG, whose edges and
  flat parts are noisy, values from 128 on are inside.

  Raises:
    FileNotFoundError, ValueError: there is no such file, or it is no image.
  """
  read_image(path)  # says what is wrong with it
  with Image.open(path) as image:
    least = 128 if image.format == 'JPEG' else 1
    values = np.asarray(image)
    transparent = image.mode in ('RGBA', 'LA', 'PA')
  channels = values.reshape(*values.shape[:2], -1)
  shown = channels[..., -1] > 0 if transparent else True
  colours = channels[..., :-1] if transparent else channels
  return (colours >= least).any(axis=2) & shown
