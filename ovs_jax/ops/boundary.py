"""Boundary IoU: the overlap of what lies close to the borders of segments.

Cheng et al. (2021): the band of a mask is the part of it within a distance from its
contour, 2 % of the image's diagonal; the IoU is that of the bands. Here the bands of
all classes of a label map come at once, and are summed over the data set like IoU.
"""

import math

import numpy as np

from ovs_jax.core.types import Bool, Int, Num

RATIO = 0.02  # of the diagonal; the paper's value


def band_width(size: tuple[int, int], ratio: float = RATIO) -> int:
  """Returns the distance for an image of this height and width, at least 1 pixel."""
  return max(1, round(ratio * math.hypot(*size)))


def boundary_band(
  labels: Int[np.ndarray, 'h w'], distance: int
) -> Bool[np.ndarray, 'h w']:
  """Marks pixels with another label (0 or more), or the image's end, in `distance`.

  The distance is that of `distance` erosions with a square of 3x3, as in the authors'
  code: the larger one of those along rows and columns.
  """
  # A frame of a value that no label has, so that the image's end is a border too.
  outside = int(labels.max(initial=0)) + 1
  # The smallest type: memory is all that limits the speed.
  small = labels.astype(np.min_scalar_type(outside))
  padded = np.pad(small, distance, constant_values=outside)
  low, high = padded, padded
  for axis in (0, 1):
    low = _window(low, distance, axis, np.minimum)
    high = _window(high, distance, axis, np.maximum)
  return low != high


def _window(
  x: Num[np.ndarray, 'h w'], distance: int, axis: int, least: np.ufunc
) -> Num[np.ndarray, 'H W']:
  """The least of every window of 2 * distance + 1, which doubles from 1."""
  window, covered = 2 * distance + 1, 1
  x = np.moveaxis(x, axis, 0)
  while covered < window:
    step = min(covered, window - covered)
    x = least(x[:-step], x[step:])
    covered += step
  return np.moveaxis(x, 0, axis)


def boundary_counts(
  prediction: Int[np.ndarray, 'h w'],
  label: Int[np.ndarray, 'h w'],
  num_classes: int,
  *,
  ratio: float = RATIO,
) -> Int[np.ndarray, '3 k']:
  """Counts the bands' pixels of every class: common ones, predicted ones, true ones.

  Void (a label outside 0..num_classes-1) has a border with its neighbours, but none of
  its pixels counts. Boundary IoU is common / (predicted + true - common).
  """
  distance = band_width(label.shape, ratio)
  valid = (label >= 0) & (label < num_classes)
  given = (prediction >= 0) & (prediction < num_classes)
  guess = np.where(given, prediction, num_classes)
  truth = np.where(valid, label, num_classes)
  of_guess = boundary_band(guess, distance) & valid & given
  of_truth = boundary_band(truth, distance) & valid
  common = of_guess & of_truth & (guess == truth)
  return np.stack(
    [
      np.bincount(x[where], minlength=num_classes)
      for x, where in ((truth, common), (guess, of_guess), (truth, of_truth))
    ]
  )
