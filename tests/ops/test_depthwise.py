"""The convolution of single channels equals XLA's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ovs_jax.ops.depthwise import depthwise


def given(sides: tuple[int, int], dtype: str) -> tuple[jax.Array, jax.Array]:
  keys = jax.random.split(jax.random.key(0))
  x = jax.random.normal(keys[0], (2, 5, 6, 3), dtype)
  return x, jax.random.normal(keys[1], (*sides, 1, 3), dtype)


@pytest.mark.parametrize('sides', [(7, 7), (3, 1), (1, 5)])
def test_on_a_cpu_it_is_what_other_devices_compute(
  sides: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
  x, kernel = given(sides, 'float32')

  def run() -> tuple[jax.Array, ...]:
    both = jax.grad(lambda x, kernel: jnp.sum(jnp.sin(depthwise(x, kernel))), (0, 1))
    return depthwise(x, kernel), *both(x, kernel)

  found = run()
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  for one, other in zip(found, run(), strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_one_place_by_hand() -> None:
  x = jnp.zeros((1, 3, 4, 2)).at[0, 1, 2, 1].set(2.0)
  kernel = jnp.arange(18.0).reshape(3, 3, 1, 2)
  found = depthwise(x, kernel)
  assert not found[..., 0].any()
  # The place above and left of it sees it with the last row and column of the kernel.
  assert found[0, 0, 1, 1] == 2 * kernel[2, 2, 0, 1] and found[0, 1, 2, 1] == 2 * 9
  assert not found[0, :, 0].any()


def test_products_add_up_in_float32() -> None:
  x, kernel = given((7, 7), 'bfloat16')
  found = depthwise(x, kernel)
  assert found.dtype == jnp.bfloat16
  exact = depthwise(x.astype(jnp.float32), kernel.astype(jnp.float32))
  np.testing.assert_array_equal(found, exact.astype(jnp.bfloat16))
