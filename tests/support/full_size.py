"""Programs of the full-size configurations, as shapes: nothing is allocated or run."""

from typing import Any

import jax
import jax.numpy as jnp
import pretended_gpu
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ovs_jax.bench import drawn, placed_step
from ovs_jax.settings import Settings
from ovs_jax.train import loop
from ovs_jax.train.recipes import make_recipe
from ovs_jax.train.state import TrainState, split_params

# What a program is compiled for: an NVIDIA GPU of this capability, or a TPU.
MACHINES = {**pretended_gpu.CARDS, 'TPU': None}


def export(
  program: Any, *args: Any, machine: str, patch: pytest.MonkeyPatch
) -> jax.export.Exported:
  """Traces, lowers and exports a program as on this machine."""
  if machine == 'TPU':
    patch.setattr(jax, 'default_backend', lambda: 'tpu')
    return jax.export.export(program, platforms=['tpu'])(*args)
  pretended_gpu.pretend(patch, MACHINES[machine])
  return pretended_gpu.export(program, *args)


def step(config: Any) -> tuple[Any, TrainState, Any, Any]:
  """Returns the program of the training loop's step, and shapes to trace it with.

  To be used under `jax.set_mesh(mesh())`.
  """
  recipe = make_recipe(Settings.of(config))
  key, size = jax.random.key(0), config.train.batch_size
  params = jax.eval_shape(drawn.initializer(recipe), key)
  batch = jax.eval_shape(lambda key: drawn.draw_batch(recipe, size, key), key)
  constants = jax.eval_shape(lambda: drawn.draw_constants(recipe, size))
  take, optimizer, trainable = loop.make_step(recipe, Settings.of(config), params)
  moments = jax.eval_shape(
    lambda params: optimizer.init(split_params(params, trainable)[0]), params
  )
  state = TrainState(jax.ShapeDtypeStruct((), jnp.int32), params, moments)
  state, constants = on((state, constants), PartitionSpec())
  batch = on(batch, PartitionSpec('data'))
  return loop.jit_step(take, state), state, constants, batch


def on(tree: Any, spec: PartitionSpec) -> Any:
  """Returns shapes on the mesh of one device."""
  where = NamedSharding(mesh(), spec)
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), tree
  )


def mesh() -> jax.sharding.Mesh:
  """Returns a mesh of one device."""
  return placed_step.make_mesh((1, 1))
