"""Scores of a data set from counts made by hand."""

import numpy as np
import pytest

from ovs_jax.evaluate import oracle, scores
from ovs_jax.evaluate.tables import MIOUS, SCORES
from ovs_jax.evaluate.tally import Tally

LABEL = np.array([[0, 0, 0, 1], [0, 0, 1, 255]])
GUESS = np.array([[0, 0, 2, 1], [0, 0, -1, 2]])


def tally_of(*pairs: tuple[np.ndarray, np.ndarray]) -> Tally:
  tally = Tally(3)
  for i, (guess, label) in enumerate(pairs):
    tally.add(f'{i}', guess, label)
  return tally


def noisy(count: int) -> Tally:
  rng = np.random.default_rng(0)
  pairs = []
  for _ in range(count):
    label = rng.integers(0, 3, (6, 8))
    pairs.append((np.where(rng.random((6, 8)) < rng.random(), label, 0), label))
  return tally_of(*pairs)


def test_means_over_images_are_labelled_as_such() -> None:
  perfect = (np.zeros((2, 2), int), np.zeros((2, 2), int))
  got = scores.scores_of(tally_of((GUESS, LABEL), perfect), {}, replicates=0)
  assert got['images'] == 2 and got['intervals'] == {}
  # Image one: IoU 4/5 and 1/2; image two: 1. Over the data set: 8/9 and 1/2.
  assert got['miou_per_image'] == pytest.approx((65 + 100) / 2)
  assert got['miou'] == pytest.approx(100 * (8 / 9 + 1 / 2) / 2)


def test_what_is_predicted_only_counts_in_the_first_column() -> None:
  """By hand as detectron2 0.6 and mmsegmentation do it; newer detectron2 is second."""
  label, guess = np.array([[0, 0, 0, 1, 1, 9]]), np.array([[0, 0, 2, 1, -1, 2]])
  got = scores.scores_of(tally_of((guess, label)), {'last': [2]}, replicates=0)
  # Intersections 2, 1, 0 and unions 3, 2, 1; class 2 is in no truth.
  assert list(MIOUS.values()) == ['miou_predicted_too', 'miou']
  assert got['miou_predicted_too'] == pytest.approx(100 * (2 / 3 + 1 / 2 + 0) / 3)
  assert got['miou'] == pytest.approx(100 * (2 / 3 + 1 / 2) / 2)
  assert got['unassigned'] == 20 and np.isnan(got['miou_last'])
  assert np.isnan(got['iou_per_class'][2])


def test_an_image_of_void_has_no_score() -> None:
  void = (np.zeros((2, 2), int), np.full((2, 2), 255))
  found = scores.image_scores(tally_of((GUESS, LABEL), void))
  assert found['0'] == pytest.approx(65) and np.isnan(found['1'])
  only = scores.scores_of(tally_of(void), {}, replicates=10)
  assert np.isnan(only['miou']) and np.isnan(only['miou_per_image'])
  assert np.isnan(only['boundary_iou'])


class TestIntervals:
  def test_equal_images_leave_no_doubt(self) -> None:
    tally = tally_of(*[(GUESS, LABEL)] * 4)
    got = scores.scores_of(tally, {}, replicates=20)
    for name in SCORES.values():
      low, high = got['intervals'][name]
      assert low == pytest.approx(got[name], abs=1e-12), name
      assert high == pytest.approx(got[name], abs=1e-12), name

  def test_they_surround_the_score_and_repeat(self) -> None:
    tally = noisy(40)
    got = scores.scores_of(tally, {}, replicates=200)
    for name, (low, high) in got['intervals'].items():
      assert low < got[name] < high, name
    assert scores.intervals(tally.table(), replicates=200) == got['intervals']
    assert scores.intervals(tally.table(), replicates=200, seed=1) != got['intervals']

  def test_more_images_leave_less_doubt(self) -> None:
    widths = []
    for count in (20, 320):
      found = scores.intervals(noisy(count).table(), replicates=200)
      low, high = found['pixel_accuracy']
      widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.35)  # root of 16

  def test_the_order_of_images_plays_no_part(self) -> None:
    tally = noisy(12)
    turned = Tally(3)
    turned.matrix, turned.bands = tally.matrix, tally.bands
    turned.images = dict(reversed(tally.images.items()))
    one, two = (scores.scores_of(x, {}, replicates=50) for x in (tally, turned))
    assert one == two


def test_every_pixel_has_one_reason() -> None:
  label = np.array([0, 0, 0, 0, 1, 255])
  guess = np.array([0, 1, 2, 2, 2, 0])
  true_classes = np.array([0, 0, 0, 1, 1, 0])  # the fourth cannot be right
  true_vocabulary = np.array([0, 1, 0, 0, 0, 0])  # mends the third only
  counts = oracle.split_errors(
    *(x[None] for x in (label, guess, true_classes, true_vocabulary)), 3
  )
  assert counts.tolist() == [1, 1, 1, 2]
  split = scores.error_split(counts)
  assert split == {'right': 20.0, 'mask': 20.0, 'vocabulary': 20.0, 'class': 40.0}
  assert scores.error_split(np.zeros(4, int))['right'] == 0
