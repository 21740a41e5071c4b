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


def verdicts(*rows: np.ndarray) -> list[resampling.Verdict]:
  return resampling.verdicts(rows)


def test_verdicts() -> None:
  r = Resampler([{'s': {'low': same(40), 'high': same(60), 'near': same(60)}}], {})
  low, high, near = (
    r.draws(Quantity('s', m, 'accuracy')) for m in ('low', 'high', 'near')
  )
  up, down, none = verdicts(high - low, low - high, near - high)
  assert (up.word, down.word, none.word) == (
    resampling.HOLDS,
    resampling.FAILS,
    resampling.UNDECIDED,
  )
  assert up.difference.value == pytest.approx(20)
  assert up.difference.low == pytest.approx(20)
  assert none.difference.value == none.difference.high == 0 and none.p == 1
  assert up.seeds_needed is None  # one seed says nothing of others


def test_differences_are_paired() -> None:
  # Images differ far more from each other than the two methods do on each.
  level = np.random.default_rng(0).integers(10, 80, 60)
  rows = np.stack([level, np.full(60, 100), np.full(60, 100)], axis=1)[:, :, None]
  better = rows + np.array([3, 0, 0])[None, :, None]
  r = Resampler([{'s': {'a': rows, 'b': better}}], {})
  a, b = (r.draws(Quantity('s', m, 'accuracy')) for m in 'ab')
  assert Estimate.of(a).high > Estimate.of(b).low  # their own intervals overlap
  (one,) = verdicts(b - a)
  assert one.word == resampling.HOLDS and one.difference.low == pytest.approx(3)


def test_holm() -> None:
  # Step down by hand: 4 * 0.01, then 3 * 0.02, the larger of 2 * 0.03 and 0.06, ...
  assert resampling.holm([0.03, 0.01, 0.9, 0.02]) == pytest.approx(
    [0.06, 0.04, 0.9, 0.06]
  )
  assert resampling.holm([0.5, 0.6]) == [1.0, 1.0] and resampling.holm([]) == []


def test_many_relations_need_more() -> None:
  # 1 of 100 draws is below 0: p is 2 / 100 alone, and five times as much of five.
  draws = np.concatenate([[5.0], np.full(99, 5.0), [-1.0]])[None]
  (alone,) = verdicts(draws)
  assert alone.p == pytest.approx(0.02) and alone.word == resampling.HOLDS
  five = verdicts(*[draws] * 5)
  assert {x.word for x in five} == {resampling.UNDECIDED}
  assert five[0].p == pytest.approx(0.1)


def test_a_claim_of_nothing_is_seldom_decided() -> None:
  rng = np.random.default_rng(5)
  wrong = 0
  for _ in range(200):
    means = rng.normal(size=(4, 1)) / np.sqrt(40)
    spread = rng.normal(size=(4, 300)) / np.sqrt(40)
    rows = [
      np.concatenate([m, m + s])[None] for m, s in zip(means, spread, strict=True)
    ]
    wrong += any(x.word != resampling.UNDECIDED for x in verdicts(*rows))
  assert wrong <= 0.12 * 200  # 5 % of claims, and what 300 draws leave to chance


def test_seeds_that_are_needed() -> None:
  rng = np.random.default_rng(0)
  # Pictures say nothing here; seeds spread by 1 around 0.5: (1.96 * 1 / 0.5)**2 = 15.4.
  flat = np.repeat(np.array([[-0.5], [0.5], [1.5]]), 50, axis=1)
  assert resampling.seeds_needed(flat) == 16
  # Pictures alone spread by 1: no number of seeds tells 0.5 from 0.
  shared = np.concatenate([np.zeros((1, 1)), rng.normal(size=(1, 400))], axis=1)
  assert resampling.seeds_needed(0.5 + np.repeat(shared, 3, axis=0)) == 0
  assert resampling.seeds_needed(flat[:1]) is None


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
