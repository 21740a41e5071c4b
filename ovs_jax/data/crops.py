"""How large the crop of a pair is stored, and in which format."""

import io
import zlib

import numpy as np
from PIL import Image

from ovs_jax.core.types import UInt8

_QUALITY = 92


def small_size(h: int, w: int, shortest: int) -> tuple[int, int]:
  """Returns the height and width of what `shrink` makes of a crop."""
  if not shortest or min(h, w) <= shortest:
    return h, w
  scale = shortest / min(h, w)
  return round(h * scale), round(w * scale)


def shrink(
  image: UInt8[np.ndarray, 'h w 3'], mask: UInt8[np.ndarray, 'h w'], shortest: int
) -> tuple[UInt8[np.ndarray, 'H W 3'], UInt8[np.ndarray, 'H W']]:
  """Makes a crop small enough that its shorter side is at most `shortest`.

  The aspect ratio is kept. A crop whose mask would have no pixel left stays as it is.

  Args:
    image: RGB, 0..255.
    mask: 0 or 255.
    shortest: pixels; 0 leaves every crop as it is.

  Returns:
    The image by Pillow's antialiased bicubic filter, the mask by nearest neighbours.
  """
  h, w = small_size(*mask.shape, shortest)
  if (h, w) == mask.shape:
    return image, mask
  small = np.asarray(Image.fromarray(mask).resize((w, h), Image.Resampling.NEAREST))
  if not small.any():
    return image, mask
  resized = Image.fromarray(image).resize((w, h), Image.Resampling.BICUBIC)
  return np.asarray(resized), small


def encode(array: UInt8[np.ndarray, 'h w ...'], image_format: str) -> bytes:
  """Returns an image or a mask as PNG, without loss, or as JPEG.

  A JPEG keeps its colours at the resolution of its brightness. PNG is not made as small
  as it could be, which would take longer than all else.
  """
  if image_format == 'jpeg':
    options = {'quality': _QUALITY, 'subsampling': 0, 'optimize': True}
  else:
    options = {'compress_level': zlib.Z_BEST_SPEED}
  buffer = io.BytesIO()
  Image.fromarray(array).save(buffer, image_format, **options)
  return buffer.getvalue()
