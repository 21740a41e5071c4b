"""The training steps of configurations, compiled from shapes alone.

Neither weights nor data are needed, nor memory for them; only the compiler's own.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ovs_jax.bench import drawn
from ovs_jax.bench.collectives import Loop, traffic, waiting_loops
from ovs_jax.core import sharding
from ovs_jax.core.flops import count_work
from ovs_jax.core.tree import count_parameters, unflatten
from ovs_jax.settings import Settings
from ovs_jax.train import loop
from ovs_jax.train.recipes import make_recipe
from ovs_jax.train.state import TrainState, split_params

# The compiler's last stage, which makes machine code, changes nothing that is told. A
# CPU's compiler would drop what keeps recomputed blocks apart from their first run;
# those of accelerators keep it.
_NO_CODE = {
  'xla_disable_hlo_passes': 'cse_barrier_expander',
  'xla_backend_optimization_level': 0,
  'xla_llvm_disable_expensive_passes': True,
}


@dataclasses.dataclass(frozen=True)
class StepProgram:
  """What a compiled step needs of one device, and of the links between all.

  Attributes:
    work: operations of one example, by the type of their factors; nothing that is
      computed twice counts twice.
    gradients: bytes of the gradients.
    arguments: bytes of the state and the batch.
    temporary: bytes that are live beside them at once.
    sent: bytes of the results of all collectives, by kind; see `traffic`.
    loops: that have collectives.
  """

  work: dict[str, float]
  gradients: int
  arguments: int
  temporary: int
  sent: dict[str, int]
  loops: list[Loop]


@dataclasses.dataclass(frozen=True)
class AbstractStep:
  """A step that can be traced, lowered and compiled under its mesh.

  Attributes:
    program: see `train.loop.jit_step`.
    state: shapes and shardings.
    constants: likewise.
    batch: likewise.
    mesh: that they lie on.
    gradients: bytes of the gradients.
  """

  program: Any
  state: TrainState
  constants: dict[str, Any]
  batch: dict[str, Any]
  mesh: Mesh
  gradients: int


def abstract_step(config: Settings) -> AbstractStep:
  """Returns the training step of a configuration, whose mesh must fit the devices."""
  mesh = sharding.make_mesh(config.mesh.data, config.mesh.model)
  recipe = make_recipe(config)
  key = jax.random.key(0)
  shapes = jax.eval_shape(drawn.initializer(recipe), key)
  whole = sharding.parameter_shardings(mesh, shapes, rules=config.mesh.rules)
  resting = sharding.parameter_shardings(
    mesh, shapes, rules=config.mesh.rules, fsdp=config.mesh.fsdp
  )
  params = jax.tree.map(_placed, shapes, resting)
  step, optimizer, trainable = loop.make_step(
    recipe, config, params, whole=whole if config.mesh.fsdp else None
  )
  part = split_params(params, trainable)[0]
  everywhere, rows = (
    NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ('data',))
  )
  start = jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere)
  state = TrainState(start, params, loop.moment_shapes(optimizer, part, mesh))
  count = config.train.batch_size
  constants = jax.eval_shape(lambda: drawn.draw_constants(recipe, count))
  constants = jax.tree.map(lambda x: _placed(x, everywhere), constants)
  batch = jax.eval_shape(lambda: drawn.draw_batch(recipe, count, key))
  batch = jax.tree.map(lambda x: _placed(x, rows), batch)
  size = 4 * count_parameters(unflatten(part))
  return AbstractStep(loop.jit_step(step, state), state, constants, batch, mesh, size)


def _placed(x: Any, where: NamedSharding) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)


def compile_step(config: Settings) -> StepProgram:
  """Compiles the training step of a configuration for the devices that are here."""
  step = abstract_step(config)
  given = step.state, step.constants, step.batch
  with jax.set_mesh(step.mesh):
    work = count_work(step.program, *given)
    compiled = step.program.lower(*given).compile(compiler_options=_NO_CODE)
  text, sizes = compiled.as_text(), compiled.memory_analysis()
  return StepProgram(
    work={kind: n / config.train.batch_size for kind, n in work.items()},
    gradients=step.gradients,
    arguments=sizes.argument_size_in_bytes,
    temporary=sizes.temp_size_in_bytes,
    sent=traffic(text),
    loops=waiting_loops(text),
  )
