"""The demo's choice of proposals."""

import jax.numpy as jnp
import numpy as np
import pytest

from ovs_jax.ops.selection import best_per_class

SCORES = jnp.array([[0.9, 0.1, 0.5], [0.2, 0.7, 0.4], [0.95, 0.0, 0.3]])


@pytest.mark.parametrize(
  ('valid', 'real', 'expected'),
  [
    ([1, 1, 1], [1, 1, 1], [1, 1, 1]),
    ([1, 1, 1], [1, 0, 0], [0, 0, 1]),
    ([1, 1, 1], [1, 1, 0], [0, 1, 1]),
    ([1, 1, 0], [1, 0, 0], [1, 0, 0]),
    ([0, 1, 0], [1, 1, 1], [0, 1, 0]),  # one for several classes
    ([0, 0, 0], [1, 1, 1], [0, 0, 0]),
    ([1, 1, 1], [0, 0, 0], [0, 0, 0]),
  ],
)
def test_best_per_class(valid, real, expected):
  got = best_per_class(SCORES, jnp.array(valid, bool), jnp.array(real, bool))
  np.testing.assert_array_equal(got, np.array(expected, bool))


def test_the_first_of_equals():
  ones = jnp.ones(3, bool)
  got = best_per_class(jnp.ones((3, 2)), ones, ones[:2])
  np.testing.assert_array_equal(got, [True, False, False])
