"""Meshes and shardings: where parameters and batches live."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ovs_jax.core.errors import UserError
from ovs_jax.core.lookup import lookup
from ovs_jax.core.tree import flatten, match_rules, unflatten
from ovs_jax.core.types import Int

Axes = tuple[str | None, ...]

# Ordered (pattern, axes) over parameter paths of every model; first match wins. The
# axes are those of the last dimensions: scanned blocks have one more in front. What
# splits heads or hidden units comes first, then what every device holds whole.
SHARDING_RULES: tuple[tuple[str, Axes], ...] = (
  (r'attn/[qkv]/kernel$', (None, 'model', None)),
  (r'attn/[qkv]/bias$', ('model', None)),
  (r'attn/out/kernel$', ('model', None, None)),
  (r'attn/relative_position_bias$', (None, 'model')),
  (r'(c_fc|c_gate|fc1|linear1)/kernel$', (None, 'model')),
  (r'(c_fc|c_gate|fc1|linear1)/bias$', ('model',)),
  (r'(c_proj|fc2|linear2)/kernel$', ('model', None)),
  (r'token_embedding/embedding$', (None, 'model')),
  (r'/(bias|scale|mean|var)$', ()),
  (
    r'(embedding|embed|projection|proj|scale|tokens|slots|position|prompt|object|probe)$',
    (),
  ),
  (r'^(.*/)?logit_bias$', ()),
  (r'/(conv\d?|shortcut|patch_embed|reduction|adapter_\d|layer_\d)/kernel$', ()),
  (r'/(mask_features|input_proj|film_\w+|reduce_\d|head(/\w+)?)/kernel$', ()),
  (r'^(out|size/(area|embed))/kernel$', ()),
)
# Smaller parameters are not worth an all-gather each.
_FSDP_ELEMENTS = 2**16


def make_mesh(data: int, model: int) -> Mesh:
  """Returns a (data, model) mesh over all devices.

  Where they are of several slices (of a TPU, or nodes of GPUs), which a slower network
  connects, `data` goes along the slices first, and `model` stays within each.

  Args:
    data: devices along the batch; -1 takes all that `model` leaves.
    model: devices along heads and hidden units.

  Raises:
    ValueError: the product does not fit the devices, or `model` not a slice.
  """
  devices = jax.devices()
  count, slices = len(devices), _num_slices(devices)
  if data == -1 and model > 0:
    data = count // model
  if min(data, model) < 1 or data * model != count:
    raise UserError(
      f'a mesh of {data}x{model} devices does not fit the {count} that are here; '
      'change config.mesh.data and config.mesh.model'
    )
  if count // slices % model:
    raise UserError(
      f'config.mesh.model={model} does not divide the {count // slices} devices of '
      f'each of the {slices} slices, and would go over the network between them; '
      'change config.mesh.model'
    )
  if slices == 1:
    grid = mesh_utils.create_device_mesh(
      (data, model), devices, allow_split_physical_axes=True
    )
  else:
    grid = mesh_utils.create_hybrid_device_mesh(
      (data // slices, model), (slices, 1), devices, allow_split_physical_axes=True
    )
  return Mesh(grid, ('data', 'model'), axis_types=(AxisType.Auto,) * 2)


def _num_slices(devices: Sequence[Any]) -> int:
  # Some versions number the processes of a CPU as slices; they share its memory.
  if devices[0].platform == 'cpu':
    return 1
  return len({getattr(device, 'slice_index', 0) for device in devices})


def parameter_shardings(
  mesh: Mesh,
  params: Mapping[str, Any],
  *,
  rules: Sequence[tuple[str, Axes]] = (),
  fsdp: bool = False,
) -> dict[str, Any]:
  """Returns the sharding of every parameter.

  Args:
    mesh: of axes `data` and `model`.
    params: arrays or their shapes.
    rules: `(pattern, axes of the last dimensions)` that come before `SHARDING_RULES`.
    fsdp: whether the largest free dimension of large parameters is split over `data`,
      too; they are gathered where they are used.

  Raises:
    ValueError: a parameter without a rule, a rule of `rules` without a parameter, or
      dimensions that are not divisible by their mesh axis; names them all.
  """
  leaves = flatten(params)
  for pattern, axes in rules:
    if not any(re.search(pattern, path) for path in leaves):
      raise UserError(f'sharding: the pattern {pattern!r} matches no parameter')
    for axis in axes:
      if axis is not None:
        lookup(mesh.shape, axis, 'mesh axis')
  matched = match_rules(
    leaves, (*rules, *SHARDING_RULES), what='sharding', allow_unused=True
  )
  placed, problems = {}, []
  for path, last in matched.items():
    shape = leaves[path].shape
    axes = [None] * (len(shape) - len(last)) + list(last)
    problems += _indivisible(mesh, path, shape, axes)
    if fsdp:
      _split_largest(mesh, shape, axes)
    while axes and axes[-1] is None:
      axes.pop()
    placed[path] = NamedSharding(mesh, PartitionSpec(*axes))
  if problems:
    raise UserError(
      f'cannot shard {len(problems)} parameters; choose another config.mesh.model: '
      + '; '.join(problems)
    )
  return unflatten(placed)


def _indivisible(
  mesh: Mesh, path: str, shape: tuple[int, ...], axes: Sequence[str | None]
) -> list[str]:
  if len(axes) > len(shape):
    return [f'{path}: {tuple(shape)} has fewer dimensions than the rule {tuple(axes)}']
  return [
    f'{path}: dimension {i} of {tuple(shape)} over {mesh.shape[axis]} devices of axis '
    f'{axis!r}'
    for i, axis in enumerate(axes)
    if axis and shape[i] % mesh.shape[axis]
  ]


def _split_largest(mesh: Mesh, shape: tuple[int, ...], axes: list[str | None]) -> None:
  """Puts `data` on the largest dimension that is free and divisible, if any."""
  count = mesh.shape['data']
  free = [i for i, axis in enumerate(axes) if axis is None and shape[i] % count == 0]
  if free and math.prod(shape) >= _FSDP_ELEMENTS and 'data' not in axes:
    axes[max(free, key=lambda i: shape[i])] = 'data'


def own_rows(mesh: Mesh, batch_size: int) -> Int[np.ndarray, 'r']:
  """Returns the rows of a global batch that this process supplies, in order.

  They follow from where its devices lie along `data`: processes that have the same
  places there supply the same rows, and a process may have rows that are apart.
  """
  taken = _by_rows(mesh).addressable_devices_indices_map((batch_size,))
  return np.unique(np.concatenate([np.arange(batch_size)[i] for i in taken.values()]))


def shard_batch(
  mesh: Mesh, batch: Mapping[str, np.ndarray], *, size: int
) -> dict[str, jax.Array]:
  """Puts this process's rows of a batch on the devices, split along axis 0.

  Args:
    mesh: of axes `data` and `model`.
    batch: arrays of the rows `own_rows(mesh, size)`.
    size: rows of the global batch.

  Raises:
    ValueError: an array has another number of rows.
  """
  count = len(own_rows(mesh, size))
  for name, value in batch.items():
    if len(value) != count:
      raise UserError(
        f'{name!r} of the batch has {len(value)} rows; the devices of this process '
        f'take {count} of the {size}, see core.sharding.own_rows'
      )
  return {
    name: jax.make_array_from_process_local_data(
      _by_rows(mesh), value, (size, *value.shape[1:])
    )
    for name, value in batch.items()
  }


def replicate(mesh: Mesh, tree: Any) -> Any:
  """Puts arrays on every device of the mesh, whole; each process has them."""
  everywhere = NamedSharding(mesh, PartitionSpec())
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(
      everywhere, np.asarray(x), x.shape
    ),
    tree,
  )


def _by_rows(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec('data'))


def check_batch(mesh: Mesh, batch_size: int, *, accumulate: int = 1) -> None:
  """Raises ValueError if the batch cannot be split over the mesh and turns."""
  for key, value in (('batch_size', batch_size), ('accumulate', accumulate)):
    if value < 1:
      raise UserError(f'config.train.{key} is {value}, expected at least 1')
  count = mesh.shape['data'] * accumulate
  if batch_size % count:
    raise UserError(
      f'batch_size {batch_size} is not a multiple of {count}, the devices along '
      "the mesh's data axis times config.train.accumulate; change "
      'config.train.batch_size'
    )


def on_own_rows(
  function: Callable[..., jax.Array],
  arrays: Sequence[jax.Array],
  *,
  axes: Sequence[int],
  out: int,
) -> jax.Array:
  """Returns `function(*arrays)`, each device computing that of its part of a batch.

  What depends on the data, such as how often a loop turns, then makes no device wait
  for another. The mesh is that of `jax.set_mesh`; without one this is a plain call.

  Args:
    function: of arrays; treats examples of the batch apart.
    arrays: its arguments.
    axes: which one of each is the batch, a multiple of the mesh's `data`.
    out: which axis of the result is.
  """
  mesh = jax.sharding.get_abstract_mesh()
  kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
  if kinds.get('data', AxisType.Manual) is AxisType.Manual or mesh.size == 1:
    return function(*arrays)

  def rows(axis: int) -> PartitionSpec:
    return PartitionSpec(*(None,) * axis, 'data')

  # Unchecked: loops start from what is the same everywhere.
  mapped = jax.shard_map(
    function,
    mesh=mesh,
    in_specs=tuple(map(rows, axes)),
    out_specs=rows(out),
    check_vma=False,
  )
  return mapped(*arrays)
