"""Masks that users drew."""

import numpy as np
from PIL import Image

from ovs_jax.core.files import Path
from ovs_jax.core.images import read_image
from ovs_jax.core.types import Bool


def read_mask(path: Path) -> Bool[np.ndarray, 'h w']:
  """Reads a mask of any number of channels: not 0 where the thing is.

  Raises:
    FileNotFoundError, ValueError: there is no such file, or it is no image.
  """
  read_image(path)  # says what is wrong with it
  with Image.open(path) as image:
    values = np.asarray(image)
  return values.reshape(*values.shape[:2], -1).any(axis=2)
