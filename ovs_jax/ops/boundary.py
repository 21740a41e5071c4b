"""Boundary IoU: the overlap of what lies close to the borders of segments.

Cheng et al. (2021): the band of a mask is the part of it within a distance from its
contour, 2 % of the image's diagonal; the IoU is that of the bands. Here the bands of
all classes of a label map come at once, and are summed over the data set like IoU.
"""

import math

import numpy as np

from ovs_jax.core.types import Bool, Int, Num, UInt, UInt8
from ovs_jax.ops.confusion import compact

RATIO = 0.02  # of the diagonal; the paper's value


def band_width(size: tuple[int, int], ratio: float = RATIO) -> int:
  """Returns the distance for an image of this height and width, at least 1 pixel."""
  return max(1, round(ratio * math.hypot(*size)))


def boundary_band(
  labels: Num[np.ndarray, 'h w'], distance: int
) -> Bool[np.ndarray, 'h w']:
  """Marks pixels with another label, or the image's end, in `distance`.

  The distance is that of `distance` erosions with a square of 3x3, as in the authors'
  code: the larger one of those along rows and columns.
  """
  band = _band(_changes(labels), distance)
  return _unpack(band, labels.shape[1])


# Below, a bit is a pixel. Rows are whole bytes, with the first pixel as the lowest bit
# and at least one bit more than there are pixels.


def _changes(labels: Num[np.ndarray, 'h w']) -> UInt8[np.ndarray, '2 h r']:
  """Marks pixels that differ from the one to the left, and from the one above.

  What lies outside of the image differs, and so does all that fills rows up.
  """
  h, w = labels.shape
  differs = np.ones((2, h, (w // 8 + 1) * 8), bool)
  np.not_equal(labels[:, 1:], labels[:, :-1], out=differs[0, :, 1:w])
  np.not_equal(labels[1:], labels[:-1], out=differs[1, 1:, :w])
  return np.packbits(differs, axis=2, bitorder='little')


def _band(
  changes: UInt8[np.ndarray, '2 h r'], distance: int
) -> UInt8[np.ndarray, 'h r']:
  """Marks pixels in whose window of 2 * distance + 1 anything changes.

  It does along a row of the window, or from one row to the next: with rows that are
  each of one label it is enough to look above a single pixel.
  """
  across, above = changes
  h = len(across)
  mixed = _spread(across, distance)
  # Between a row and the one above it; a mixed row is on both sides.
  between = np.full((h + 1, mixed.shape[1]), 255, np.uint8)
  between[1:-1] = above[1:] | mixed[1:] | mixed[:-1]
  band = np.full_like(mixed, 255)
  if 2 * distance > h + 1:
    return band
  covered = 1
  while covered < 2 * distance:
    step = min(covered, 2 * distance - covered)
    between = between[:-step] | between[step:]
    covered += step
  band[distance - 1 : h - distance + 1] = between
  return band


def _spread(
  across: UInt8[np.ndarray, 'h r'], distance: int
) -> UInt8[np.ndarray, 'h r']:
  """Marks pixels with a change in the 2 * distance places around them.

  Place x is between the pixels x - 1 and x; pixel x has x - distance + 1 to x +
  distance. All rows are one line of bits. What crosses the end of a row changes
  nothing there, because all pixels in reach of it are marked anyway.
  """
  bits = across.reshape(-1)
  line, covered = _behind(bits, distance - 1), 1
  while covered < 2 * distance:
    step = min(covered, 2 * distance - covered)
    line |= _ahead(line, step)
    covered += step
  return line[: bits.size].reshape(across.shape)


def _ahead(line: UInt8[np.ndarray, 'n'], count: int) -> UInt8[np.ndarray, 'n']:
  """Returns in each bit that `count` bits later, past the end ones."""
  whole, part = divmod(count, 8)
  end = np.full(min(whole, line.size) + 1, 255, np.uint8)
  moved = np.concatenate([line[whole:], end])
  if not part:
    return moved[:-1]
  return (moved[:-1] >> part) | (moved[1:] << (8 - part))


def _behind(line: UInt8[np.ndarray, 'n'], count: int) -> UInt8[np.ndarray, 'm']:
  """Returns in each bit that `count` bits earlier, before the start ones."""
  whole, part = divmod(count, 8)
  start = np.full(whole + 1, 255, np.uint8)
  return _ahead(np.concatenate([start, line]), 8 - part)


def _unpack(bits: UInt8[np.ndarray, 'h r'], width: int) -> Bool[np.ndarray, 'h w']:
  return np.unpackbits(bits, axis=1, count=width, bitorder='little').view(bool)


def boundary_counts(
  prediction: Num[np.ndarray, 'h w'],
  label: Num[np.ndarray, 'h w'],
  num_classes: int,
  *,
  ratio: float = RATIO,
) -> Int[np.ndarray, '3 k']:
  """Counts the bands' pixels of every class: common ones, predicted ones, true ones.

  Void (a label outside 0..num_classes-1) has a border with its neighbours, but none of
  its pixels counts. Boundary IoU is common / (predicted + true - common).
  """
  maps = (compact(x, num_classes) for x in (prediction, label))
  return compact_boundary_counts(*maps, num_classes, ratio=ratio)


def compact_boundary_counts(
  guess: UInt[np.ndarray, 'h w'],
  truth: UInt[np.ndarray, 'h w'],
  num_classes: int,
  *,
  ratio: float = RATIO,
) -> Int[np.ndarray, '3 k']:
  """As `boundary_counts`, of maps from `ops.confusion.compact`."""
  distance, width = band_width(truth.shape, ratio), truth.shape[1]
  edges = [_changes(x) for x in (guess, truth)]
  bands = [_band(x, distance) for x in edges]
  # Runs of pixels that are alike in all four: labels and bands change seldom.
  starts = edges[0][0] | edges[1][0]
  for band in bands:
    line = band.reshape(-1)
    starts |= (line ^ _behind(line, 1)[: line.size]).reshape(band.shape)
  first = np.flatnonzero(_unpack(starts, width))
  lengths = np.diff(first, append=guess.size)
  guess, truth, of_guess, of_truth = (
    x.reshape(-1)[first] for x in (guess, truth, *(_unpack(b, width) for b in bands))
  )
  labelled = truth < num_classes
  of_guess = of_guess & labelled
  common = of_guess & of_truth & (guess == truth)
  # Sums of integers below 2**53 are exact in float64.
  counts = [
    np.bincount(x[where], lengths[where], num_classes + 1)[:num_classes]
    for x, where in ((truth, common), (guess, of_guess), (truth, of_truth))
  ]
  return np.stack(counts).astype(np.int64)
