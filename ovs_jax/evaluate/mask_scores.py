"""Scores of label maps that may leave pixels without a label, image by image.

Everything follows from three integers per image and class: pixels that are right, that
are in the ground truth, and that were predicted. A pixel without a label counts as
wrong for its class: it is in the ground truth and in no prediction.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from ovs_jax.core.types import Bool, Float, Int, Num
from ovs_jax.ops.confusion import class_iou, class_scores

Scores = dict[str, float | int | list[float]]


def count_pixels(
  prediction: Num[np.ndarray, 'h w'], label: Num[np.ndarray, 'h w'], num_classes: int
) -> Int[np.ndarray, '3 k']:
  """Counts the pixels of one image: right, true and predicted ones of each class.

  Args:
    prediction: class ids; negative ones are pixels without a label.
    label: class ids; others than 0 to `num_classes` - 1 are void and count nowhere.
    num_classes: k.
  """
  known = (label >= 0) & (label < num_classes)
  guess, truth = prediction[known].astype(np.int64), label[known].astype(np.int64)
  return np.stack(
    [
      np.bincount(values, minlength=num_classes)
      for values in (truth[guess == truth], truth, guess[guess >= 0])
    ]
  )


def count_claims(
  claims: Mapping[int, Bool[np.ndarray, 'h w']],
  label: Num[np.ndarray, 'h w'],
  num_classes: int,
) -> Int[np.ndarray, '3 k']:
  """The same for binary masks of which several may claim a pixel (rule D)."""
  known = (label >= 0) & (label < num_classes)
  truth = np.bincount(label[known].astype(np.int64), minlength=num_classes)
  counts = np.stack([np.zeros_like(truth), truth, np.zeros_like(truth)])
  for k, mask in claims.items():
    counts[0, k] = np.sum(mask & (label == k))
    counts[2, k] = np.sum(mask & known)
  return counts


def scores(
  counts: Int[np.ndarray, 'n 3 k'],
  groups: Mapping[str, Sequence[int]],
  *,
  many: int,
  resamples: int,
) -> Scores:
  """Scores in percent, over the data set and not per image unless they say so.

  `miou` is over classes with ground truth, `miou_predicted_too` divides by those that
  were predicted as well (detectron2 0.6). `miou_per_image` is the mean over images of
  each image's mean over its own classes, and no published protocol. `miou_many` is over
  the images with at least `many` classes. Intervals are the middle 95 % of bootstraps
  over the images.

  Args:
    counts: of every image.
    groups: named lists of classes; each adds `miou_<name>`.
    many: see above.
    resamples: bootstraps; 0 for no intervals.
  """
  several = (counts[:, 1] > 0).sum(axis=1) >= many
  found: Scores = class_scores(*counts.sum(axis=0), groups)
  found['miou_per_image'] = _per_image(counts)
  found['miou_many'] = _miou(counts[several].sum(axis=0))
  found['images_many'] = int(several.sum())
  if resamples:
    found['miou_interval'] = _interval(counts, resamples)
    found['miou_many_interval'] = _interval(counts[several], resamples)
  return found


def _miou(counts: Num[np.ndarray, '3 k']) -> float:
  iou = class_iou(*counts)
  return _mean(iou[counts[1] > 0])


def _per_image(counts: Int[np.ndarray, 'n 3 k']) -> float:
  iou = class_iou(counts[:, 0], counts[:, 1], counts[:, 2])
  labelled = counts[:, 1].sum(axis=1) > 0
  means = [np.nanmean(row) for row in iou[labelled]]
  return _mean(np.array(means))


def _interval(counts: Int[np.ndarray, 'n 3 k'], resamples: int) -> list[float]:
  if not len(counts):
    return [float('nan')] * 2
  rng = np.random.default_rng(0)
  n = len(counts)
  times = rng.multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)
  drawn = np.einsum('rn,nf->rf', times, counts.reshape(n, -1).astype(np.float64))
  values = [_miou(row) for row in drawn.reshape(resamples, 3, -1)]
  return [float(x) for x in np.nanpercentile(values, (2.5, 97.5))]


def _mean(values: Float[np.ndarray, 'n']) -> float:
  return float(100 * np.mean(values)) if len(values) else float('nan')
