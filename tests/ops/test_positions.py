"""Position tables: hand-computed weights and what must not change."""

import jax.numpy as jnp
import numpy as np
import pytest

from ovs_jax.ops.resize import resize_grid, resize_positions


def test_weights_of_the_first_outputs():
  # From 14 to 22, as PyTorch computes it: taps 0 0 0 1 and 0 0 1 2.
  weights = resize_grid(jnp.eye(196), (22, 22)).reshape(22, 22, 14, 14)
  rows = weights.sum(axis=(1, 3)) / 22  # each column's weights sum to 1
  np.testing.assert_allclose(rows[0, :3], [1.091285, -0.091285, 0], atol=2e-6)
  np.testing.assert_allclose(rows[1, :4], [0.551090, 0.533434, -0.084523, 0], atol=2e-6)
  np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-6)


def test_rows_and_columns_are_not_mixed_up():
  y, x = np.mgrid[:6, :6].astype(np.float32)
  small = jnp.stack([y, x], -1).reshape(36, 2)
  large = resize_grid(small, (12, 12)).reshape(12, 12, 2)
  # With a=-0.75 straight lines stay so only nearly: 3/64 beside, whatever the axis.
  inside = np.arange(4, 8)
  want = (inside + 0.5) / 2 - 0.5
  np.testing.assert_allclose(large[inside, 5, 0], want, atol=0.05)
  np.testing.assert_allclose(large[5, inside, 1], want, atol=0.05)


def test_the_class_token_and_the_own_size_stay():
  rng = np.random.default_rng(0)
  table = jnp.asarray(rng.normal(size=(1 + 9, 4)), jnp.float32)
  np.testing.assert_array_equal(resize_positions(table, (5, 5))[0], table[0])
  assert resize_positions(table, (5, 5)).shape == (26, 4)
  assert resize_positions(table, (3, 3)) is table
  with pytest.raises(ValueError, match='8 positions are not a square grid'):
    resize_positions(table[:-1], (5, 5))
