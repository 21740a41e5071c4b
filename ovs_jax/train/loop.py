"""The one training loop: every recipe runs through it."""

import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ovs_jax.core import sharding
from ovs_jax.core.checkpoint import RunCheckpoints
from ovs_jax.core.files import check_writable
from ovs_jax.core.lookup import lookup
from ovs_jax.core.runlog import RunLog
from ovs_jax.core.tree import count_parameters, difference
from ovs_jax.core.types import Array, Batch, Metrics
from ovs_jax.train.keeping import Keeping
from ovs_jax.train.optimizer import build_optimizer, learning_rate_scales
from ovs_jax.train.recipes import RECIPES, Recipe
from ovs_jax.train.state import TrainState, merge_params, split_params

Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def make_step(recipe: Recipe, config: Any, params: Any) -> tuple[Step, Any, set[str]]:
  """Returns the jittable step, the optimizer and the paths that it trains."""
  scales = learning_rate_scales(config.optimizer, params)
  optimizer, schedule = build_optimizer(config.optimizer, scales, config.train.steps)
  root = jax.random.key(config.seed)

  def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    trainable, frozen = split_params(state.params, set(scales))

    def loss(trainable: dict[str, Array]) -> tuple[Array, Metrics]:
      key = jax.random.fold_in(root, state.step)
      return recipe.loss(merge_params(trainable, frozen), batch, key)

    (value, metrics), grads = jax.value_and_grad(loss, has_aux=True)(trainable)
    updates, optimizer_state = optimizer.update(grads, state.optimizer, trainable)
    trainable = {path: x + updates[path] for path, x in trainable.items()}
    squares = [jnp.sum(jnp.square(g)) for g in grads.values()]
    metrics = {
      **metrics,
      'loss': value,
      'gradient_norm': jnp.sqrt(sum(squares)),
      'learning_rate': schedule(state.step),
    }
    params = recipe.project(merge_params(trainable, frozen))
    return TrainState(state.step + 1, params, optimizer_state), metrics

  return step, optimizer, set(scales)


def init_state(
  recipe: Recipe, config: Any, mesh: Mesh
) -> tuple[TrainState, Step, set[str]]:
  """Draws or loads the parameters and places everything on the mesh."""
  params = recipe.init(jax.random.key(config.seed))
  params = jax.device_put(params, sharding.parameter_shardings(mesh, params))
  step, optimizer, trainable = make_step(recipe, config, params)
  part = split_params(params, trainable)[0]
  everywhere = NamedSharding(mesh, PartitionSpec())

  def placed(path: tuple[Any, ...], _: Any) -> NamedSharding:
    """Moments live where their parameter does, counters everywhere."""
    return part[path[-1].key].sharding if path[-1:] in keys else everywhere

  keys = {(jax.tree_util.DictKey(name),) for name in part}
  shapes = jax.eval_shape(optimizer.init, part)
  shardings = jax.tree_util.tree_map_with_path(placed, shapes)
  # Committed to their devices from the start, or the second step compiles again.
  moments = jax.jit(optimizer.init, out_shardings=shardings)(part)
  start = jax.device_put(jnp.zeros((), jnp.int32), everywhere)
  return TrainState(start, params, moments), step, trainable


def train(config: Any, workdir: pathlib.Path) -> dict[str, Any]:
  """Trains to `config.train.steps`, or goes on where an earlier run stopped.

  Returns:
    The last metrics, the number of parameters and of trainable ones, and the seconds
    this call took.

  Raises:
    ValueError: a configuration that cannot work, or a damaged checkpoint.
    OSError: `workdir` cannot be written.
    FloatingPointError: the loss is not finite.
  """
  began = time.time()
  workdir = check_writable(workdir, megabytes=config.train.disk_megabytes)
  mesh = sharding.make_mesh(config.mesh.data, config.mesh.model)
  sharding.check_batch(mesh, config.train.batch_size)
  recipe = lookup(RECIPES, config.recipe, 'recipe')(config)
  state, step_function, trainable = init_state(recipe, config, mesh)
  saved = RunCheckpoints(
    workdir / 'checkpoints', keep=config.train.keep, config=recipe.model_config
  )
  keeping = Keeping(recipe, config, workdir)
  state = _restore(saved, state, keeping)
  start = int(state.step)
  keeping.start(start, state.params)
  # The state keeps its placement, so that the second step needs no second program.
  placed = jax.tree.map(lambda x: x.sharding, state)
  run = jax.jit(step_function, donate_argnums=0, out_shardings=(placed, None))
  log = RunLog(
    workdir,
    title=config.name,
    start=start,
    steps=config.train.steps,
    batch_size=config.train.batch_size,
  )
  metrics: dict[str, float] = {}
  try:
    batches = recipe.batches(start) if start < config.train.steps else iter(())
    for step in range(start + 1, config.train.steps + 1):
      state, values = run(state, sharding.shard_batch(mesh, next(batches)))
      log.advance(step)
      if step % config.train.log_every == 0 or step == config.train.steps:
        metrics = {name: float(x) for name, x in values.items()}
        log.write(step, metrics)
      if step % config.train.save_every == 0 or step == config.train.steps:
        saved.save(step, keeping.part(state.params), state.optimizer)
      keeping.evaluate(step, state.params)
  finally:
    log.close()
    saved.close()
  return {
    **metrics,
    'parameters': count_parameters(state.params),
    'trainable': count_parameters(split_params(state.params, trainable)[0]),
    'seconds': time.time() - began,
  }


def _restore(saved: RunCheckpoints, state: TrainState, keeping: Keeping) -> TrainState:
  latest = saved.latest()
  if latest is None:
    return state
  expected = keeping.part(state.params)
  part, optimizer = saved.restore(latest, expected, state.optimizer)
  problem = difference(expected, part, what=f'checkpoint of step {latest}')
  if problem:
    raise ValueError(problem)
  params = keeping.whole(part, state.params)
  step = jax.device_put(jnp.int32(latest), state.step.sharding)
  return TrainState(step, params, optimizer)
