"""The one training loop: every recipe runs through it."""

import collections
import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ovs_jax.core import hosts, sharding
from ovs_jax.core.devices import give_back_memory, least_seconds
from ovs_jax.core.files import Place, check_writable
from ovs_jax.core.flops import count_work
from ovs_jax.core.preemption import Preemption, Stopped
from ovs_jax.core.run_checkpoints import RunCheckpoints
from ovs_jax.core.runlog import RunLog, Trace
from ovs_jax.core.tree import count_parameters, flatten
from ovs_jax.core.types import Array, Batch, Constants, Metrics
from ovs_jax.core.writers import check_writers
from ovs_jax.settings import Settings
from ovs_jax.train.epochs import steps_of
from ovs_jax.train.guard import Guard
from ovs_jax.train.keeping import Keeping
from ovs_jax.train.optimizer import build_optimizer, learning_rate_scales
from ovs_jax.train.recipes import Recipe, make_recipe
from ovs_jax.train.state import (
  TrainState,
  merge_params,
  split_params,
  unless_finite,
)

Step = Callable[[TrainState, Constants, Batch], tuple[TrainState, Metrics]]

# Batches that wait on the devices while a step runs. Enough to hide how they get there;
# without a limit the host runs ahead of the devices and fills their memory.
_WAITING = 2


def make_step(
  recipe: Recipe, config: Settings, params: Any, *, whole: Any = None
) -> tuple[Step, Any, set[str]]:
  """Returns the jittable step, the optimizer and the paths that it trains.

  Args:
    recipe: what is trained.
    config: the whole configuration.
    params: on their devices.
    whole: the shardings in which parameters are used, where they rest in others.
  """
  scales = learning_rate_scales(config.optimizer, params)
  optimizer, schedule = build_optimizer(config.optimizer, scales, config.train.steps)
  root = jax.random.key(config.seed)

  def step(
    state: TrainState, constants: Constants, batch: Batch
  ) -> tuple[TrainState, Metrics]:
    trainable, frozen = split_params(state.params, set(scales))

    def loss(
      trainable: dict[str, Array], batch: Batch, key: Array
    ) -> tuple[Array, Metrics]:
      params = merge_params(trainable, frozen)
      if whole is not None:
        params = jax.lax.with_sharding_constraint(params, whole)
      return recipe.loss(params, constants, batch, key)

    key = jax.random.fold_in(root, state.step)
    gradient = jax.value_and_grad(loss, has_aux=True)
    turns = config.train.accumulate
    (value, metrics), grads = accumulate(gradient, trainable, batch, key, turns)
    updates, optimizer_state = optimizer.update(grads, state.optimizer, trainable)
    trainable = {path: x + updates[path] for path, x in trainable.items()}
    squares = [jnp.sum(jnp.square(g)) for g in grads.values()]
    norm = jnp.sqrt(sum(squares))
    params = recipe.project(merge_params(trainable, frozen))
    ema = state.ema
    if ema is not None:
      now, decay = flatten(params), config.train.ema
      ema = {path: decay * x + (1 - decay) * now[path] for path, x in ema.items()}
    new = TrainState(state.step + 1, params, optimizer_state, ema, state.skipped)
    taken = state.step
    if state.skipped is not None:
      taken -= state.skipped[1]
      new = unless_finite(jnp.isfinite(value) & jnp.isfinite(norm), new, state)
      metrics = {**metrics, 'skipped': new.skipped[1]}
    metrics = {
      **metrics,
      'loss': value,
      'gradient_norm': norm,
      'learning_rate': schedule(taken),
    }
    return new, metrics

  return step, optimizer, set(scales)


def accumulate(
  gradient: Callable[..., Any],
  params: dict[str, Array],
  batch: Batch,
  key: Array,
  turns: int,
) -> tuple[tuple[Array, Metrics], dict[str, Array]]:
  """Returns the mean of `gradient(params, part, key)` over parts of a batch.

  It equals the gradient of the whole batch where the loss is a mean over examples. In
  a contrastive loss an example has only its part for negatives, and a loss that is
  divided by a count of the batch is divided by that of the part.

  Args:
    gradient: gives arrays in any tree.
    params: its first argument.
    batch: arrays of axis 0 b, a multiple of `turns`.
    key: of the randomness; each part gets its own.
    turns: number of parts, of which one is in memory at a time.
  """
  if turns == 1:
    return gradient(params, batch, key)

  def part(x: Array) -> Array:
    """Interleaved, so that each device keeps its own examples."""
    return x.reshape(-1, turns, *x.shape[1:]).swapaxes(0, 1)

  def turn(total: Any, given: tuple[Batch, Array]) -> tuple[Any, None]:
    result = gradient(params, given[0], jax.random.fold_in(key, given[1]))
    return jax.tree.map(jnp.add, total, result), None

  parts = jax.tree.map(part, batch)
  first = jax.tree.map(lambda x: x[0], parts)
  shapes = jax.eval_shape(gradient, params, first, key)
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  total, _ = jax.lax.scan(turn, zeros, (parts, jnp.arange(turns)))
  return jax.tree.map(lambda x: x / turns, total)


def init_state(
  recipe: Recipe, config: Settings, mesh: Mesh
) -> tuple[TrainState, Constants, Step, set[str]]:
  """Draws or loads the parameters and places everything on the mesh.

  Returns:
    What the first step starts from, the constants, the step, and the paths of the
    parameters that it trains.
  """
  params, constants = recipe.prepare(jax.random.key(config.seed))
  placement = sharding.parameter_shardings(
    mesh, params, rules=config.mesh.rules, fsdp=config.mesh.fsdp
  )
  params = jax.device_put(params, placement)
  # Else XLA may leave the parameters split and send activations, which are larger.
  whole = sharding.parameter_shardings(mesh, params, rules=config.mesh.rules)
  step, optimizer, trainable = make_step(
    recipe, config, params, whole=whole if config.mesh.fsdp else None
  )
  part = split_params(params, trainable)[0]
  shapes = moment_shapes(optimizer, part, mesh)
  placed = jax.tree.map(lambda x: x.sharding, shapes)
  # Committed to their devices from the start, or the second step compiles again.
  moments = jax.jit(optimizer.init, out_shardings=placed)(part)
  everywhere = NamedSharding(mesh, PartitionSpec())
  start = jax.device_put(jnp.zeros((), jnp.int32), everywhere)
  state = TrainState(start, params, moments)
  if config.train.ema:
    state = state.replace(ema=jax.tree.map(jnp.copy, part))
  if config.train.skip_not_finite:
    skipped = jax.device_put(jnp.zeros(2, jnp.int32), everywhere)
    state = state.replace(skipped=skipped)
  return state, sharding.replicate(mesh, constants), step, trainable


def moment_shapes(optimizer: Any, part: dict[str, Any], mesh: Mesh) -> Any:
  """Returns the shapes of an optimizer's state, with their shardings.

  Moments live where their parameter does, counters everywhere.

  Args:
    optimizer: optax's.
    part: what it moves, arrays or shapes with their shardings.
    mesh: theirs.
  """
  everywhere = NamedSharding(mesh, PartitionSpec())
  keys = {(jax.tree_util.DictKey(name),) for name in part}

  def placed(path: tuple[Any, ...], x: Any) -> jax.ShapeDtypeStruct:
    where = part[path[-1].key].sharding if path[-1:] in keys else everywhere
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)

  shapes = jax.eval_shape(optimizer.init, part)
  return jax.tree_util.tree_map_with_path(placed, shapes)


def jit_step(step: Step, state: TrainState) -> Any:
  """Returns the program of a step: the new state takes the place of the old.

  To be traced under `jax.set_mesh`, so that the step knows where its rows are
  (`core.sharding.on_own_rows`).

  Args:
    step: from `make_step`.
    state: arrays or their shapes, with their shardings.
  """
  # The state keeps its placement, so that the second step needs no second program.
  placed = jax.tree.map(lambda x: x.sharding, state)
  return jax.jit(step, donate_argnums=0, out_shardings=(placed, None))


def train(config: Settings, workdir: Place) -> dict[str, Any]:
  """Trains to the last step (`epochs.steps_of`), or goes on where a run stopped.

  Returns:
    The last metrics, the number of parameters and of trainable ones, and the seconds
    this call took.

  Raises:
    ValueError: a configuration that cannot work, or a damaged checkpoint.
    OSError: `workdir` cannot be written.
    FloatingPointError: the loss, parameters or optimizer are not finite.
    Stopped: SIGTERM came; the last step is saved.
  """
  began = time.time()
  recipe = make_recipe(config)
  workdir = check_writable(workdir, megabytes=config.train.disk_megabytes)
  check_writers(config.train.writers)
  config = _with_steps(config, steps_of(config, recipe))
  mesh = sharding.make_mesh(config.mesh.data, config.mesh.model)
  sharding.check_batch(
    mesh, config.train.batch_size, accumulate=config.train.accumulate
  )
  state, constants, step, trainable = init_state(recipe, config, mesh)
  numbers = {
    'parameters': count_parameters(state.params),
    'trainable': count_parameters(split_params(state.params, trainable)[0]),
  }
  saved = RunCheckpoints(
    workdir / 'checkpoints', keep=config.train.keep, config=recipe.model_config
  )
  keeping = Keeping(
    recipe,
    constants,
    workdir,
    steps=config.train.steps,
    patience=config.train.patience,
  )
  guard = Guard(config.train, saved, state.step.sharding)
  try:
    state = keeping.restore(saved, state, trainable)
    guard.check_restored(state)
    give_back_memory()  # that loading took
    metrics = _run(
      config,
      workdir,
      mesh,
      recipe,
      state,
      constants,
      jit_step(step, state),
      numbers,
      saved,
      keeping,
      guard,
    )
  finally:
    saved.close()
  return {**metrics, **numbers, 'seconds': time.time() - began}


def _with_steps(config: Settings, steps: int) -> Settings:
  return dataclasses.replace(
    config, train=dataclasses.replace(config.train, steps=steps)
  )


def _run(
  config: Settings,
  workdir: Place,
  mesh: Mesh,
  recipe: Recipe,
  state: TrainState,
  constants: Constants,
  step_program: Any,
  numbers: dict[str, int],
  saved: RunCheckpoints,
  keeping: Keeping,
  guard: Guard,
) -> dict[str, float]:
  """Takes the steps that are left; returns the last metrics."""
  c, start = config.train, int(state.step)
  if start >= c.steps or keeping.start(start, state.model()):
    return {}
  batches = global_batches(recipe, mesh, c.batch_size, start)
  batch = next(batches)
  with jax.set_mesh(mesh), futures.ThreadPoolExecutor(1) as beside:
    traced = step_program.trace(state, constants, batch)
    compiled = beside.submit(lambda: traced.lower().compile())
    flops = count_work(step_program, state, constants, batch)
    _summarize(config, mesh, numbers, sum(flops.values()))
  run = compiled.result()
  log = _open_log(config, workdir, start, flops)
  metrics: dict[str, float] = {}
  started: collections.deque[Array] = collections.deque()
  trace = Trace(workdir / 'profile', first=start + 3, steps=c.profile)
  try:
    with Preemption() as preemption, trace:
      for step in range(start + 1, c.steps + 1):
        trace.before(step)
        if step > start + 1:
          with log.timing('data'):
            batch = next(batches)
        state, values = run(state, constants, batch)
        started.append(values['loss'])
        if len(started) > _WAITING:
          jax.block_until_ready(started.popleft())
        stop = preemption.reached() and step < c.steps
        log.advance(step)
        rests = _evaluate(keeping, guard, step, state, values['loss'])
        last = stop or rests or step == c.steps
        logs, saves = (last or step % n == 0 for n in (c.log_every, c.save_every))
        if logs:
          metrics = {name: float(x) for name, x in values.items()}
          log.write(step, metrics)
        if logs or saves:
          guard.check(step, state, values['loss'], arrays=saves)
        if saves:
          with log.timing('checkpoint'):
            keeping.save(saved, step, state)
        if rests:
          break
        if stop:
          raise Stopped(f'stopped after step {step} of {c.steps}, which is saved')
  finally:
    log.close()
  return metrics


def _evaluate(
  keeping: Keeping, guard: Guard, step: int, state: TrainState, loss: Array
) -> bool:
  """Evaluates, if it is time to; returns whether the training is at rest."""
  if keeping.due(step):
    guard.check(step, state, loss, arrays=True)
    keeping.evaluate(step, state.model())
  return keeping.at_rest()


def global_batches(
  recipe: Recipe, mesh: Mesh, size: int, start: int
) -> Iterator[Batch]:
  """Yields the batches from step `start` on, each on the devices of the mesh."""
  for batch in recipe.batches(start, sharding.own_rows(mesh, size)):
    yield sharding.shard_batch(mesh, batch, size=size)


def _open_log(
  config: Settings, workdir: Place, start: int, flops: dict[str, int]
) -> RunLog:
  return RunLog(
    workdir,
    title=config.name,
    start=start,
    steps=config.train.steps,
    batch_size=config.train.batch_size,
    flops=least_seconds(flops) / jax.device_count(),
    silent=not hosts.primary(),
    writers=config.train.writers,
    config=json.loads(json.dumps(config.to_dict(), default=str)),
  )


def _summarize(
  config: Settings, mesh: Mesh, numbers: dict[str, int], flops: int
) -> None:
  """Prints what is about to run."""
  if hosts.primary():
    shape = 'x'.join(str(n) for n in mesh.shape.values())
    kind = jax.devices()[0].device_kind
    print(
      f'{config.name}: {numbers["trainable"]:,} of {numbers["parameters"]:,} '
      f'parameters train; {flops / 1e9:,.1f} GFLOP a step of '
      f'{config.train.batch_size}; on {jax.device_count()} {kind} as {shape} (data x '
      f'model), {jax.process_count()} process(es)',
      flush=True,
    )
    steps, warmup = config.train.steps, config.optimizer.warmup
    if 0 < steps <= warmup:
      print(
        f'note: {steps} steps end before the {warmup} of config.optimizer.warmup: the '
        f'learning rate never becomes {config.optimizer.learning_rate:g}',
        flush=True,
      )
