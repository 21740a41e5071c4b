"""What follows from labelled masks and the truth: counts of claims, and bounds."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ovs_jax.core.types import NO_LABEL, Bool, Int, Num
from ovs_jax.inference.system import MaskChunk, centre_square, resize_cubic
from ovs_jax.ops import canvas as canvases


def centre_view(
  image: Num[np.ndarray, 'h w 3'], label: Num[np.ndarray, 'h w'], side: int
) -> tuple[Num[np.ndarray, 's s 3'], Num[np.ndarray, 's s']]:
  """The paper's protocol: the central square of both, resized to its input."""
  square = centre_square(label)
  index = np.arange(side) * square.shape[0] // side
  return resize_cubic(centre_square(image), side), square[index][:, index]


def count_claims(
  claims: Mapping[int, Bool[np.ndarray, 'h w']],
  label: Num[np.ndarray, 'h w'],
  num_classes: int,
) -> Int[np.ndarray, '3 k']:
  """Counts binary masks of which several may claim a pixel (rule D).

  Args:
    claims: masks by class.
    label: the truth; others than 0 to `num_classes` - 1 are void and count nowhere.
    num_classes: k.

  Returns:
    Pixels that are right, true and claimed of each class.
  """
  known = (label >= 0) & (label < num_classes)
  truth = np.bincount(label[known].astype(np.int64), minlength=num_classes)
  counts = np.stack([np.zeros_like(truth), truth, np.zeros_like(truth)])
  for k, mask in claims.items():
    counts[0, k] = np.sum(mask & (label == k))
    counts[2, k] = np.sum(mask & known)
  return counts


def name_regions(
  masks: Sequence[MaskChunk],
  label: Num[np.ndarray, 'h w'],
  present: Int[np.ndarray, 'r'],
) -> Int[np.ndarray, 'h w']:
  """True regions, each with the label of the mask that is most probable inside it.

  Args:
    masks: of the picture.
    label: the truth.
    present: its classes.
  """
  painted = np.full(label.shape, NO_LABEL, np.int32)
  means, labels = [], []
  for chunk in masks if len(present) else ():
    p = canvases.probabilities(chunk.logits, label.shape)
    p = np.where(chunk.labels[:, None, None] >= 0, p, -1)
    means.append(np.stack([p[:, label == k].mean(axis=1) for k in present], axis=1))
    labels.append(chunk.labels)
  if not means:
    return painted
  best = np.concatenate(means).argmax(axis=0)
  for k, name in zip(present, np.concatenate(labels)[best], strict=True):
    painted[label == k] = name
  return painted


def true_classes(
  masks: Sequence[MaskChunk],
  label: Num[np.ndarray, 'h w'],
  present: Int[np.ndarray, 'r'],
  *,
  threshold: float,
) -> Iterator[MaskChunk]:
  """Yields the masks, each with the true class that it covers most as its label.

  Args:
    masks: of the picture, with any labels or none.
    label: the truth.
    present: its classes.
    threshold: a mask covers pixels with at least this probability.
  """
  for chunk in masks:
    labels = np.full(len(chunk.labels), NO_LABEL, np.int32)
    if len(present):
      covered = canvases.probabilities(chunk.logits, label.shape) >= threshold
      inside = np.stack([covered[:, label == k].sum(axis=1) for k in present])  # r n
      best = present[inside.argmax(axis=0)]
      labels = np.where(inside.any(axis=0), best, NO_LABEL).astype(np.int32)
    yield dataclasses.replace(chunk, labels=labels)
