"""Scores of label maps with unassigned pixels, by hand and against the matrix."""

import jax.numpy as jnp
import numpy as np
import pytest

from ovs_jax.evaluate.mask_scores import count_claims, count_pixels, scores
from ovs_jax.ops.confusion import confusion_matrix, segmentation_scores

SETTINGS = {'many': 2, 'resamples': 0}


def test_unassigned_pixels_are_wrong_and_not_void():
  label = np.array([[0, 0, 1, 1, 9]])
  guess = np.array([[0, -1, 1, -1, 0]])
  counts = count_pixels(guess, label, 3)
  assert counts.tolist() == [[1, 1, 0], [2, 2, 0], [1, 1, 0]]
  found = scores(counts[None], {'first': [0], 'absent': [2]}, **SETTINGS)
  assert found['miou'] == found['miou_predicted_too'] == found['fwiou'] == 50
  assert found['pixel_accuracy'] == found['mean_accuracy'] == found['miou_first'] == 50
  assert found['classes_present'] == 2 and np.isnan(found['miou_absent'])
  assert np.isnan(found['iou_per_class'][2])
  # All of them left out would have been 100.
  assert (
    scores(count_pixels(guess * 0 - 1, label, 3)[None], {}, **SETTINGS)['miou'] == 0
  )


def test_scores_equal_those_of_the_matrix():
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 9, (4, 20, 20))  # 7 and 8 are void
  labels[labels == 3] = 4
  guesses = np.where(
    rng.random(labels.shape) < 0.5, labels % 7, rng.integers(0, 7, 400).reshape(20, 20)
  )
  counts = np.stack(
    [count_pixels(g, x, 7) for g, x in zip(guesses, labels, strict=True)]
  )
  found = scores(counts, {'some': [1, 2]}, **SETTINGS)
  matrix = confusion_matrix(
    jnp.asarray(guesses, jnp.int32), jnp.asarray(labels, jnp.int32), 7
  )
  want = segmentation_scores(np.asarray(matrix), {'some': [1, 2]})
  for key in set(want) - {'accuracy_per_class', 'unassigned'}:
    np.testing.assert_allclose(found[key], want[key], err_msg=key)
  assert found['miou_predicted_too'] < found['miou']  # class 3 is predicted only


def test_images_are_means_of_their_own_and_may_be_few():
  one = count_pixels(np.array([[0, 0]]), np.array([[0, 0]]), 3)  # 100 %
  two = count_pixels(np.array([[1, 1]]), np.array([[1, 2]]), 3)  # 50 % and 0 %
  empty = count_pixels(np.array([[1, 1]]), np.array([[7, 7]]), 3)
  found = scores(np.stack([one, two, empty]), {}, many=2, resamples=200)
  assert found['miou_per_image'] == pytest.approx((100 + 25) / 2)
  assert found['images_many'] == 1 and found['miou_many'] == 25
  low, high = found['miou_interval']
  assert low < found['miou'] < high
  assert found['miou_many_interval'] == [25, 25]


def test_binary_masks_may_overlap():
  label = np.array([[0, 1, 9]])
  claims = {0: np.array([[True, True, True]]), 1: np.array([[False, True, False]])}
  counts = count_claims(claims, label, 2)
  assert counts.tolist() == [[1, 1], [1, 1], [2, 1]]
