"""What one user of the page may ask for, and a line for each thing that is too much."""

import dataclasses
import warnings

import numpy as np
from PIL import Image

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Path, local
from ovs_jax.core.images import UNREADABLE, read_image
from ovs_jax.core.types import UInt8


@dataclasses.dataclass(frozen=True)
class Limits:
  """How much the page takes.

  Attributes:
    megabytes: of a file, 1e6 bytes each.
    megapixels: of a picture, once decoded.
    names: that are asked at once, those of the background included.
    seconds: of the model's time for one request.
    waiting: requests that may wait for the model.
    pictures: that are kept encoded; each may take some 0.3 GB of an OVSeg.
  """

  megabytes: int = 20
  megapixels: int = 50
  names: int = 100
  seconds: int = 120
  waiting: int = 10
  pictures: int = 4

  def __post_init__(self) -> None:
    for field, value in dataclasses.asdict(self).items():
      if value < 1:
        raise UserError(f'the limit of {field} must be at least 1, got {value}')


def open_photo(given: Path, limits: Limits) -> UInt8[np.ndarray, 'h w 3']:
  """Reads a photo that somebody sent; nothing is decoded that is too large.

  Args:
    given: the file. Messages have its name alone.
    limits: of its size.

  Raises:
    ValueError: it is too large, or no picture.
  """
  path = local(given)
  size = path.stat().st_size
  if size > 1e6 * limits.megabytes:
    raise UserError(
      f'{path.name} has {size / 1e6:.0f} MB; this page takes up to '
      f'{limits.megabytes} MB'
    )
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore', Image.DecompressionBombWarning)
      warnings.simplefilter('ignore', UserWarning)  # damaged EXIF
      with Image.open(path) as header:
        pixels = header.width * header.height
  except Image.DecompressionBombError:
    pixels = 2 * (Image.MAX_IMAGE_PIXELS or 0)
  except UNREADABLE:
    pixels = 0  # what reads it says why
  if pixels > 1e6 * limits.megapixels:
    raise UserError(
      f'{path.name} has {pixels / 1e6:.0f} megapixels; this page takes up to '
      f'{limits.megapixels}. Make it smaller first'
    )
  try:
    return read_image(path)
  except UserError as error:
    raise UserError(str(error).replace(str(path), path.name)) from error
