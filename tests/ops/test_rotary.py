"""Rotary positions: computed by hand, and what they are for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ovs_jax.ops.rotary import grid_angles, turn


def test_angles_of_a_small_grid() -> None:
  """Heads of 8: two frequencies, 1 and 1 / 100, on either axis."""
  found = grid_angles((2, 3), 8, order='yx')
  assert found.shape == (6, 4)
  np.testing.assert_allclose(found[0], 0)
  np.testing.assert_allclose(found[5], [1, 0.01, 2, 0.02])
  turned = grid_angles((2, 3), 8, order='xy', start=1)
  np.testing.assert_allclose(turned[5], [3, 0.03, 2, 0.02])
  # Row 1 of 2 is row 8 of 16, column 2 of 3 is 10 2/3.
  told = grid_angles((2, 3), 8, order='yx', reference=16)
  np.testing.assert_allclose(told[5], [8, 0.08, 32 / 3, 0.32 / 3], rtol=1e-6)


def test_neighbouring_features_turn_as_pairs() -> None:
  x = jnp.array([1.0, 0, 0, 2]).reshape(1, 1, 4)
  angles = jnp.array([[np.pi / 2, np.pi / 6]])
  got = turn(x, angles)
  np.testing.assert_allclose(got[0, 0], [0, 1, -1, 3**0.5], atol=1e-6)
  assert turn(x.astype(jnp.bfloat16), angles).dtype == jnp.bfloat16


@pytest.mark.parametrize('start', [0, 1])
def test_scores_know_the_way_between_places_alone(start: int) -> None:
  rng = np.random.default_rng(0)
  q, k = jnp.asarray(rng.normal(size=(2, 1, 1, 1, 8)), jnp.float32)
  angles = jnp.asarray(grid_angles((4, 4), 8, order='xy', start=start))

  @jax.jit
  def every(x):
    return turn(jnp.broadcast_to(x, (1, 16, 1, 8)), angles)[0, :, 0]

  scores = (every(q) @ every(k).T).reshape(4, 4, 4, 4)
  np.testing.assert_allclose(scores[0, 1, 2, 3], scores[1, 0, 3, 2], rtol=1e-5)
  np.testing.assert_allclose(scores[3, 3, 1, 2], scores[2, 1, 0, 0], rtol=1e-5)
  assert abs(scores[0, 1, 2, 3] - scores[0, 1, 3, 2]) > 1e-2
