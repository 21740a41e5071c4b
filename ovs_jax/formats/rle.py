"""Runs of masks, as COCO and Label Studio write them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.types import Bool, Int

# Label Studio's rle-pack: how many bits the length of a run may have.
_SIZES = (3, 4, 8, 16)
_LONGEST = 1 << _SIZES[-1]
_MOST_BITS = 60  # of a number in COCO's runs


def runs(flat: Bool[np.ndarray, 'n']) -> Int[np.ndarray, 'r']:
  """Returns the lengths of runs, by turns of False and True; the first may be 0."""
  edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
  lengths = np.diff(np.concatenate([[0], edges, [len(flat)]]))
  return np.concatenate([[0], lengths]) if len(flat) and flat[0] else lengths


def coco_counts(mask: Bool[np.ndarray, 'h w']) -> str:
  """Returns COCO's compressed runs, down the columns."""
  return _compressed(runs(mask.ravel(order='F')).tolist())


def coco_counts_of(pixels: Int[np.ndarray, 'n'], size: tuple[int, int]) -> str:
  """Returns the same of few pixels, in a time that does not depend on the picture.

  Args:
    pixels: their indices in the picture, row after row; at least one.
    size: height and width of the picture.
  """
  height, width = size
  places = np.sort(pixels % width * height + pixels // width)
  after = np.flatnonzero(np.diff(places) > 1)
  starts = places[np.concatenate([[0], after + 1])]
  ends = places[np.concatenate([after, [-1]])] + 1
  edges = np.stack([starts, ends], axis=1).ravel()
  lengths = np.diff(np.concatenate([[0], edges, [height * width]])).tolist()
  return _compressed(lengths if lengths[-1] else lengths[:-1])


def _compressed(counts: list[int]) -> str:
  """Writes numbers as characters of six bits.

  From the fourth number on, it is the difference to the one two before; five bits of a
  character are the number's, lowest first, and the sixth says whether more follow.
  """
  text = []
  for i, count in enumerate(counts):
    x = count - counts[i - 2] if i > 2 else count
    while True:
      bits = x & 31
      x >>= 5  # keeps the sign
      more = x != -1 if bits & 16 else x != 0
      text.append(chr(48 + (bits | 32 if more else bits)))
      if not more:
        break
  return ''.join(text)


def coco_mask(
  counts: str | bytes | Sequence[Any], size: tuple[int, int]
) -> Bool[np.ndarray, 'h w']:
  """Returns the mask of `coco_counts`.

  Args:
    counts: compressed runs; or their lengths, down the columns.
    size: height and width.

  Raises:
    UserError: the runs are damaged, or of another number of pixels.
  """
  if isinstance(counts, bytes):
    counts = counts.decode('latin-1')
  lengths = _decompressed(counts) if isinstance(counts, str) else list(counts)
  if not all(type(length) is int and length >= 0 for length in lengths):
    raise UserError(
      'the runs of a mask have lengths that are not numbers from 0 on; write them '
      'again, as pycocotools does'
    )
  total, pixels = sum(lengths), size[0] * size[1]
  if total != pixels:
    than = 'more' if total > pixels else 'less'
    raise UserError(
      f'the runs of a mask are of {total} pixels, {than} than the '
      f'{size[0]} x {size[1]} of its size; write them again, as pycocotools does'
    )
  values = np.arange(len(lengths)) % 2 == 1
  return np.repeat(values, np.array(lengths, np.int64)).reshape(size, order='F')


def _decompressed(text: str) -> list[int]:
  """Reads what `_compressed` wrote."""
  numbers: list[int] = []
  x, shift = 0, 0
  for character in text:
    bits = ord(character) - 48
    if not 0 <= bits < 64 or shift > _MOST_BITS:
      raise UserError(
        f'the runs of a mask have the character {character!r} where there can be none; '
        'give them as pycocotools writes them'
      )
    x |= (bits & 31) << shift
    shift += 5
    if bits & 32:
      continue
    if bits & 16:
      x -= 1 << shift
    numbers.append(x + numbers[-2] if len(numbers) > 2 else x)
    x, shift = 0, 0
  if shift:
    raise UserError('the runs of a mask end amid a number; the file is cut off')
  return numbers


def brush(mask: Bool[np.ndarray, 'h w']) -> list[int]:
  """Returns the bytes of a brush in Label Studio: runs of its four channels, by rows.

  The number of values (32 bits), the bits of a value less one (5), those of the four
  kinds of lengths less one (4 each); and of every run a one, its kind (2), its length
  less one, and its value.
  """
  bits = [f'{4 * mask.size:032b}', f'{8 - 1:05b}', *(f'{n - 1:04b}' for n in _SIZES)]
  for i, length in enumerate(runs(mask.ravel()).tolist()):
    left, value = 4 * length, f'{255 * (i % 2):08b}'
    while left:
      now = min(left, _LONGEST)
      kind = next(k for k, n in enumerate(_SIZES) if now <= 1 << n)
      bits.append(f'1{kind:02b}{now - 1:0{_SIZES[kind]}b}{value}')
      left -= now
  text = np.frombuffer(''.join(bits).encode(), np.uint8) - ord('0')
  return np.packbits(text).tolist()


def brush_mask(packed: Sequence[int], size: tuple[int, int]) -> Bool[np.ndarray, 'h w']:
  """Returns the mask of `brush`: pixels whose fourth channel is not 0.

  Args:
    packed: bytes of Label Studio's brush.
    size: height and width.

  Raises:
    UserError: they are damaged, or of another number of pixels.
  """
  try:
    bits = np.unpackbits(np.array(packed, np.uint8))
  except (TypeError, ValueError, OverflowError) as error:
    raise UserError('the brush of a mask has values that are no bytes') from error
  place = 0

  def take(count: int) -> int:
    nonlocal place
    if place + count > len(bits):
      raise UserError('the brush of a mask ends too soon; the file is cut off')
    found = int.from_bytes(
      np.packbits(np.pad(bits[place : place + count], (-count % 8, 0)))
    )
    place += count
    return found

  total, width = take(32), take(5) + 1
  lengths = [take(4) + 1 for _ in range(4)]
  if total != 4 * size[0] * size[1] or width > 8:
    raise UserError(
      f'the brush of a mask has {total // 4} pixels, the photo {size[0]} x {size[1]}; '
      'export it again'
    )
  values = np.zeros(total, np.uint8)
  done = 0
  while done < total:
    alike = take(1)
    count = take(lengths[take(2)]) + 1
    if alike:
      values[done : done + count] = take(width)
    else:
      values[done : done + count] = [
        take(width) for _ in range(min(count, total - done))
      ]
    done += count
  return values.reshape(*size, 4)[..., 3] > 0
