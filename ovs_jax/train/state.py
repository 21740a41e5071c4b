"""What a training run carries from step to step."""

from typing import Any

from flax import struct

from ovs_jax.core.tree import flatten, unflatten
from ovs_jax.core.types import Array, Params


@struct.dataclass
class TrainState:
  """Step, parameters and optimizer state.

  Attributes:
    step: number of finished steps.
    params: all parameters, trainable and frozen, as nested dicts.
    optimizer: optax's state, for the trainable ones only.
  """

  step: Array
  params: Any
  optimizer: Any


def split_params(
  params: Params, trainable: set[str]
) -> tuple[dict[str, Array], dict[str, Array]]:
  """Returns the trainable and the frozen leaves by path."""
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
