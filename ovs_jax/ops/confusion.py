"""Confusion matrix in integers, and the scores that follow from it."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from ovs_jax.core.types import Array, Float, Int


def confusion_matrix(
  prediction: Int[Array, '*b'], label: Int[Array, '*b'], num_classes: int
) -> Int[Array, 'k1 k1']:
  """Counts pixels by (predicted class, true class).

  Labels outside 0..num_classes-1 count as void. Sum the matrices of a data set in
  64-bit integers on the host.

  Returns:
    Rows are predictions, columns truth; the last row is always 0, the last column
    holds predictions on void pixels.
  """
  k = num_classes + 1
  known = (label >= 0) & (label < num_classes)
  truth = jnp.where(known, label, num_classes).astype(jnp.int32)
  index = prediction.astype(jnp.int32) * k + truth
  return jnp.bincount(index.reshape(-1), length=k * k).reshape(k, k)


def segmentation_scores(
  matrix: Int[np.ndarray, 'k1 k1'], groups: dict[str, Sequence[int]] | None = None
) -> dict[str, float | list[float]]:
  """Scores in percent.

  `miou` averages over classes with ground truth; `miou_predicted_too` divides the
  same sum by the classes that have ground truth *or* a prediction on a labelled
  pixel, which is what detectron2 0.6 and OVSeg's tables do. A class without ground
  truth has NaN as its IoU and accuracy.

  Args:
    matrix: from `confusion_matrix`, summed over the data set.
    groups: named lists of classes; each adds `miou_<name>` over its classes with
      ground truth.
  """
  counts = np.asarray(matrix, np.float64)[:-1, :-1]
  right, truth, predicted = np.diag(counts), counts.sum(0), counts.sum(1)
  present, named = truth > 0, (truth > 0) | (predicted > 0)
  with np.errstate(divide='ignore', invalid='ignore'):
    iou = np.where(present, right / (truth + predicted - right), np.nan)
    accuracy = np.where(present, right / truth, np.nan)
  share = truth / max(truth.sum(), 1)
  scores: dict[str, float | list[float]] = {
    'miou': _mean(iou[present]),
    'miou_predicted_too': float(100 * iou[present].sum() / max(named.sum(), 1)),
    'fwiou': float(100 * (share * np.nan_to_num(iou)).sum()),
    'mean_accuracy': _mean(accuracy[present]),
    'pixel_accuracy': float(100 * right.sum() / max(truth.sum(), 1)),
  }
  for name, classes in (groups or {}).items():
    members = [k for k in classes if present[k]]
    scores[f'miou_{name}'] = _mean(iou[members])
  scores['iou_per_class'] = [float(100 * x) for x in iou]
  scores['accuracy_per_class'] = [float(100 * x) for x in accuracy]
  return scores


def _mean(values: Float[np.ndarray, 'n']) -> float:
  return float(100 * np.mean(values)) if len(values) else float('nan')
