"""Counts of labelled masks by hand, and the scores of pixels with several classes."""

import numpy as np
import pytest

from ovs_jax.core.types import NO_LABEL
from ovs_jax.evaluate.labelled_masks import count_claims, name_regions, true_classes
from ovs_jax.evaluate.scores import label_scores, scores_of, scores_of_many
from ovs_jax.evaluate.tally import Tally
from ovs_jax.inference.system import MaskChunk

LABEL = np.array([[0, 0, 1, 1], [0, 0, 1, 9]])


def chunk(masks: list[list[list[int]]], labels: list[int]) -> MaskChunk:
  """Masks that are as good as binary."""
  logits = np.where(np.array(masks), 9.0, -9.0).astype(np.float32)
  return MaskChunk(logits, np.array(labels, np.int32), None)


def test_binary_masks_may_overlap() -> None:
  label = np.array([[0, 1, 9]])
  claims = {0: np.array([[True, True, True]]), 1: np.array([[False, True, False]])}
  counts = count_claims(claims, label, 2)
  assert counts.tolist() == [[1, 1], [1, 1], [2, 1]]
  tally = Tally(2)
  tally.add_counts('one', counts)
  with pytest.raises(ValueError, match="'one' comes twice"):
    tally.add_counts('one', counts)
  found = scores_of(tally, {'last': [1]}, replicates=3)
  assert found['iou_per_class'] == [50, 100] and found['miou_last'] == 100
  assert found['miou'] == found['miou_predicted_too'] == 75
  assert found['intervals']['miou'] == (75, 75)
  assert 'unassigned' not in found  # which needs one class per pixel


def test_true_masks_get_the_label_of_the_most_probable_mask() -> None:
  masks = [
    chunk([[[1, 1, 0, 0], [1, 0, 0, 0]]], [1]),
    chunk([[[0, 0, 1, 1], [0, 0, 0, 0]], [[1, 1, 1, 1]] * 2], [2, NO_LABEL]),
  ]
  found = name_regions(masks, LABEL, np.array([0, 1]))
  assert found.tolist() == [[1, 1, 2, 2], [1, 1, 2, -1]]
  nothing = np.full_like(LABEL, 9)
  assert (name_regions(masks, nothing, np.zeros(0, int)) == -1).all()
  assert (name_regions([], LABEL, np.array([0, 1])) == -1).all()


def test_masks_get_the_true_class_that_they_cover_most() -> None:
  masks = [chunk([[[0, 1, 1, 1]] * 2, [[1, 1, 1, 0]] * 2, [[0] * 4] * 2], [0, -1, 1])]
  [found] = true_classes(masks, LABEL, np.array([0, 1]), threshold=0.3)
  assert found.labels.tolist() == [1, 0, NO_LABEL]
  [none] = true_classes(masks, LABEL, np.zeros(0, int), threshold=0.3)
  assert none.labels.tolist() == [NO_LABEL] * 3


def test_images_with_many_classes_are_a_few() -> None:
  tally = Tally(3)
  for name, guess, label in (
    ('one', [[0, 0]], [[0, 0]]),  # 100 %
    ('two', [[1, 1]], [[1, 2]]),  # 50 % and 0 %
    ('void', [[1, 1]], [[7, 7]]),
  ):
    tally.add(name, np.array(guess), np.array(label))
  found = scores_of_many(tally, 2, replicates=50)
  assert found['images_many'] == 1 and found['miou_many'] == 25
  assert found['miou_many_interval'] == [25, 25]
  none = scores_of_many(tally, 3, replicates=50)
  assert none['images_many'] == 0 and np.isnan(none['miou_many_interval']).all()
  whole = scores_of(tally, {}, replicates=200)
  assert whole['miou_per_image'] == pytest.approx((100 + 25) / 2)
  low, high = whole['intervals']['miou']
  assert low < whole['miou'] < high


def test_labels_are_right_or_missing() -> None:
  found = label_scores(np.array([6, 8, 12, 4]))
  assert found == {'recall': 75, 'precision': 50, 'per_image': 3}
