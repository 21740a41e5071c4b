"""Estimates, intervals and verdicts against hand-computed and known cases."""

import numpy as np
import pytest

from ovs_jax.evaluate import resampling
from ovs_jax.evaluate.resampling import Estimate, Gain, Quantity, Resampler

GROUPS = {'seen': [0], 'unseen': [1, 2]}


def counts(rows: list[list[list[int]]]) -> np.ndarray:
  """From images of (right, truth, predicted) per class."""
  return np.array(rows).transpose(0, 2, 1)


# Class 2 is never there. Image 0 shows classes 0 and 1, image 1 only class 0.
TWO = counts([[[4, 8, 4], [2, 4, 6], [0, 0, 2]], [[4, 4, 8], [0, 0, 0], [0, 0, 0]]])


def test_values_are_those_of_hand() -> None:
  r = Resampler([{'s': {'m': TWO}}], GROUPS, replicates=7)
  # Class 0: 8 right of 12 true and 12 predicted; class 1: 2 of 4 and 6.
  iou = [8 / 16, 2 / 8]
  expected = {'all': np.mean(iou), 'seen': iou[0], 'unseen': iou[1]}
  for group, value in expected.items():
    draws = r.draws(Quantity('s', 'm', group=group))
    assert draws.shape == (1, 8)
    assert draws[0, 0] == pytest.approx(100 * value)
  accuracy = r.draws(Quantity('s', 'm', 'accuracy'))
  assert accuracy[0, 0] == pytest.approx(100 * np.mean([8 / 12, 2 / 4]))
  only = r.draws(Quantity('s', 'm', present=(2, 2)))
  assert only[0, 0] == pytest.approx(100 * np.mean([4 / 8, 2 / 8]))
  np.testing.assert_allclose(only, only[0, 0])  # of one image there is one draw
  gain = r.draws(Gain(Quantity('s', 'm', group='unseen'), Quantity('s', 'm')))
  assert gain[0, 0] == pytest.approx(100 * (np.mean(iou) - iou[1]))


def test_resampled_values_are_those_of_some_images() -> None:
  r = Resampler([{'s': {'m': TWO}}], GROUPS, replicates=200)
  draws = r.draws(Quantity('s', 'm', group='seen'))[0, 1:]
  possible = 100 * np.array([4 / 8, 8 / 16, 4 / 8])  # twice the first, both, the second
  assert np.all(np.isclose(draws[:, None], possible).any(axis=1))
  unseen = r.draws(Quantity('s', 'm', group='unseen'))[0, 1:]
  # A quarter of the draws have only the image without class 1.
  assert 0.15 < np.mean(np.isnan(unseen)) < 0.35
  assert np.nanmin(unseen) == np.nanmax(unseen) == pytest.approx(25)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
  rng = np.random.default_rng(3)
  covered = 0
  for _ in range(100):
    right = rng.binomial(50, 0.6, size=60)
    rows = np.stack([right, np.full(60, 50), np.full(60, 50)], axis=1)[:, :, None]
    r = Resampler([{'s': {'m': rows}}], {}, replicates=200)
    found = Estimate.of(r.draws(Quantity('s', 'm', 'accuracy')))
    covered += found.low <= 60 <= found.high
  assert 85 <= covered <= 100


def same(value: int, images: int = 40) -> np.ndarray:
  row = np.array([[value], [100], [100]])
  noise = np.arange(images)[:, None, None] % 3 - 1
  return np.repeat(row[None], images, 0) + noise * np.array([1, 0, 0])[None, :, None]


def test_verdicts() -> None:
  r = Resampler([{'s': {'low': same(40), 'high': same(60), 'near': same(60)}}], {})
  low, high, near = (
    r.draws(Quantity('s', m, 'accuracy')) for m in ('low', 'high', 'near')
  )
  word, gain = resampling.verdict(low, high)
  assert word == resampling.HOLDS
  assert gain.value == pytest.approx(20) and gain.low == pytest.approx(20)
  assert resampling.verdict(high, low)[0] == resampling.FAILS
  word, gain = resampling.verdict(high, near)
  assert word == resampling.UNDECIDED and gain.value == gain.high == 0


def test_seeds_are_averaged_and_resampled() -> None:
  both = [{'s': {'m': same(40)}}, {'s': {'m': same(60)}}]
  r = Resampler(both, {}, replicates=400)
  found = Estimate.of(r.draws(Quantity('s', 'm', 'accuracy')))
  assert found.seeds == pytest.approx((39.975, 59.975), abs=0.1)
  assert found.value == pytest.approx(np.mean(found.seeds))
  # Both the first seed twice and the second one twice happen in a quarter of draws.
  assert found.low < 42 and found.high > 58
  assert not r.known(Quantity('s', 'other')) and not r.known(Quantity('t', 'm'))
  assert r.known(Gain(Quantity('s', 'm'), Quantity('s', 'm')))
