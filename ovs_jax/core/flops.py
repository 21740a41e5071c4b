"""Floating-point operations of a program, counted in its jaxpr.

XLA's own count takes the body of a loop once, and so misses most of a scanned tower.
"""

import math
from typing import Any

import jax
from jax.extend import core


def count_flops(jaxpr: core.ClosedJaxpr | core.Jaxpr) -> int:
  """Returns what products and convolutions need, a multiply-add being two.

  Everything else is not counted. Loops of unknown length count once, of branches the
  dearest one.

  Args:
    jaxpr: for example `jax.jit(f).trace(x).jaxpr`.
  """
  jaxpr = getattr(jaxpr, 'jaxpr', jaxpr)
  return sum(_equation(equation) for equation in jaxpr.eqns)


def _equation(equation: Any) -> int:
  name, params = equation.primitive.name, equation.params
  if name == 'dot_general':
    return _product(equation)
  if name == 'conv_general_dilated':
    return _convolution(equation)
  if name.startswith('dot_product_attention'):  # cuDNN's, of `ops.attention`
    return _attention(equation)
  if name == 'cond':
    return max(count_flops(branch) for branch in params['branches'])
  inner = sum(
    count_flops(x) for x in jax.tree.leaves(params, is_leaf=_is_jaxpr) if _is_jaxpr(x)
  )
  return inner * params['length'] if name == 'scan' else inner


def _is_jaxpr(value: Any) -> bool:
  return isinstance(value, core.ClosedJaxpr | core.Jaxpr)


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
