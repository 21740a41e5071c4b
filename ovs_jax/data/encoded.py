"""Files that are stored as they came: whether they are whole, without decoding all."""

import io
import re
import zlib

import numpy as np
from PIL import Image, JpegImagePlugin

from ovs_jax.core.types import UInt8

_JPEG = ('JPEG', 'MPO')  # one, and several in a file, of which the first counts
KEPT = (*_JPEG, 'PNG')  # kinds of photographs that are stored as they are
# In a JPEG's picture data 0xFF is followed by 0, by the number of a restart, or by the
# marker of what comes next.
_MARKER = re.compile(rb'\xff[^\x00\xd0-\xd7\xff]')
_START, _END, _SCAN = b'\xff\xd8', 0xD9, 0xDA
_SIGNATURE = b'\x89PNG\r\n\x1a\n'
_GREY_8 = bytes([8, 0])  # bits and colour type in a PNG's first chunk
_BITS_AT = 24  # where these are
_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8))  # markers of heights and widths
_ROWS = 16  # that are decoded to see that tables are right
_NOT, _BOTH_WAYS = 0, 2  # how a JPEG's colours are subsampled; 1: sideways alone
_TRIED = 1 << 16  # bytes that have these, mostly


def is_whole_jpeg(content: bytes) -> bool:
  """Returns whether a JPEG leads from marker to marker to its end, and can be begun.

  Takes a tenth of the time of decoding it. What this does not see, a decoder only
  warns of: bits that are wrong within the picture.
  """
  if not content.startswith(_START):
    return False
  at, height_at, begins = 2, 0, False
  while at + 4 <= len(content) and content[at] == 0xFF:
    marker, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4])
    if marker in _FRAMES:
      height_at = at + 5
    at += 2 + length
    if marker == _SCAN:
      begins = begins or _begins(content[: at + _TRIED], height_at)
      found = _MARKER.search(content, at)
      if found is None or not begins:
        return False
      at = found.start()
      if content[at + 1] == _END:
        return True
    elif length < 2:
      return False
  return False


def _begins(content: bytes, height_at: int) -> bool:
  """Whether the first rows of a JPEG can be decoded: its tables are right.

  Args:
    content: its first bytes.
    height_at: where its height is.
  """
  strip = bytearray(content) + bytes([0xFF, _END])
  strip[height_at : height_at + 2] = _ROWS.to_bytes(2)
  try:
    with Image.open(io.BytesIO(strip)) as image:
      image.load()
  except (OSError, SyntaxError, ValueError):
    return False
  return True


def is_whole_grey_png(content: bytes) -> bool:
  """Returns whether bytes are a PNG of one grey channel of 8 bits, all of it.

  Values are then what they say: no palette, no transparency, nothing to be scaled.
  """
  header = content[: _BITS_AT + 2]
  if not header.startswith(_SIGNATURE) or header[_BITS_AT:] != _GREY_8:
    return False
  at = len(_SIGNATURE)
  while at + 12 <= len(content):
    length = int.from_bytes(content[at : at + 4])
    kind = content[at + 4 : at + 8]
    end = at + 8 + length
    if zlib.crc32(content[at + 4 : end]) != int.from_bytes(content[end : end + 4]):
      return False
    if kind == b'IEND':
      return True
    if kind == b'tRNS':
      return False
    at = end + 4
  return False


def turned_jpeg(
  image: Image.Image, array: UInt8[np.ndarray, 'h w 3'], *, lying: bool
) -> bytes | None:
  """Returns a JPEG of a picture's turned pixels with the picture's own quality.

  Blocks of pixels stay blocks and have the same tables (of a quarter turn, transposed),
  so that little more is lost, and the file is about as large. As a PNG a photograph of
  12 megapixels takes ten times the space, and seconds.

  Args:
    image: an opened file.
    array: its pixels, turned.
    lying: whether by a quarter.

  Returns:
    The bytes; None if the picture is no JPEG of colours.
  """
  if image.format not in _JPEG or image.mode != 'RGB':
    return None
  tables = [np.reshape(x, (8, 8)) for x in image.quantization.values()]
  tables = [(x.T if lying else x).ravel().tolist() for x in tables]
  alike = JpegImagePlugin.get_sampling(image) == _BOTH_WAYS
  buffer = io.BytesIO()
  options = {'qtables': tables, 'subsampling': _BOTH_WAYS if alike else _NOT}
  Image.fromarray(array).save(buffer, 'jpeg', **options)
  return buffer.getvalue()


def load(image: Image.Image, content: bytes) -> None:
  """Sees that an opened JPEG or PNG can be decoded.

  Raises:
    OSError: it is cut off.
  """
  if image.format in _JPEG:
    if is_whole_jpeg(content):
      return
    image.draft(image.mode, (1, 1))  # all bytes are read, and few pixels made
  image.load()
