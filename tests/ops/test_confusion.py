"""The confusion matrix and the scores, by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from ovs_jax.ops.confusion import (
  confusion_matrix,
  count_pixels,
  segmentation_scores,
)


def matrix_of(prediction, label, k):
  return np.asarray(confusion_matrix(jnp.array(prediction), jnp.array(label), k))


def test_rows_are_predictions_and_void_is_the_last_column():
  got = matrix_of([0, 1, 1, 2, 2], [0, 0, 1, 255, -1], 3)
  want = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 2], [0, 0, 0, 0]]
  np.testing.assert_array_equal(got, want)


def test_two_ways_to_average():
  # Class 0: IoU 2/3, class 1: 8/9, class 2 predicted once but never true.
  label = [0] * 3 + [1] * 8
  prediction = [0, 0, 2] + [1] * 8
  scores = segmentation_scores(matrix_of(prediction, label, 4))
  assert scores['miou'] == pytest.approx(100 * (2 / 3 + 1) / 2)
  assert scores['miou_predicted_too'] == pytest.approx(100 * (2 / 3 + 1) / 3)
  assert scores['pixel_accuracy'] == pytest.approx(100 * 10 / 11)
  assert scores['mean_accuracy'] == pytest.approx(100 * (2 / 3 + 1) / 2)
  assert scores['fwiou'] == pytest.approx(100 * (3 / 11 * 2 / 3 + 8 / 11))
  assert np.isnan(scores['iou_per_class'][2:]).all()


def test_published_toy_example():
  # IoUs 5/9 and 1 over two classes with truth, and a third that is only predicted:
  # 0.519 when it counts in the divisor, 0.778 when it does not.
  label = [0] * 9 + [1] * 5
  prediction = [0] * 5 + [2] * 4 + [1] * 5
  scores = segmentation_scores(matrix_of(prediction, label, 3))
  assert round(scores['miou_predicted_too'] / 100, 3) == 0.519
  assert round(scores['miou'] / 100, 3) == 0.778


def test_groups_average_over_their_classes_with_truth():
  scores = segmentation_scores(
    matrix_of([0, 1, 1, 2], [0, 0, 1, 2], 4), {'seen': [0, 1], 'unseen': [2, 3]}
  )
  assert scores['miou_seen'] == pytest.approx(50)
  assert scores['miou_unseen'] == pytest.approx(100)


def test_nothing_but_void():
  scores = segmentation_scores(matrix_of([0, 1], [255, 255], 2), {'all': [0, 1]})
  assert np.isnan(scores['miou']) and np.isnan(scores['miou_all'])


def test_matrices_add_up():
  rng = np.random.default_rng(0)
  prediction, label = rng.integers(0, 5, 200), rng.integers(0, 7, 200)
  whole = matrix_of(prediction, label, 5)
  parts = matrix_of(prediction[:90], label[:90], 5) + matrix_of(
    prediction[90:], label[90:], 5
  )
  np.testing.assert_array_equal(whole, parts)
  assert whole.sum() == 200


# A published trap: class 1 has a pixel without a prediction, class 2 no ground truth.
TRUTH = [0, 0, 0, 0, 1, 1, 1, 1, 255, 255]
GUESS = [0, 0, 2, 2, 1, 1, 1, -1, 0, 1]


@pytest.mark.parametrize('none', [-1, 3, 255, 65535])
def test_an_unassigned_pixel_is_wrong_and_not_void(none):
  guess = [none if x == -1 else x for x in GUESS]
  matrix = matrix_of(guess, TRUTH, 3)
  assert matrix[3].tolist() == [0, 1, 0, 0] and matrix[:, 1].sum() == 4
  scores = segmentation_scores(matrix)
  assert scores['iou_per_class'][:2] == [50, 75] and np.isnan(
    scores['iou_per_class'][2]
  )
  assert scores['miou'] == 62.5  # 75 if such pixels left the ground truth
  assert scores['miou_predicted_too'] == pytest.approx(41.6667, abs=1e-4)
  assert scores['fwiou'] == 62.5 and scores['pixel_accuracy'] == 62.5
  assert scores['unassigned'] == 12.5
  assert scores['classes_present'] == 2
  assert scores['classes_present_or_predicted'] == 3


@pytest.mark.parametrize('dtype', [np.int64, np.int32, np.uint16, np.uint8])
@pytest.mark.parametrize('side', [1, 40])  # of the squares that the maps consist of
def test_counting_on_the_host_equals_the_device(dtype, side):
  rng = np.random.default_rng(1)
  maps = rng.integers(0, 12, (2, 5, 6)).repeat(side, 1).repeat(side, 2).astype(dtype)
  got = count_pixels(maps[0], maps[1], 9)
  np.testing.assert_array_equal(got, matrix_of(*maps.astype(np.int32), 9))
  assert got.dtype == np.int64 and got.sum() == maps[0].size


def test_labels_of_16_bits_and_255_as_a_class():
  label = np.array([255, 846, 847, 65535, 254], np.uint16)
  guess = np.array([255, 255, 0, 1, -1], np.int32)
  matrix = count_pixels(guess, label, 847)
  assert matrix[255, 255] == 1 and matrix[255, 846] == 1 and matrix[847, 254] == 1
  assert matrix[:, 847].sum() == 2  # 847 and 65535 are void
  np.testing.assert_array_equal(matrix, matrix_of(guess, label.astype(np.int32), 847))


def test_no_pixels_at_all():
  assert count_pixels(np.zeros((0,), int), np.zeros((0,), int), 2).sum() == 0
