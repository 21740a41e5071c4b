"""Photographs as users have them, turned into 8-bit RGB arrays."""

import os
import pathlib
import struct
import warnings
import zlib

import jax
import numpy as np
from PIL import Image, ImageOps

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import local
from ovs_jax.core.types import Num, Shaped, UInt8

ImageLike = str | os.PathLike[str] | Image.Image | np.ndarray | jax.Array
IMAGE_TYPES = (str, os.PathLike, Image.Image, np.ndarray, jax.Array)  # the same

# What Pillow (and SciPy) raise for files that are damaged or of another kind.
UNREADABLE = (
  OSError,
  SyntaxError,
  ValueError,
  EOFError,
  LookupError,
  TypeError,
  OverflowError,
  RuntimeError,  # a variant that Pillow lacks, or damaged AVIF
  struct.error,
  zlib.error,
)
_HEIC = ('.heic', '.heif')  # photos of telephones, which Pillow alone does not read


_FILTERS = {
  'bicubic': Image.Resampling.BICUBIC,
  'bilinear': Image.Resampling.BILINEAR,
}


def read_image(path: str | os.PathLike[str]) -> UInt8[np.ndarray, 'h w 3']:
  """Reads an image file as RGB, 0..255.

  The orientation that a camera noted (EXIF) is applied. Grey, palette and CMYK images
  are converted, 16 bits become 8 by dropping the lower byte, transparent parts are
  laid on white, and of an animation the first frame is taken.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is a directory, not an image, cut off, or too large to be one.
  """
  path = local(path)
  if not path.exists():
    raise FileNotFoundError(
      f'image {path} not found; give the path of a photo, such as a JPEG or PNG file'
    )
  if not path.is_file():
    what = 'a directory' if path.is_dir() else 'no regular file'
    raise UserError(f'{path} is {what}; give the path of an image file')
  if path.suffix.lower() in _HEIC:
    _take_heic(path)
  try:
    with warnings.catch_warnings():
      # Pillow warns at half of the size that it refuses; large photos are fine.
      warnings.simplefilter('ignore', Image.DecompressionBombWarning)
      warnings.simplefilter('ignore', UserWarning)  # damaged EXIF
      with Image.open(path) as image:
        image.load()
        return to_rgb(ImageOps.exif_transpose(image))
  except Image.DecompressionBombError as error:
    raise UserError(
      f'{path} claims more than {2 * (Image.MAX_IMAGE_PIXELS or 0)} pixels; if that is '
      'so, make it smaller first'
    ) from error
  except UNREADABLE as error:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    if path.stat().st_size == 0:
      reason = 'the file is empty'
    elif isinstance(error, Image.UnidentifiedImageError):
      reason = 'no known image format'
    raise UserError(
      f'{path} cannot be read as an image ({reason}); expected a whole JPEG, PNG, '
      'WebP, TIFF, GIF or BMP file'
    ) from error


def size_of(path: pathlib.Path) -> tuple[int, int] | None:
  """Returns width and height as the file has them; None if it is no image."""
  try:
    if not path.is_file():
      return None
    if path.suffix.lower() in _HEIC:
      _take_heic(path)
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # of large photos, and of damaged EXIF
      with Image.open(path) as image:
        return image.size
  except (*UNREADABLE, Image.DecompressionBombError):
    return None


def _take_heic(path: os.PathLike[str]) -> None:
  try:
    import pillow_heif
  except ImportError as error:
    raise UserError(
      f'{path} is a HEIC file, which takes pillow-heif to read; install it with '
      'pip install pillow-heif, or convert the photo to JPEG'
    ) from error
  pillow_heif.register_heif_opener()


def as_rgb(image: ImageLike) -> UInt8[np.ndarray, 'h w 3']:
  """Returns an image given as a path, as Pillow's, or as an array.

  Args:
    image: arrays are (h, w), (h, w, 1), (h, w, 3) or (h, w, 4), channels last: grey,
      grey, RGB, or RGB with opacity, which is laid on white. They hold uint8 in
      0..255 or floats in 0..1.

  Raises:
    FileNotFoundError, ValueError: as `read_image`; or the array's shape, type or
      values are others.
  """
  if isinstance(image, (str, os.PathLike)):
    return read_image(image)
  if isinstance(image, Image.Image):
    if 0 in image.size:
      raise UserError(f'the image is empty; its width and height are {image.size}')
    return to_rgb(ImageOps.exif_transpose(image))
  array = np.asarray(image)
  shape = array.shape
  if array.ndim not in (2, 3) or (array.ndim == 3 and shape[2] not in (1, 3, 4)):
    hint = ' Move the channels last.' if array.ndim == 3 and shape[0] in (1, 3) else ''
    raise UserError(
      f'an image array must be (h, w), (h, w, 1), (h, w, 3) or (h, w, 4), got {shape}.'
      f'{hint}'
    )
  if 0 in shape:
    raise UserError(f'the image array is empty; its shape is {shape}')
  array = _to_uint8(array.reshape(*shape[:2], -1))
  if array.shape[2] == 1:
    return np.repeat(array, 3, axis=2)
  return to_rgb(Image.fromarray(array))


def resize_shortest(
  image: UInt8[np.ndarray, 'h w 3'], *, shortest: int, longest: int
) -> UInt8[np.ndarray, 'H W 3']:
  """Resizes as the reference does (detectron2's ResizeShortestEdge).

  The aspect ratio is kept; sides are rounded, and at least 1.

  Args:
    image: RGB, 0..255.
    shortest: wanted length of the shorter side.
    longest: limit of the longer side, which comes first.

  Returns:
    Pillow's bilinear interpolation, which antialiases when it shrinks.
  """
  h, w = shortest_size(image.shape[0], image.shape[1], shortest, longest)
  if (h, w) == image.shape[:2]:
    return image
  resized = Image.fromarray(image).resize((w, h), Image.Resampling.BILINEAR)
  return np.asarray(resized)


def central_square(
  image: UInt8[np.ndarray, 'h w 3'], side: int, interpolation: str = 'bicubic'
) -> UInt8[np.ndarray, 's s 3']:
  """Shows the centre of a picture as OpenAI's CLIP sees it.

  Args:
    image: RGB, 0..255.
    side: of the square in pixels.
    interpolation: 'bicubic', as OpenAI's, or 'bilinear'; Pillow's filters, which
      antialias.

  Returns:
    The central square of the picture, whose shorter side was resized to `side`, and the
    longer one in proportion, rounded down.
  """
  short = min(image.shape[:2])
  h, w = (side if n == short else int(side * n / short) for n in image.shape[:2])
  resized = Image.fromarray(image).resize((w, h), _FILTERS[interpolation])
  top, left = round((h - side) / 2), round((w - side) / 2)
  return np.asarray(resized)[top : top + side, left : left + side]


def squashed(
  image: UInt8[np.ndarray, 'h w 3'], side: int, interpolation: str
) -> UInt8[np.ndarray, 's s 3']:
  """Resizes both sides of a picture to `side`, by the filters of `central_square`."""
  resized = Image.fromarray(image).resize((side, side), _FILTERS[interpolation])
  return np.asarray(resized)


def shortest_size(h: int, w: int, shortest: int, longest: int) -> tuple[int, int]:
  """Returns the height and width that `resize_shortest` gives an image."""
  scale = shortest / min(h, w)
  sides = (h * scale, w * scale)
  if max(sides) > longest:
    scale = longest / max(sides)
    sides = (sides[0] * scale, sides[1] * scale)
  return max(int(sides[0] + 0.5), 1), max(int(sides[1] + 0.5), 1)


def to_rgb(image: Image.Image) -> UInt8[np.ndarray, 'h w 3']:
  """Returns a picture as `read_image` does, but not turned.

  Raises:
    ValueError: it has numbers of more than 16 bits.
  """
  if image.mode == 'F':
    raise UserError('it holds floating point numbers; save it with 8 or 16 bits')
  if image.mode == 'I' or image.mode.startswith('I;'):
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() >= 2**16:
      raise UserError(
        f'its values are {values.min()}..{values.max()}; save it with 8 or 16 bits'
      )
    grey = (values // 256).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)
  if image.has_transparency_data:
    image = image.convert('RGBA')
    white = Image.new('RGBA', image.size, 'white')
    image = Image.alpha_composite(white, image)
  return np.array(image.convert('RGB'))


def _to_uint8(array: Shaped[np.ndarray, 'h w c']) -> UInt8[np.ndarray, 'h w c']:
  if array.dtype == np.uint8:
    return np.ascontiguousarray(array)
  if not np.issubdtype(array.dtype, np.floating):
    raise UserError(
      f'an image array must hold uint8 (0..255) or floats (0..1), got {array.dtype}'
    )
  if not np.isfinite(array).all():
    raise UserError('the image array has values that are NaN or infinite')
  if array.min() < 0 or array.max() > 1:
    raise UserError(
      f'floating point image arrays must lie in 0..1, got {array.min():g}..'
      f'{array.max():g}. Divide by 255, or convert to uint8.'
    )
  return np.round(255 * array.astype(np.float32)).astype(np.uint8)


def nearest(
  array: Num[np.ndarray, 'h w'], size: tuple[int, int]
) -> Num[np.ndarray, 'y x']:
  """Resizes labels to a height and width: those at the pixels' centres."""
  rows, columns = (
    ((np.arange(n) + 0.5) * (m / n)).astype(np.int64)
    for n, m in zip(size, array.shape, strict=True)
  )
  return array[rows[:, None], columns]
