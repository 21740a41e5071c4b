"""The step of the training loop on a mesh of devices, for the workloads that train."""

import copy
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from ovs_jax.bench.measure import Program, compile_program
from ovs_jax.core import sharding
from ovs_jax.core.errors import UserError
from ovs_jax.core.types import Batch, Constants, Params
from ovs_jax.settings import Settings
from ovs_jax.train import loop
from ovs_jax.train.recipes import Recipe
from ovs_jax.train.state import TrainState


@dataclasses.dataclass(frozen=True)
class PlacedStep:
  """A step and what it starts from.

  Attributes:
    state: parameters and optimizer, on their devices.
    constants: of the recipe, likewise.
    trainable: paths of the parameters that it trains.
    mesh: of the devices.
    step: from a state, the constants and a batch to the next state and metrics.
  """

  state: TrainState
  constants: Constants
  trainable: set[str]
  mesh: Mesh
  step: Callable[..., Any]

  def compile(self, batch: Batch, *, donate: bool = False) -> Program:
    """Returns the program of the step, for the constants and a batch from `put`.

    Args:
      batch: arrays on the devices.
      donate: whether a run may overwrite the state that it is given.
    """
    # The new state lies as the old one does, and can take its place.
    placed = jax.tree.map(lambda x: x.sharding, self.state)
    program = jax.jit(
      self.step, out_shardings=(placed, None), donate_argnums=0 if donate else ()
    )
    with jax.set_mesh(self.mesh):
      given = self.state, self.constants, batch
      return compile_program(program, *given, devices=self.mesh.size)

  def put(self, batch: Batch) -> dict[str, jax.Array]:
    """Splits a batch over the mesh.

    Raises:
      ValueError: it cannot be split evenly.
    """
    arrays = {name: np.asarray(x) for name, x in batch.items()}
    size, parts = len(next(iter(arrays.values()))), self.mesh.shape['data']
    if size % parts:
      raise UserError(
        f'a batch of {size} cannot be split over {parts} devices; set --batch to a '
        'multiple of the first number of --mesh'
      )
    return sharding.shard_batch(self.mesh, arrays, size=size)


def place_step(
  recipe: Recipe,
  config: Settings,
  params: Params,
  constants: Constants,
  shape: tuple[int, ...],
) -> PlacedStep:
  """Places parameters and optimizer as the training loop does.

  Args:
    recipe: what is trained, but not from what it prepares.
    config: the whole configuration.
    params: that it starts from instead.
    constants: of its loss.
    shape: devices along batch and heads, see `make_mesh`.

  Raises:
    ValueError: the mesh fits neither the devices nor the parameters.
  """
  recipe = copy.copy(recipe)
  recipe.prepare = lambda key: (params, constants)
  mesh = make_mesh(shape)
  state, constants, step, trainable = loop.init_state(recipe, config, mesh)
  return PlacedStep(state, constants, trainable, mesh, step)


def make_mesh(shape: tuple[int, ...]) -> Mesh:
  """Returns a mesh of (data, model) devices; (1, 1) is the first of any number.

  Raises:
    ValueError: there are not two numbers, or more or fewer devices.
  """
  count = jax.device_count()
  if len(shape) != 2 or min(shape) < 1:
    raise UserError(
      f'--mesh={",".join(map(str, shape))} is not two numbers from 1 on, the devices '
      'along the batch and along heads, such as 4,2'
    )
  if math.prod(shape) not in (1, count):
    raise UserError(
      f'a mesh of {shape[0]}x{shape[1]} devices does not fit the {count} that are '
      f'here; on a CPU add --devices={math.prod(shape)}, else change --mesh'
    )
  axes = (AxisType.Auto,) * 2
  devices = jax.devices()[: math.prod(shape)]
  return jax.make_mesh(shape, ('data', 'model'), axis_types=axes, devices=devices)
