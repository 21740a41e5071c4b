"""How often labels of some confidence are right."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovs_jax.ops.calibration import count_bins, reliability


def test_hand_computed() -> None:
  labels = np.array([[0, 1, 1, -1, 2, 0]])
  truth = np.array([[0, 1, 0, 0, 0, 255]])
  sure = np.array([[0.25, 0.75, 0.75, 0.9, 0.9, 0.9]])
  # The fourth has no label, the fifth one of no class, the sixth no truth.
  counts = count_bins(labels, sure, truth, 2)
  assert counts[2].tolist() == [1, 1, 2**14]
  assert counts[7].tolist() == [2, 1, 3 * 2**15]
  assert counts.sum(axis=0).tolist()[0] == 3
  found = reliability(counts)
  # (|1 - 0.25| + |1 - 1.5|) / 3
  means = found['error'], found['confidence'], found['right']
  assert means == pytest.approx((125 / 3, 175 / 3, 200 / 3))
  assert found['bins'][7] == {'pixels': 100 * 2 / 3, 'confidence': 75.0, 'right': 50.0}
  assert found['bins'][0] == {'pixels': 0.0, 'confidence': None, 'right': None}


def test_the_ends_have_bins() -> None:
  ones = np.zeros((1, 2), int)
  counts = count_bins(ones, np.array([[0.0, 1.0]]), ones, 1)
  assert counts[0].tolist() == [1, 1, 0] and counts[9].tolist() == [1, 1, 2**16]


def test_nothing_to_count() -> None:
  void = np.full((2, 2), 255)
  found = reliability(count_bins(void, np.ones((2, 2)), void, 3))
  assert found['error'] == 0 and found['right'] == 0


@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_labels_that_are_right_as_often_as_they_say(seed: int, size: int) -> None:
  rng = np.random.default_rng(seed)
  sure = rng.uniform(size=(size, size))
  truth = np.zeros((size, size), int)
  right = rng.uniform(size=sure.shape) < sure
  counts = count_bins(np.where(right, 0, 1), sure, truth, 2)
  error = reliability(counts)['error']
  # Each bin's share lies within five standard deviations of its confidence.
  bound = sum(5 * (n * 0.25) ** 0.5 for n in counts[:, 0]) / max(counts[:, 0].sum(), 1)
  assert 0 <= error <= 100 * bound + 0.01
