"""From counts to the scores of a report."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ovs_jax.core.types import Float, Int
from ovs_jax.evaluate.resampling import LEVEL, resampled
from ovs_jax.evaluate.tally import Tally
from ovs_jax.ops.confusion import class_scores, segmentation_scores
from ovs_jax.text.vocabulary import Vocabulary


def scores_of(
  tally: Tally, groups: Mapping[str, Sequence[int]], *, replicates: int, seed: int = 0
) -> dict[str, Any]:
  """Returns the scores of a data set, in percent.

  Those of `segmentation_scores` (of `class_scores`, where pixels have several classes),
  and `miou_per_image` (the mean over images of the
  mean IoU of the classes in an image, which favours frequent classes and compares with
  no other number here), `boundary_iou`, `images`, and `intervals`: for the scores of
  `tables.SCORES` where 95 % of resampled data sets lie.

  Args:
    tally: the counts.
    groups: see `segmentation_scores`.
    replicates: resampled data sets; 0 gives no intervals.
    seed: of the resampling.
  """
  both, predicted, true = tally.bands.astype(np.float64)
  counts = tally.table()
  sums = counts.sum(axis=0)
  # Without a matrix pixels have several classes.
  whole = tally.matrix.any()
  scores = (
    segmentation_scores(tally.matrix, groups) if whole else class_scores(*sums, groups)
  )
  present = sums[1] > 0
  with np.errstate(divide='ignore', invalid='ignore'):
    boundary = np.where(present, 100 * both / (predicted + true - both), np.nan)
  per_image = image_scores(tally)
  values = [x for x in per_image.values() if not np.isnan(x)]
  return {
    **scores,
    'images': len(tally.images),
    'miou_per_image': float(np.mean(values)) if values else float('nan'),
    'boundary_iou': _nanmean(boundary) if tally.bands.any() else float('nan'),
    'boundary_iou_per_class': boundary.tolist(),
    'intervals': intervals(counts, replicates=replicates, seed=seed),
  }


def scores_of_many(
  tally: Tally, least: int, *, replicates: int, seed: int = 0
) -> dict[str, Any]:
  """Returns `miou_many`, over the images with at least so many classes.

  And their number, `images_many`, and `miou_many_interval`; see `scores_of`.
  """
  counts = tally.table()
  counts = counts[(counts[:, 1] > 0).sum(axis=1) >= least]
  found = {
    'miou_many': class_scores(*counts.sum(axis=0))['miou'],
    'images_many': len(counts),
  }
  if replicates:
    bounds = intervals(counts, replicates=replicates, seed=seed)
    found['miou_many_interval'] = list(bounds.get('miou', (float('nan'),) * 2))
  return found


def groups_of(names: Vocabulary) -> dict[str, list[int]]:
  """Returns the classes of each split and of each kind that the class list knows."""
  return {
    group: [k for k, x in enumerate(column) if x == group]
    for column in (names.splits, names.kinds)
    for group in sorted(set(column) - {''})
  }


def label_scores(counts: Int[np.ndarray, '4']) -> dict[str, float]:
  """Returns how good the labels were that images got, in percent and per image.

  Args:
    counts: labels that are right, classes that are there, labels, images.
  """
  right, present, given, images = (int(x) for x in counts)
  return {
    'recall': 100 * right / max(present, 1),
    'precision': 100 * right / max(given, 1),
    'per_image': given / max(images, 1),
  }


def image_scores(tally: Tally) -> dict[str, float]:
  """Returns for each image the mean IoU, in percent, of the classes it shows."""
  scores = {}
  for image_id, rows in sorted(tally.images.items()):  # the same sum on any host
    _, right, predicted, true = rows[rows[:, 3] > 0].T.astype(np.float64)
    iou = right / (predicted + true - right)
    scores[image_id] = float(100 * iou.mean()) if len(iou) else float('nan')
  return scores


def intervals(
  counts: Int[np.ndarray, 'n 3 k'], *, replicates: int, seed: int = 0
) -> dict[str, tuple[float, float]]:
  """Returns between which values 95 % of resampled data sets lie, by score.

  Their scores follow from sums over their images, as those of the data set itself.

  Args:
    counts: of each image; see `Tally.table`.
    replicates: see `resampling.resampled`; 0 gives no intervals.
    seed: likewise.
  """
  if not replicates or not len(counts):
    return {}
  sums = resampled(counts, replicates=replicates, seed=seed)
  bounds = {
    name: np.nanpercentile(x, LEVEL)
    for name, x in _ratios(*sums.transpose(1, 0, 2)).items()
    if not np.isnan(x).all()
  }
  return {name: (float(low), float(high)) for name, (low, high) in bounds.items()}


def _ratios(
  right: Float[np.ndarray, 'r k'],
  true: Float[np.ndarray, 'r k'],
  predicted: Float[np.ndarray, 'r k'],
) -> dict[str, Float[np.ndarray, 'r']]:
  """`tables.SCORES` of each row, by the formulas of `segmentation_scores`."""
  present, named = true > 0, true + predicted > 0
  iou = right / np.where(present, true + predicted - right, 1)
  accuracy = right / np.where(present, true, 1)
  total = true.sum(axis=1)
  with np.errstate(divide='ignore', invalid='ignore'):
    return {
      'miou': 100 * (iou * present).sum(1) / present.sum(1),
      'miou_predicted_too': 100 * (iou * present).sum(1) / named.sum(1),
      'fwiou': 100 * (iou * true).sum(1) / total,
      'mean_accuracy': 100 * (accuracy * present).sum(1) / present.sum(1),
      'pixel_accuracy': 100 * right.sum(1) / total,
    }


def error_split(counts: Int[np.ndarray, '4']) -> dict[str, float]:
  """Returns shares of the labelled pixels, in percent, that add up to 100.

  `right`; `mask`, wrong even if every proposal knew its true class; `vocabulary`, wrong
  because a name that the image does not show won; `class`, the others: a name that it
  does show. Each pixel counts for the first reason that holds.

  Args:
    counts: pixels in that order, from `oracle.split_errors`.
  """
  total = max(int(counts.sum()), 1)
  names = ('right', 'mask', 'vocabulary', 'class')
  return {n: 100 * int(c) / total for n, c in zip(names, counts, strict=True)}


def _nanmean(values: Float[np.ndarray, 'n']) -> float:
  known = values[~np.isnan(values)]
  return float(known.mean()) if len(known) else float('nan')
