"""Floating-point operations of a program, counted in its jaxpr.

XLA's own count takes the body of a loop once, and so misses most of a scanned tower.
"""

import contextvars
import math
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

_ONCE = contextvars.ContextVar('once', default=False)


def count_flops(jaxpr: core.ClosedJaxpr | core.Jaxpr) -> int:
  """Returns what products and convolutions need, a multiply-add being two.

  Everything else is not counted. Loops of unknown length count once, of branches the
  dearest one.

  Args:
    jaxpr: for example `jax.jit(f).trace(x).jaxpr`.
  """
  return _operations(jaxpr).total()


def count_work(program: Any, *args: Any) -> dict[str, int]:
  """Returns the operations of a program by the type of their factors, as 'bfloat16'.

  What the backward pass computes again, to hold less in memory, is not counted: it is
  no work, and a step with and without it does the same. As in `count_flops`, only
  products and convolutions count, a multiply-add as two.

  Args:
    program: what `jax.jit` returned.
    args: its arguments, all of them arrays, or their shapes and types.
  """
  jaxpr = program.trace(*args).jaxpr
  if _recomputed(jaxpr):
    token = _ONCE.set(True)
    try:  # another function, or JAX remembers what it traced
      jaxpr = jax.jit(lambda *args: program.__wrapped__(*args)).trace(*args).jaxpr
    finally:
      _ONCE.reset(token)
  return dict(_operations(jaxpr))


def recomputes(wanted: bool) -> bool:
  """Whether the backward pass shall compute something again: not while work is counted.

  Args:
    wanted: whether it shall otherwise.
  """
  return wanted and not _ONCE.get()


def _recomputed(jaxpr: core.ClosedJaxpr | core.Jaxpr) -> bool:
  for equation in getattr(jaxpr, 'jaxpr', jaxpr).eqns:
    if equation.primitive.name in ('checkpoint', 'remat', 'remat2'):
      return True
    if any(_recomputed(x) for x in _inner(equation)):
      return True
  return False


def _operations(jaxpr: core.ClosedJaxpr | core.Jaxpr) -> Counter[str]:
  total = Counter()
  for equation in getattr(jaxpr, 'jaxpr', jaxpr).eqns:
    total += _equation(equation)
  return total


def _equation(equation: Any) -> Counter[str]:
  name, params = equation.primitive.name, equation.params
  for start, count in _COUNTS.items():
    if name.startswith(start):
      kind = jnp.result_type(*(x.aval.dtype for x in equation.invars[:2]))
      return Counter({kind.name: count(equation)})
  inner = [_operations(x) for x in _inner(equation)]
  if name == 'cond':
    return max(inner, key=Counter.total)
  turns = params['length'] if name == 'scan' else 1
  if name == 'shard_map':  # what one device does
    turns = _parts(params)
  return sum((Counter({k: n * turns for k, n in x.items()}) for x in inner), Counter())


def _inner(equation: Any) -> list[core.ClosedJaxpr | core.Jaxpr]:
  kinds = core.ClosedJaxpr | core.Jaxpr
  found = jax.tree.leaves(equation.params, is_leaf=lambda x: isinstance(x, kinds))
  return [x for x in found if isinstance(x, kinds)]


def _parts(params: Any) -> int:
  """Over how many devices a `shard_map` splits its work."""
  axes = jax.tree.leaves([tuple(spec) for spec in params['out_specs']])
  return math.prod(params['mesh'].shape[axis] for axis in set(axes))


def _product(equation: Any) -> int:
  (contracted, _), _ = equation.params['dimension_numbers']
  shape = equation.invars[0].aval.shape
  depth = math.prod(shape[i] for i in contracted)
  return 2 * depth * math.prod(equation.outvars[0].aval.shape)


def _convolution(equation: Any) -> int:
  numbers = equation.params['dimension_numbers']
  kernel = equation.invars[1].aval.shape
  out_features = kernel[numbers.rhs_spec[0]]
  taps = math.prod(kernel) // out_features  # input features of one group, and space
  return 2 * taps * math.prod(equation.outvars[0].aval.shape)


def _attention(equation: Any) -> int:
  """Two products forward; four backward, without those that are computed again."""
  b, n, heads, size = equation.invars[0].aval.shape
  products = 4 if '_bwd' in equation.primitive.name else 2
  return products * 2 * b * heads * n * equation.invars[1].aval.shape[1] * size


_COUNTS = {
  'dot_general': _product,
  'conv_general_dilated': _convolution,
  'dot_product_attention': _attention,  # cuDNN's, of `ops.attention`
}
