"""Label maps in blocks and chunks, against those of one piece."""

import jax.numpy as jnp
import numpy as np
import pytest

from ovs_jax.evaluate import painting
from ovs_jax.ops.ensemble import fuse
from ovs_jax.ops.painting import label_map
from ovs_jax.ops.resize import resize_bilinear

CONTENT, SIZE = (10, 13), (70, 150)  # more than one block of rows; columns are padded


@pytest.fixture(scope='module')
def masks() -> np.ndarray:
  """Proposals in a bucket; what lies outside the content must not be seen."""
  masks = np.random.default_rng(0).random((4, 16, 16)).astype(np.float32)
  masks[:, 10:] = masks[:, :, 13:] = 9.0
  return masks


def weights_of(count: int) -> np.ndarray:
  return np.random.default_rng(count).random((4, count)).astype(np.float32)


@pytest.mark.parametrize('count', [1, 5, 700])
def test_equals_the_label_map_of_prediction(masks: np.ndarray, count: int) -> None:
  weights = weights_of(count)
  got = painting.paint(weights, jnp.asarray(masks), CONTENT, SIZE)
  inside = jnp.asarray(masks[:, :10, :13])
  expected, _ = label_map(jnp.asarray(weights), inside, SIZE)
  assert got.dtype == np.int32 and got.shape == SIZE
  np.testing.assert_array_equal(got, expected)


def test_the_first_of_equals_wins_and_nothing_wins_nothing(masks: np.ndarray) -> None:
  weights = np.zeros((4, 600), np.float32)
  assert (painting.paint(weights, jnp.asarray(masks), CONTENT, SIZE) == -1).all()
  first = painting.paint(weights, jnp.asarray(masks), CONTENT, SIZE, first=True)
  assert first.dtype == np.int32 and (first == 0).all()
  weights[:, [3, 5, 590]] = 1.0
  assert (painting.paint(weights, jnp.asarray(masks), CONTENT, SIZE) == 3).all()


def test_claims_are_where_the_sum_is_positive(masks: np.ndarray) -> None:
  weights = weights_of(9) - 0.5
  got = painting.claims(weights, jnp.asarray(masks), CONTENT, SIZE)
  resized = resize_bilinear(jnp.asarray(masks[:, :10, :13]), SIZE)
  sums = np.asarray(fuse(jnp.asarray(weights), resized))
  clear = np.abs(sums) > 1e-5
  assert got.shape == (9, *SIZE) and clear.mean() > 0.99
  np.testing.assert_array_equal(got[clear], (sums > 0)[clear])
