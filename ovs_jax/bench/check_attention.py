"""Every attention that a device may choose, against the formula in float32."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.bench.checks import Check, Found
from ovs_jax.core.types import Array
from ovs_jax.ops.attention import attend


@dataclasses.dataclass(frozen=True)
class Case:
  """A shape that the models have.

  Attributes:
    batch: examples.
    queries: their number.
    keys: their number.
    heads: of attention.
    size: features of each head.
    mask: 'none', 'causal' as in a text tower, or 'places' as where padding is hidden,
      with a query that sees nothing.
  """

  batch: int
  queries: int
  keys: int
  heads: int
  size: int
  mask: str = 'none'


CASES = {
  'L/14 257 tokens': Case(32, 257, 257, 16, 64),
  'B/16 197 tokens': Case(32, 197, 197, 12, 64),
  '256 tokens': Case(32, 256, 256, 16, 64),
  'text 77 tokens': Case(64, 77, 77, 12, 64, 'causal'),
  'masked 400 keys': Case(4, 100, 400, 8, 32, 'places'),
  'masked 399 keys': Case(4, 99, 399, 8, 32, 'places'),
}
SMOKE = {
  '9 tokens': Case(2, 9, 9, 2, 8),
  'text 7 tokens': Case(2, 7, 7, 2, 8, 'causal'),
  'masked 9 keys': Case(2, 6, 9, 2, 8, 'places'),
}
# Of the largest number. Float32 products of GPUs have 10 bits, as TF32.
LIMITS = {'float32': 5e-3, 'bfloat16': 2e-2}


def checks(*, smoke: bool) -> Iterator[Check]:
  """Yields a check for each case, type and implementation."""
  gpu = jax.default_backend() == 'gpu'
  for name, case in (SMOKE if smoke else CASES).items():
    for dtype in LIMITS:
      fused = ['cudnn', None] if gpu and dtype == 'bfloat16' else []
      for way in ('einsum', 'xla', *fused):
        title = f'attention {way or "chosen"} {name} {dtype}'
        run = functools.partial(_compare, case, dtype, way)
        yield Check(title, 'largest error of values and gradients', run)


def _compare(case: Case, dtype: str, way: str | None) -> Found:
  *given, weights = _draw(case, dtype)
  mask = _mask(case)
  found = _results(given, weights, mask, way)
  with jax.default_matmul_precision('highest'):
    wide = [x.astype(jnp.float32) for x in given]
    wanted = _results(wide, weights.astype(jnp.float32), mask, 'einsum')
  errors = {}
  for name, one, other in zip(('out', 'dq', 'dk', 'dv'), found, wanted, strict=True):
    one, other = (np.asarray(x, np.float32) for x in (one, other))
    error = float(np.abs(one - other).max() / np.abs(other).max())
    errors[name] = float(f'{error:.2g}') if np.isfinite(one).all() else float('nan')
  # NaN is larger than any number here.
  worst = float(np.max(list(errors.values())))
  return Found(worst, LIMITS[dtype], facts=errors)


def _draw(case: Case, dtype: str) -> list[Array]:
  lengths = (case.queries, case.keys, case.keys, case.queries)
  keys = jax.random.split(jax.random.key(0), 4)
  return [
    jax.random.normal(key, (case.batch, n, case.heads, case.size), dtype)
    for key, n in zip(keys, lengths, strict=True)
  ]


def _mask(case: Case) -> Array | None:
  if case.mask == 'none':
    return None
  shape = (case.queries, case.keys)
  if case.mask == 'causal':
    return jnp.tri(*shape, dtype=bool)[None, None]
  seen = jax.random.bernoulli(jax.random.key(1), 0.5, (case.batch, 1, *shape))
  return seen.at[0, :, 2].set(False).at[:, :, 3, 0].set(True)


def _results(
  given: list[Array], weights: Array, mask: Array | None, way: str | None
) -> list[Any]:
  def loss(q: Array, k: Array, v: Array) -> tuple[Array, Array]:
    out = attend(q, k, v, mask=mask, implementation=way)
    return jnp.sum(out.astype(jnp.float32) * weights.astype(jnp.float32)), out

  gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))
  grads, out = gradient(*given)
  return [out, *grads]
