"""Attention: right by hand, and the same by every implementation."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pretended_gpu
import pytest

from ovs_jax.core.types import Array
from ovs_jax.ops.attention import attend, attention_weights

B, N, M, H, D = 2, 6, 10, 3, 8
# Of results of about 1: rounding of the inputs, and of sums of products.
TOLERANCE = {jnp.float32: 1e-6, jnp.bfloat16: 2e-2}
MASKS = {
  'none': None,
  'one for all': np.tri(N, M, M - N, dtype=bool)[None, None],
  'one each': np.random.default_rng(7).random((B, 1, N, M)) < 0.5,
}
MASKS['one each'][..., 0] = True  # every query sees something


def draw(dtype: Any = jnp.float32, lead: tuple[int, ...] = (B,)) -> list[Array]:
  """Queries, keys, values, and weights of the results in a loss."""
  rng = np.random.default_rng(0)
  shapes = [(*lead, n, H, D) for n in (N, M, M, N)]
  return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def expected(
  q: Array, k: Array, v: Array, mask: Any = True, bias: Any = 0.0
) -> np.ndarray:
  """The formula in float64."""
  q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
  scores = np.einsum('...nhd,...mhd->...hnm', q, k) / np.sqrt(D) + bias
  weights = np.exp(scores) * mask
  weights /= weights.sum(axis=-1, keepdims=True)
  return np.einsum('...hnm,...mhd->...nhd', weights, v)


def results(implementation: str, dtype: Any, mask: Any, bias: Any = None) -> list[Any]:
  """Values, and the gradients for all that has one."""
  *given, weights = draw(dtype)
  given += [] if bias is None else [bias]

  def loss(q: Array, k: Array, v: Array, bias: Array | None = None) -> Any:
    out = attend(q, k, v, mask=mask, bias=bias, implementation=implementation)
    return jnp.sum(out.astype(jnp.float32) * weights.astype(jnp.float32)), out

  places = tuple(range(len(given)))
  grads, out = jax.jit(jax.grad(loss, argnums=places, has_aux=True))(*given)
  assert out.dtype == dtype
  return [np.asarray(x, np.float32) for x in (out, *grads)]


@pytest.mark.parametrize('mask', MASKS)
@pytest.mark.parametrize('dtype', TOLERANCE, ids=lambda x: x.__name__)
def test_implementations_agree(dtype: Any, mask: str) -> None:
  allowed = MASKS[mask] if MASKS[mask] is None else jnp.asarray(MASKS[mask])
  own, library = (results(name, dtype, allowed) for name in ('einsum', 'xla'))
  atol = TOLERANCE[dtype]
  for one, other in zip(own, library, strict=True):
    np.testing.assert_allclose(one, other, rtol=atol, atol=atol)
  wanted = expected(*draw(dtype)[:3], True if MASKS[mask] is None else MASKS[mask])
  np.testing.assert_allclose(own[0], wanted, rtol=atol, atol=atol)


def test_many_queries_in_parts_are_all_of_them() -> None:
  rng = np.random.default_rng(3)
  q, k, v = (jnp.asarray(rng.normal(size=(2, 300, H, D)), jnp.float32) for _ in 'qkv')
  mask = jnp.asarray(rng.random((2, 1, 300, 300)) < 0.5)
  bias = jnp.asarray(rng.normal(size=(1, H, 300, 300)), jnp.float32)

  def run(name: str) -> list[np.ndarray]:
    def loss(*given: Array) -> tuple[Array, Array]:
      out = attend(*given, mask=mask, bias=bias, implementation=name)
      return jnp.sum(jnp.sin(out)), out

    grads, out = jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(q, k, v)
    return [np.asarray(x) for x in (out, *grads)]

  for one, other in zip(run('einsum'), run('xla'), strict=True):
    np.testing.assert_allclose(one, other, atol=2e-6)


def test_a_bias_is_added_and_learnt() -> None:
  bias = jnp.asarray(np.random.default_rng(1).normal(size=(1, H, N, M)), jnp.float32)
  own, library = (results(name, jnp.float32, None, bias) for name in ('einsum', 'xla'))
  np.testing.assert_allclose(own[0], expected(*draw()[:3], bias=bias), atol=1e-6)
  for one, other in zip(own, library, strict=True):
    np.testing.assert_allclose(one, other, atol=1e-6)
  assert np.abs(own[-1]).max() > 0.01


@pytest.mark.parametrize('implementation', ['einsum', 'xla'])
def test_windows_are_a_second_batch_dimension(implementation: str) -> None:
  q, k, v, _ = draw(lead=(B, 4))
  bias = np.random.default_rng(1).normal(size=(1, 4, H, N, M)).astype(np.float32)
  got = attend(q, k, v, bias=jnp.asarray(bias), implementation=implementation)
  np.testing.assert_allclose(got, expected(q, k, v, bias=bias), atol=1e-6)


@pytest.mark.parametrize('implementation', ['einsum', 'xla'])
def test_a_query_that_sees_nothing_gets_the_mean(implementation: str) -> None:
  mask = jnp.asarray(MASKS['one each']).at[1, :, 2].set(False)
  out, *grads = results(implementation, jnp.float32, mask)
  np.testing.assert_allclose(out[1, 2], draw()[2][1].mean(axis=0), atol=1e-6)
  assert all(np.isfinite(x).all() for x in grads)
  assert not grads[0][1, 2].any()


def test_weights_are_those_of_the_values() -> None:
  q, k, v, _ = draw()
  mask = MASKS['one for all']
  weights = attention_weights(q, k, mask=jnp.asarray(mask))
  assert weights.shape == (B, H, N, M)
  np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-6)
  assert not np.asarray(weights)[:, :, ~mask[0, 0]].any()
  mixed = np.einsum('bhnm,bmhd->bnhd', weights, v)
  np.testing.assert_allclose(mixed, expected(q, k, v, mask), atol=1e-6)


def test_weights_are_dropped_after_the_softmax() -> None:
  q, k, v, _ = draw()
  seen = []

  def drop(weights: Array) -> Array:
    seen.append(weights)
    return 2 * weights

  got = attend(q, k, v, drop=drop)
  np.testing.assert_allclose(got, 2 * expected(q, k, v), atol=1e-6)
  np.testing.assert_allclose(seen[0].sum(axis=-1), np.ones((B, H, N)), rtol=1e-6)
  with pytest.raises(ValueError, match="attention 'xla' cannot do this .*with dropout"):
    attend(q, k, v, drop=drop, implementation='xla')


def test_mistakes_are_explained() -> None:
  q, k, v, _ = draw()
  with pytest.raises(ValueError, match="Did you mean 'einsum'"):
    attend(q, k, v, implementation='einsun')
  with pytest.raises(ValueError, match="'cudnn' cannot do this .*float32.*on cpu"):
    attend(q, k, v, implementation='cudnn')


HALF = {'dtype': jnp.bfloat16, 'shape': (2, 50, 4, 64)}


@pytest.mark.parametrize(
  ('changes', 'capability', 'taken'),
  [
    ({}, '9.0', True),
    ({'dtype': jnp.float16}, '8.6', True),
    ({'mask': True}, '9.0', True),
    ({'dtype': jnp.float32}, '9.0', False),
    ({'shape': (2, 50, 4, 12)}, '9.0', False),
    ({'shape': (2, 50, 4, 256)}, '9.0', False),
    ({'shape': (2, 51, 4, 64)}, '9.0', True),
    ({'shape': (2, 51, 4, 64), 'mask': True}, '9.0', True),
    ({'bias': True}, '9.0', False),
    ({'drop': True}, '9.0', False),
    ({}, '7.5', False),
    ({}, 'gfx90a', False),
    ({}, None, False),
  ],
)
def test_cudnn_is_chosen_for_what_it_takes(
  changes: dict[str, Any],
  capability: str | None,
  taken: bool,
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  wanted = {'bias': False, 'mask': False, 'drop': False, **HALF, **changes}
  n = wanted['shape'][1]
  x = jax.ShapeDtypeStruct(wanted['shape'], wanted['dtype'])
  bias = jnp.zeros((1, 1, n, n)) if wanted['bias'] else None
  mask = jnp.ones((1, 1, n, n), bool) if wanted['mask'] else None
  drop = jnp.negative if wanted['drop'] else None
  pretended_gpu.pretend(monkeypatch, capability)
  # What can be lowered forward only is not taken: a training would stop there.
  assert cudnn_calls(x, mask=mask, bias=bias, drop=drop) == (2 if taken else 0)


def cudnn_calls(x: jax.ShapeDtypeStruct, **options: Any) -> int:
  """Calls of cuDNN in the gradient for `x` as queries, keys and values, exported."""

  def loss(x: Array) -> Array:
    return jnp.sum(attend(x, x, x, **options).astype(jnp.float32))

  gradient = jax.jit(jax.value_and_grad(loss))
  lowered = gradient.trace(x).lower(lowering_platforms=('cuda',)).as_text()
  exported = pretended_gpu.export(gradient, x).mlir_module()
  assert exported.count('__cudnn$fmha') == lowered.count('__cudnn$fmha')
  return lowered.count('__cudnn$fmha')


@pytest.mark.parametrize('mask', MASKS)
@pytest.mark.parametrize('lengths', [(5, 9), (5, 10), (6, 9), (6, 10)])
def test_padding_for_cudnn_changes_nothing(
  lengths: tuple[int, int], mask: str, monkeypatch: pytest.MonkeyPatch
) -> None:
  n, m = lengths
  q, k, v, weights = draw(jnp.bfloat16)
  q, k, v, weights = q[:, :n], k[:, :m], v[:, :m], weights[:, :n]
  allowed = None if MASKS[mask] is None else jnp.asarray(MASKS[mask])[:, :, :n, :m]

  def loss(q: Array, k: Array, v: Array) -> Any:
    out = attend(q, k, v, mask=allowed)
    return jnp.sum(out.astype(jnp.float32) * weights.astype(jnp.float32)), out

  gradient = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)
  plain = jax.jit(gradient)(q, k, v)
  pretended_gpu.pretend(monkeypatch, '9.0')
  library, seen = jax.nn.dot_product_attention, []

  def stand_in(*args: Array, implementation: str, **options: Any) -> Array:
    """JAX's other implementation of what cuDNN is asked for."""
    seen.append((implementation, args[0].shape[1], args[1].shape[1]))
    return library(*args, implementation='xla', **options)

  monkeypatch.setattr(jax.nn, 'dot_product_attention', stand_in)
  padded = jax.jit(lambda *given: gradient(*given))(q, k, v)
  assert set(seen) == {('cudnn', 6, 10)}
  for one, other in zip(jax.tree.leaves(plain), jax.tree.leaves(padded), strict=True):
    assert one.shape == other.shape and one.dtype == other.dtype
    np.testing.assert_allclose(
      *(np.asarray(x, np.float32) for x in (one, other)), rtol=2e-2, atol=2e-2
    )


@pytest.mark.gpu
@pytest.mark.parametrize('mask', MASKS)
def test_cudnn_agrees(mask: str) -> None:
  allowed = MASKS[mask] if MASKS[mask] is None else jnp.asarray(MASKS[mask])
  own, fused = (results(name, jnp.bfloat16, allowed) for name in ('einsum', 'cudnn'))
  for one, other in zip(own, fused, strict=True):
    np.testing.assert_allclose(one, other, rtol=2e-2, atol=2e-2)
