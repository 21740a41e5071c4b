"""Nouns to proposals, by hand."""

import numpy as np
import pytest

from ovs_jax.mining.assign import assign, cosine, rank


def test_cosine_ignores_the_length_of_regions() -> None:
  regions = np.array([[3.0, 0.0], [0.0, 0.5], [1.0, 1.0]])
  nouns = np.array([[1.0, 0.0], [0.6, 0.8]])
  half = 0.5**0.5
  np.testing.assert_allclose(
    cosine(regions, nouns), [[1, 0, half], [0.6, 0.8, 1.4 * half]], atol=1e-12
  )


SCORES = np.array([[0.1, 0.9, 0.5], [0.2, 0.8, 0.1], [0.4, 0.3, 0.4]])


@pytest.mark.parametrize(
  ('usable', 'chosen'),
  [
    ([True, True, True], [1, 1, 0]),  # one proposal serves two; ties go to the first
    ([True, False, True], [2, 0, 0]),
    ([False, False, True], [2, 2, 2]),
    ([False, False, False], [None, None, None]),
  ],
)
def test_each_noun_takes_its_best_usable_proposal(
  usable: list[bool], chosen: list[int | None]
) -> None:
  assert assign(SCORES, np.array(usable)) == chosen


def test_negative_scores_are_better_than_unusable_ones() -> None:
  assert assign(np.array([[-0.3, -0.1]]), np.array([True, False])) == [0]


def test_no_nouns() -> None:
  assert assign(np.zeros((0, 3)), np.array([True] * 3)) == []


def test_a_proposal_can_serve_one_noun_only() -> None:
  scores = np.array([[0.9, 0.2, 0.1], [0.8, 0.3, 0.1], [0.7, 0.6, 0.5]])
  usable = np.array([True, True, False])
  assert assign(scores, usable) == [0, 0, 0]
  # 0.9 takes proposal 0, then 0.6 takes proposal 1, and one noun goes without.
  assert assign(scores, usable, exclusive=True) == [0, None, 1]


def test_scores_are_over_usable_proposals() -> None:
  cosines = np.log(np.array([[1.0, 3.0, 9.0], [1.0, 1.0, 9.0]])) / 100
  usable = np.array([True, True, False])
  over = rank(cosines, usable, 'proposals')
  np.testing.assert_allclose(over, [[0.25, 0.75, 0], [0.5, 0.5, 0]], atol=1e-12)
  nouns = rank(cosines, usable, 'nouns')
  np.testing.assert_allclose(nouns, [[0.5, 0.75, 0], [0.5, 0.25, 0]], atol=1e-12)
  np.testing.assert_array_equal(rank(cosines, usable, 'cosine')[:, :2], cosines[:, :2])
  assert not rank(cosines, np.zeros(3, bool), 'nouns').any()
