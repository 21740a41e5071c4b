"""Pictures to look at, as files of a size that can be sent."""

import io
import pathlib

import numpy as np
from PIL import Image

from ovs_jax.core.images import size_of
from ovs_jax.core.types import UInt8
from ovs_jax.inference.panoptic import Panoptic
from ovs_jax.ops import overlay
from ovs_jax.ops.colours import palette

_LARGE = 4_000_000  # pixels from which an overlay is a JPEG
_MOST = 4 * 2**20  # bytes that it should have at most
_QUALITIES = (92, 85, 75, 60, 45, 30)


def suffix_of(photo: pathlib.Path) -> str:
  """Returns 'png', or 'jpg' for the overlay of a large photo."""
  width, height = size_of(photo) or (0, 0)  # reading the photo says what is wrong
  return 'jpg' if width * height > _LARGE else 'png'


def save(picture: Image.Image, path: pathlib.Path) -> None:
  """Writes a picture as its suffix says; a JPEG as good as 4 MiB allow."""
  if path.suffix != '.jpg':
    picture.save(path)
    return
  for quality in _QUALITIES:
    file = io.BytesIO()
    picture.save(file, 'JPEG', quality=quality)
    if file.tell() <= _MOST:
      break
  path.write_bytes(file.getvalue())


def draw_panoptic(
  image: UInt8[np.ndarray, 'h w 3'], panoptic: Panoptic, names: tuple[str, ...]
) -> Image.Image:
  """Draws segments with ids over their picture, above a legend.

  Several segments of a name are numbered and have shades of its colour.
  """
  colours, made = palette(len(names)), []
  several = [segment.label for segment in panoptic.segments]
  seen: dict[int, int] = {}
  titles = []
  for segment in panoptic.segments:
    number = seen[segment.label] = seen.get(segment.label, 0) + 1
    more = several.count(segment.label) > 1
    titles.append(f'{segment.name} {number}' if more else segment.name)
    made.append(_shade(colours[segment.label], number - 1))
  shades = np.array(made, np.uint8).reshape(-1, 3)
  return overlay.overlay(image, panoptic.ids - 1, titles, colours=shades)


def _shade(colour: UInt8[np.ndarray, '3'], number: int) -> UInt8[np.ndarray, '3']:
  """Returns a colour for the first, and then ever others between white and black."""
  if number == 0:
    return colour
  # Van der Corput's sequence: 1/2, 1/4, 3/4, 1/8 ...
  share, bit = 0.0, 0.5
  while number:
    share, number, bit = share + bit * (number & 1), number >> 1, bit / 2
  ends = (colour * 0.35, 255 - (255 - colour) * 0.35)
  return np.round(ends[0] * (1 - share) + ends[1] * share).astype(np.uint8)
