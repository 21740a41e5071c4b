"""Weights in fewer bits: stored so, and float32 again where they are computed with."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np

from ovs_jax.core.lookup import lookup
from ovs_jax.core.tree import flatten, unflatten
from ovs_jax.core.types import Params

# 'bfloat16': rounded. 'int8': matrices only, each output channel in 255 steps up to its
# largest value; vectors stay float32.
WEIGHTS = ('float32', 'bfloat16', 'int8')
SCALE = '@scale'  # follows the path of an array of int8: what its values are times
_SMALLEST = 4096  # values of an array that is worth a scale
_STEPS = 127


def reduced(weights: Mapping[str, Any], kind: str) -> dict[str, np.ndarray]:
  """Returns weights in fewer bits.

  Args:
    weights: arrays of float32 by path.
    kind: one of `WEIGHTS`.

  Raises:
    UserError: the kind is unknown.
  """
  lookup(dict.fromkeys(WEIGHTS), kind, 'kind of weights')
  found = {}
  for path, given in weights.items():
    value = np.asarray(given)
    if kind == 'bfloat16' and value.dtype == np.float32:
      value = value.astype(ml_dtypes.bfloat16)
    elif kind == 'int8' and value.ndim > 1 and value.size >= _SMALLEST:
      # Channels are the last axis; layers in a stack have their own, and so have rows
      # of a table.
      if path.endswith('embedding'):
        axes = (-1,)
      else:
        axes = tuple(
          range(1 if 'blocks' in path and value.ndim > 2 else 0, value.ndim - 1)
        )
      scale = np.max(np.abs(value), axis=axes, keepdims=True) / _STEPS
      scale = np.where(scale == 0, 1, scale).astype(np.float32)
      found[path + SCALE] = scale
      value = np.round(value / scale).astype(np.int8)
    found[path] = np.asarray(value, order='C')
  return found


def rounded(params: Params, kind: str) -> Params:
  """Returns a model's parameters as they are after `reduced` and `restored`."""
  if kind == WEIGHTS[0]:
    return params
  return unflatten(restored(reduced(flatten(params), kind)))


def restored(weights: Mapping[str, Any]) -> dict[str, Any]:
  """Returns float32 of what `reduced` returned; what is float32 stays as it is."""
  found = {}
  for path, value in weights.items():
    if path.endswith(SCALE):
      continue
    if value.dtype in (jnp.bfloat16, jnp.int8):
      value = jnp.asarray(value).astype(jnp.float32)
    scale = weights.get(path + SCALE)
    found[path] = value if scale is None else value * scale
  return found
