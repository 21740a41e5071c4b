"""What a training run carries from step to step."""

import functools
import re
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from ovs_jax.core.tree import flatten, unflatten
from ovs_jax.core.types import Array, Bool, Params


@struct.dataclass
class TrainState:
  """Step, parameters and optimizer state.

  Attributes:
    step: number of finished steps.
    params: all parameters, trainable and frozen, as nested dicts.
    optimizer: optax's state, for the trainable ones only.
    ema: averages of the trainable ones over the steps, by path; None: there are none.
    skipped: steps that were left out, in a row until now and in all, int32 (2,); None:
      none may be.
  """

  step: Any  # trees of shapes and shardings have this structure too
  params: Any
  optimizer: Any
  ema: Any = None
  skipped: Any = None

  def model(self) -> Params:
    """Returns what is evaluated and read by others: averages where there are any."""
    if self.ema is None:
      return self.params
    return unflatten({**flatten(self.params), **self.ema})


def unless_finite(
  finite: Bool[Array, ''], new: TrainState, old: TrainState
) -> TrainState:
  """Returns `new`, or `old` with one more step finished and skipped."""
  kept = jax.tree.map(lambda x, y: jnp.where(finite, x, y), new, old)
  row, total = old.skipped
  skipped = jnp.where(finite, jnp.stack([0, total]), jnp.stack([row + 1, total + 1]))
  return kept.replace(step=new.step, skipped=skipped)


def split_params(
  params: Params, trainable: set[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Returns the trainable and the frozen leaves by path, arrays or shapes."""
  leaves = flatten(params)
  return (
    {path: x for path, x in leaves.items() if path in trainable},
    {path: x for path, x in leaves.items() if path not in trainable},
  )


def merge_params(*parts: dict[str, Array]) -> dict[str, Any]:
  """Inverse of `split_params`."""
  merged: dict[str, Array] = {}
  for part in parts:
    merged.update(part)
  return unflatten(merged)


def draw_params(
  init: Callable[[Any, Array], Params], config: Hashable, key: Array, only: str = ''
) -> Params:
  """Returns `init(config, key)`, compiled for a single use.

  On a CPU, optimising the many small random draws takes four times as long as
  compiling and running them as they are.

  Args:
    init: draws the parameters of a model.
    config: sizes of the model.
    key: of the draw.
    only: regular expression of how the paths to draw begin; the others are given as
      their shapes, and cost nothing.
  """
  outermost = not isinstance(key, jax.core.Tracer)  # else JAX takes no options
  draw, shapes = _drawing(init, config, only, outermost)
  drawn = draw(key)
  return unflatten({**shapes, **drawn})


@functools.lru_cache(maxsize=16)
def _drawing(
  init: Callable[[Any, Array], Params], config: Hashable, only: str, outermost: bool
) -> tuple[Callable[[Array], dict[str, Array]], dict[str, jax.ShapeDtypeStruct]]:
  """Returns the program of a draw, and where it leaves the shapes of what is drawn."""
  shapes: dict[str, jax.ShapeDtypeStruct] = {}

  def draw(key: Array) -> dict[str, Array]:
    leaves = flatten(init(config, key))
    shapes.update(
      {k: jax.ShapeDtypeStruct(x.shape, x.dtype) for k, x in leaves.items()}
    )
    return {path: x for path, x in leaves.items() if re.match(only, path)}

  plain = {'xla_backend_optimization_level': 0}
  options = plain if jax.default_backend() == 'cpu' and outermost else None
  return jax.jit(draw, compiler_options=options), shapes
