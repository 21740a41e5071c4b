"""Confusion matrix in integers, and the scores that follow from it.

A pixel that a prediction leaves without a class is wrong, whatever it shows: it stays
in the ground truth. Only the ground truth can say that a pixel does not count.
"""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from ovs_jax.core.types import Array, Float, Int, Num, UInt

# From this share of neighbours with other labels on, counting runs does not pay.
_BUSY = 8


def confusion_matrix(
  prediction: Int[Array, '*b'], label: Int[Array, '*b'], num_classes: int
) -> Int[Array, 'k1 k1']:
  """Counts pixels by (predicted class, true class), on the device.

  Labels outside 0..num_classes-1 count as void, predictions outside of it as
  unassigned. Sum the matrices of a data set in 64-bit integers on the host.

  Returns:
    Rows are predictions, columns truth. The last row holds unassigned pixels, the last
    column predictions on void pixels.
  """
  k = num_classes + 1

  def inside(x: Array) -> Array:
    known = (x >= 0) & (x < num_classes)
    return jnp.where(known, x, num_classes).astype(jnp.int32)

  index = inside(prediction) * k + inside(label)
  return jnp.bincount(index.reshape(-1), length=k * k).reshape(k, k)


def count_pixels(
  prediction: Num[np.ndarray, '*b'], label: Num[np.ndarray, '*b'], num_classes: int
) -> Int[np.ndarray, 'k1 k1']:
  """Counts pixels by (predicted class, true class), in 64 bits, on the host.

  Label maps consist of runs of equal labels; counting those instead of pixels is what
  makes it fast.
  """
  k = num_classes + 1
  guess, truth = (np.ascontiguousarray(x).reshape(-1) for x in (prediction, label))
  if not guess.size:
    return np.zeros((k, k), np.int64)
  changes = (guess[1:] != guess[:-1]) | (truth[1:] != truth[:-1])
  starts = np.flatnonzero(changes) + 1
  if len(starts) * _BUSY > guess.size:
    index = _index(guess, truth, num_classes)
    return np.bincount(index, minlength=k * k).reshape(k, k)
  starts = np.concatenate([[0], starts])
  lengths = np.diff(starts, append=guess.size)
  index = _index(guess[starts], truth[starts], num_classes)
  # Sums of integers below 2**53 are exact in float64.
  counts = np.bincount(index, weights=lengths, minlength=k * k)
  return counts.astype(np.int64).reshape(k, k)


def _index(
  prediction: Num[np.ndarray, 'n'], label: Num[np.ndarray, 'n'], num_classes: int
) -> Num[np.ndarray, 'n']:
  """The place of each pixel in the matrix, row by row."""
  rows, columns = (
    compact(x, num_classes).astype(np.uint32) for x in (prediction, label)
  )
  return rows * np.uint32(num_classes + 1) + columns


def compact(labels: Num[np.ndarray, '*b'], num_classes: int) -> UInt[np.ndarray, '*b']:
  """Returns labels in the smallest type, those of no class as `num_classes`."""
  if labels.dtype.kind != 'u':
    # Only numbers below 0 are larger as unsigned ones, and there are fewer classes.
    labels = labels.astype(np.int32, copy=False).view(np.uint32)
  limit = min(num_classes, int(np.iinfo(labels.dtype).max))
  small = np.min_scalar_type(num_classes)
  return np.minimum(labels, labels.dtype.type(limit)).astype(small, copy=False)


def segmentation_scores(
  matrix: Int[np.ndarray, 'k1 k1'],
  groups: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, float | list[float]]:
  """Scores in percent.

  `miou` averages over classes with ground truth; `miou_predicted_too` divides the
  same sum by the classes that have ground truth *or* a prediction on a labelled
  pixel, which is what detectron2 0.6 and OVSeg's tables do. The two divisors are
  `classes_present` and `classes_present_or_predicted`. A class without ground truth
  has NaN as its IoU and accuracy. `unassigned` is the share of labelled pixels that
  got no class; they are wrong in all scores.

  Args:
    matrix: from `confusion_matrix`, summed over the data set.
    groups: named lists of classes; each adds `miou_<name>` over its classes with
      ground truth.
  """
  counts = np.asarray(matrix, np.float64)[:, :-1]
  right, truth, predicted = np.diag(counts), counts.sum(0), counts[:-1].sum(1)
  scores = class_scores(right, truth, predicted, groups)
  with np.errstate(divide='ignore', invalid='ignore'):
    accuracy = np.where(truth > 0, right / truth, np.nan)
  scores['unassigned'] = float(100 * counts[-1].sum() / max(truth.sum(), 1))
  scores['accuracy_per_class'] = [float(100 * x) for x in accuracy]
  return scores


def class_scores(
  right: Num[np.ndarray, 'k'],
  truth: Num[np.ndarray, 'k'],
  predicted: Num[np.ndarray, 'k'],
  groups: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, float | list[float]]:
  """Returns the scores that follow from three counts of each class, in percent.

  Args:
    right: pixels that are right.
    truth: labelled pixels.
    predicted: labelled pixels that were given the class.
    groups: names of sets of classes; each gets an mIoU of its own.
  """
  present, named = truth > 0, (truth > 0) | (predicted > 0)
  iou = class_iou(right, truth, predicted)
  share = truth / max(truth.sum(), 1)
  scores: dict[str, float | list[float]] = {
    'miou': _mean(iou[present]),
    'miou_predicted_too': float(100 * iou[present].sum() / max(named.sum(), 1)),
    'fwiou': float(100 * (share * np.nan_to_num(iou)).sum()),
    'mean_accuracy': _mean((right / np.maximum(truth, 1))[present]),
    'pixel_accuracy': float(100 * right.sum() / max(truth.sum(), 1)),
    'classes_present': int(present.sum()),
    'classes_present_or_predicted': int(named.sum()),
  }
  for name, classes in (groups or {}).items():
    scores[f'miou_{name}'] = _mean(iou[[k for k in classes if present[k]]])
  scores['iou_per_class'] = [float(100 * x) for x in iou]
  return scores


def class_iou(
  right: Num[np.ndarray, '*b k'],
  truth: Num[np.ndarray, '*b k'],
  predicted: Num[np.ndarray, '*b k'],
) -> Float[np.ndarray, '*b k']:
  """Returns each class's IoU in 0..1; NaN for classes without ground truth."""
  with np.errstate(divide='ignore', invalid='ignore'):
    return np.where(truth > 0, right / (truth + predicted - right), np.nan)


def _mean(values: Float[np.ndarray, 'n']) -> float:
  return float(100 * np.mean(values)) if len(values) else float('nan')
