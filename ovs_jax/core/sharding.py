"""Meshes and shardings: where parameters and batches live."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ovs_jax.core.tree import flatten, match_rules, unflatten

# Ordered (pattern, axes) over parameter paths of every model; first match wins. The
# stacked layers of scanned blocks are axis 0 of `blocks/...`.
SHARDING_RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
  (r'blocks/attn/[qkv]/kernel$', (None, None, 'model', None)),
  (r'blocks/attn/out/kernel$', (None, 'model', None, None)),
  (r'blocks/c_fc/kernel$', (None, None, 'model')),
  (r'blocks/c_proj/kernel$', (None, 'model', None)),
  (r'token_embedding/embedding$', (None, 'model')),
  (r'.*', ()),
)


def make_mesh(data: int, model: int) -> Mesh:
  """Returns a (data, model) mesh over all devices.

  Args:
    data: devices along the batch; -1 takes all that `model` leaves.
    model: devices along heads and hidden units.

  Raises:
    ValueError: the product does not fit the devices.
  """
  count = jax.device_count()
  if data == -1:
    data = count // model
  if data * model != count:
    raise ValueError(
      f'a mesh of {data}x{model} devices does not fit the {count} that are here; '
      'change config.mesh.data and config.mesh.model'
    )
  axes = (AxisType.Auto,) * 2
  return jax.make_mesh((data, model), ('data', 'model'), axis_types=axes)


def parameter_shardings(mesh: Mesh, params: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the sharding of every parameter by `SHARDING_RULES`.

  Raises:
    ValueError: a dimension is not divisible by its mesh axis; names them all.
  """
  leaves = flatten(params)
  rules = match_rules(leaves, SHARDING_RULES, what='sharding', allow_unused=True)
  problems = []
  for path, axes in rules.items():
    for dimension, axis in enumerate(axes):
      if axis and leaves[path].shape[dimension] % mesh.shape[axis]:
        problems.append(
          f'{path}: dimension {dimension} of {tuple(leaves[path].shape)} over '
          f'{mesh.shape[axis]} devices of axis {axis!r}'
        )
  if problems:
    raise ValueError('cannot shard: ' + '; '.join(problems))
  return unflatten(
    {path: NamedSharding(mesh, PartitionSpec(*axes)) for path, axes in rules.items()}
  )


def shard_batch(mesh: Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
  """Puts this process's part of a batch on the devices, split along axis 0."""
  sharding = NamedSharding(mesh, PartitionSpec('data'))
  return {
    name: jax.make_array_from_process_local_data(sharding, value)
    for name, value in batch.items()
  }


def check_batch(mesh: Mesh, batch_size: int) -> None:
  """Raises ValueError if the batch cannot be split over the mesh and the hosts."""
  shards: Sequence[int] = (mesh.shape['data'], jax.process_count())
  for count in shards:
    if batch_size % count:
      raise ValueError(
        f'batch_size {batch_size} is not a multiple of {count}, the devices along '
        "the mesh's data axis or the processes; change config.train.batch_size"
      )
