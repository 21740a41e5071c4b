"""Dense layers that compute in less than float32."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ovs_jax.core.flops import count_work
from ovs_jax.core.types import Array
from ovs_jax.models.layers import group_norm, layer_norm, linear


class Layer(nn.Module):
  """One of them."""

  features: Any
  axis: Any
  dtype: Any

  @nn.compact
  def __call__(self, x: Array) -> Array:
    layer = linear(self.features, name='layer', dtype=self.dtype, axis=self.axis)
    return layer(x.astype(self.dtype))


@pytest.mark.parametrize(
  ('norm', 'axes'),
  [
    (layer_norm('norm', jnp.float32), (-1,)),
    (group_norm(1, name='norm', dtype=jnp.float32), (1, 2)),
  ],
)
def test_a_large_mean_costs_norms_no_digits(norm: nn.Module, axes: Any) -> None:
  x = np.random.default_rng(0).normal(100.0, 1.0, (4, 16, 64)).astype(np.float32)
  exact = x.astype(np.float64)
  exact = exact - exact.mean(axes, keepdims=True)
  exact /= np.sqrt(exact.var(axes, keepdims=True) + 1e-5)
  found, _ = norm.init_with_output(jax.random.key(0), jnp.asarray(x))
  np.testing.assert_allclose(found, exact, atol=3e-5)


@pytest.mark.parametrize(
  ('shape', 'axis', 'features'), [((2, 3, 8), -1, (4, 5)), ((3, 4, 5), (-2, -1), 6)]
)
def test_the_gradient_is_computed_in_the_layers_type(
  shape: tuple[int, ...], axis: Any, features: Any
) -> None:
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=shape), jnp.float32)

  def loss(kernel: Array, bias: Array, x: Array, dtype: Any) -> Array:
    params = {'params': {'layer': {'kernel': kernel, 'bias': bias}}}
    y = Layer(features, axis, dtype).apply(params, x)
    return jnp.sum(jnp.sin(y.astype(jnp.float32)))

  inside = 8 if axis == -1 else 20
  outside = features if isinstance(features, tuple) else (features,)
  axes = shape[-1:] if axis == -1 else shape[-2:]
  kernel = jnp.asarray(rng.normal(size=(*axes, *outside)) / inside**0.5, jnp.float32)
  given = (kernel, jnp.zeros(outside), x)
  gradient = jax.grad(loss, (0, 1, 2))
  half = jax.jit(lambda *given: gradient(*given, jnp.bfloat16))
  whole = gradient(*given, jnp.float32)
  for one, other in zip(half(*given), whole, strict=True):
    np.testing.assert_allclose(one, other, rtol=0.05, atol=0.05)
  product = 2 * x.size * int(np.prod(outside))
  assert count_work(half, *given) == {'bfloat16': 3 * product}
  frozen = jax.jit(lambda *given: jax.grad(loss, 2)(*given, jnp.bfloat16))
  assert count_work(frozen, *given) == {'bfloat16': 2 * product}
