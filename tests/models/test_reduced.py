"""Weights in fewer bits, and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ovs_jax.core.errors import UserError
from ovs_jax.models.reduced import SCALE, reduced, restored

GENERATOR = np.random.default_rng(0)
WEIGHTS = {
  'head/kernel': GENERATOR.normal(size=(64, 128)).astype(np.float32),
  'blocks/kernel': GENERATOR.normal(size=(3, 32, 64)).astype(np.float32),
  'token_embedding/embedding': GENERATOR.normal(size=(512, 16)).astype(np.float32),
  'head/bias': GENERATOR.normal(size=5000).astype(np.float32),
  'small/kernel': GENERATOR.normal(size=(4, 4)).astype(np.float32),
}


def test_int8_has_a_scale_for_every_output_channel():
  weights = {path: value.copy() for path, value in WEIGHTS.items()}
  weights['head/kernel'][:, 5] *= 1000  # no other channel may suffer
  weights['head/kernel'][:, 6] = 0
  found = reduced(weights, 'int8')
  shapes = {path: x.shape for path, x in found.items() if path.endswith(SCALE)}
  assert shapes == {
    f'head/kernel{SCALE}': (1, 128),
    f'blocks/kernel{SCALE}': (3, 1, 64),
    f'token_embedding/embedding{SCALE}': (512, 1),
  }
  back = restored(found)
  assert set(back) == set(weights)
  for path, value in weights.items():
    scale = found.get(path + SCALE)
    if scale is None:
      np.testing.assert_array_equal(back[path], value)
      continue
    assert found[path].dtype == np.int8
    assert np.all(np.abs(back[path] - value) <= scale * 0.5001)
    assert np.max(np.abs(found[path])) == 127


def test_bfloat16_rounds_every_array():
  found = reduced(WEIGHTS, 'bfloat16')
  assert {x.dtype for x in found.values()} == {jnp.dtype('bfloat16')}
  for path, value in restored(found).items():
    assert value.dtype == np.float32
    np.testing.assert_array_equal(value, jnp.asarray(WEIGHTS[path], jnp.bfloat16))
    assert np.any(value != WEIGHTS[path])


@pytest.mark.parametrize('kind', ['float32', 'bfloat16', 'int8'])
def test_it_is_the_same_when_traced(kind):
  found = reduced(WEIGHTS, kind)
  traced = jax.jit(restored)(found)
  for path, value in restored(found).items():
    np.testing.assert_array_equal(traced[path], value)
    if kind == 'float32':
      np.testing.assert_array_equal(value, WEIGHTS[path])


def test_other_kinds_are_refused():
  with pytest.raises(UserError, match="unknown kind of weights 'int4'; known: "):
    reduced(WEIGHTS, 'int4')
