"""The small copy of ADE20K-847 on which the field's numbers are measured.

The reference preparation shrinks images whose shorter side exceeds 512 pixels with
OpenCV: bilinear without antialiasing for the photograph, nearest neighbour for the
labels. Both are repeated here to the bit, in NumPy.
"""

import io

import numpy as np
from PIL import Image

from ovs_jax.core.types import Int, Num, UInt8
from ovs_jax.data.sources import encode_jpeg

SHORTEST = 512
_ONE = 2048  # OpenCV's weights of 8-bit images are multiples of 1 / 2048

Axis = tuple[Int[np.ndarray, 'o'], ...]


def shrink(
  image: bytes, label: Num[np.ndarray, 'h w']
) -> tuple[bytes, Num[np.ndarray, 'H W']]:
  """Returns the copy of an encoded image, always as a new JPEG, and of its labels."""
  with Image.open(io.BytesIO(image)) as opened:
    pixels = np.asarray(opened.convert('RGB'))
  h, w = small_size(*label.shape)
  if (h, w) != label.shape:
    pixels, label = resize_linear(pixels, h, w), resize_nearest(label, h, w)
  return encode_jpeg(pixels), label


def small_size(h: int, w: int) -> tuple[int, int]:
  """Returns the height and width of the copy; the longer side is rounded."""
  if min(h, w) <= SHORTEST:
    return h, w
  if w >= h:
    return SHORTEST, round(w / h * SHORTEST)
  return round(h / w * SHORTEST), SHORTEST


def resize_nearest(
  label: Num[np.ndarray, 'h w'], height: int, width: int
) -> Num[np.ndarray, 'H W']:
  """Resizes as OpenCV's INTER_NEAREST, which rounds positions down."""
  rows = np.arange(height) * (1 / (height / label.shape[0]))
  columns = np.arange(width) * (1 / (width / label.shape[1]))
  rows = np.minimum(rows.astype(np.int64), label.shape[0] - 1)
  columns = np.minimum(columns.astype(np.int64), label.shape[1] - 1)
  return label[rows][:, columns]


def resize_linear(
  image: UInt8[np.ndarray, 'h w c'], height: int, width: int
) -> UInt8[np.ndarray, 'H W c']:
  """Resizes as OpenCV's INTER_LINEAR of 8-bit images, in its fixed-point numbers."""
  left, right, to_left, to_right = _axis(image.shape[1], width)
  above, below, to_above, to_below = _axis(image.shape[0], height)
  source = image.astype(np.int32)
  across = source[:, left] * to_left[None, :, None]
  across += source[:, right] * to_right[None, :, None]
  across >>= 4
  upper = (across[above] * to_above[:, None, None]) >> 16
  lower = (across[below] * to_below[:, None, None]) >> 16
  return np.clip((upper + lower + 2) >> 2, 0, 255).astype(np.uint8)


def _axis(num_in: int, num_out: int) -> Axis:
  """Both neighbours of each output position, and their weights times 2048."""
  centre = (np.arange(num_out) + 0.5) * (num_in / num_out) - 0.5
  centre = centre.astype(np.float32)
  base = np.floor(centre).astype(np.int64)
  share = centre - base.astype(np.float32)
  share = np.where((base < 0) | (base >= num_in - 1), 0, share).astype(np.float32)
  base = np.clip(base, 0, num_in - 1)
  first = np.rint((1 - share) * _ONE).astype(np.int32)
  second = np.rint(share * _ONE).astype(np.int32)
  return base, np.minimum(base + 1, num_in - 1), first, second
