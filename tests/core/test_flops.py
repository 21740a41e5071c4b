"""Operations counted by hand."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from ovs_jax.core import sharding
from ovs_jax.core.flops import _equation, count_flops, count_work, recomputes
from ovs_jax.core.types import Array


def count(function: object, *shapes: tuple[int, ...]) -> int:
  return count_flops(jax.make_jaxpr(function)(*[jnp.zeros(s) for s in shapes]))


def test_products() -> None:
  assert count(lambda a, b: a @ b, (3, 4), (4, 5)) == 2 * 3 * 4 * 5
  batched = 'bqhd,bkhd->bhqk'
  assert (
    count(lambda a, b: jnp.einsum(batched, a, b), (2, 3, 4, 5), (2, 6, 4, 5))
    == 2 * 2 * 4 * 3 * 6 * 5
  )
  assert count(lambda a: a + 1, (3, 4)) == 0


def test_convolutions() -> None:
  def convolve(x: Array, kernel: Array, groups: int = 1) -> Array:
    return jax.lax.conv_general_dilated(
      x,
      kernel,
      (2, 2),
      'SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=groups,
    )

  # 2 images of 4 x 4 places, 8 features out of 3 x 3 x 6 numbers each.
  assert count(convolve, (2, 8, 8, 6), (3, 3, 6, 8)) == 2 * (2 * 4 * 4 * 8) * (9 * 6)
  grouped = count(lambda x, k: convolve(x, k, 2), (2, 8, 8, 6), (3, 3, 3, 8))
  assert grouped == 2 * (2 * 4 * 4 * 8) * (9 * 3)


def test_loops_count_every_turn_and_branches_the_dearest() -> None:
  def scanned(x: Array, layers: Array) -> Array:
    return jax.lax.scan(lambda x, w: (x @ w, None), x, layers)[0]

  assert count(scanned, (4, 4), (7, 4, 4)) == 7 * 2 * 4**3
  remat = jax.checkpoint(scanned)
  assert count(jax.jit(remat), (4, 4), (7, 4, 4)) == 7 * 2 * 4**3

  def either(x: Array) -> Array:
    return jax.lax.cond(x[0, 0] > 0, lambda x: x, lambda x: x @ x @ x, x)

  assert count(either, (4, 4)) == 2 * 2 * 4**3


def test_a_gradient_costs_three_products_of_a_layer() -> None:
  def loss(w: Array, x: Array) -> Array:
    return jnp.sum((x @ w) ** 2)

  assert count(jax.grad(loss, argnums=(0, 1)), (4, 5), (3, 4)) == 3 * 2 * 3 * 4 * 5


@pytest.mark.parametrize(
  ('name', 'products'),
  [('dot_product_attention_fwd_wrapper', 2), ('dot_product_attention_bwd_wrapper', 4)],
)
def test_a_fused_attention_counts_as_its_products(name: str, products: int) -> None:
  query, key = (
    SimpleNamespace(aval=jnp.zeros((2, n, 3, 8), jnp.bfloat16)) for n in (5, 7)
  )
  equation = SimpleNamespace(
    primitive=SimpleNamespace(name=name), params={}, invars=[query, key, key]
  )
  assert _equation(equation) == {'bfloat16': products * 2 * (2 * 3 * 5 * 7 * 8)}


def test_work_is_told_by_the_type_of_the_factors() -> None:
  def mixed(a: Array, b: Array) -> Array:
    half = a.astype(jnp.bfloat16) @ b.astype(jnp.bfloat16)
    return half.astype(jnp.float32) @ b.T + (a.astype(jnp.bfloat16) @ b)

  shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((3, 4), (4, 4))]
  found = count_work(jax.jit(mixed), *shapes)
  assert found == {'bfloat16': 2 * 3 * 4 * 4, 'float32': 2 * (2 * 3 * 4 * 4)}


def test_what_is_computed_again_is_no_work() -> None:
  def loss(layers: Array, x: Array) -> Array:
    def layer(x: Array, w: Array) -> tuple[Array, None]:
      return jnp.sin(jnp.sin(x @ w) @ w), None

    layer = jax.checkpoint(layer) if recomputes(True) else layer
    return jnp.sum(jax.lax.scan(layer, x, layers)[0])

  program = jax.jit(jax.grad(loss, argnums=(0, 1)))
  shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((7, 4, 4), (3, 4))]
  product = 2 * 3 * 4 * 4
  assert count_work(program, *shapes) == {'float32': 7 * 2 * 3 * product}
  # As it runs, the backward pass has both of a layer's products once more.
  assert count_flops(program.trace(*shapes).jaxpr) == 7 * 2 * 4 * product
  assert recomputes(True) and not recomputes(False)


def test_what_devices_do_apart_is_counted_for_all_of_them() -> None:
  mesh = sharding.make_mesh(4, 2)

  def products(a: Array, b: Array) -> Array:
    return sharding.on_own_rows(jnp.matmul, (a, b), axes=(0, 0), out=0)

  with jax.set_mesh(mesh):
    assert count(products, (8, 3, 5), (8, 5, 7)) == 8 * 2 * 3 * 5 * 7
