"""Training steps: at full size how fast and large, at tiny size how exact."""

import functools
import math
import statistics
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from ovs_jax.bench import drawn
from ovs_jax.bench.checks import Check, Found
from ovs_jax.bench.measure import program_facts
from ovs_jax.bench.placed_step import place_step
from ovs_jax.core.devices import least_seconds
from ovs_jax.core.tree import flatten
from ovs_jax.core.types import Batch, Constants, Params
from ovs_jax.settings import Settings
from ovs_jax.train.recipes import Recipe, make_recipe

# Configuration, examples (an eighth of the configuration's batch: eight GPUs share
# one), and whether in bfloat16 with recomputation where it says float32.
FULL = (
  ('mpt_vitl14', 32, False),
  ('ft_vitl14', 32, False),
  ('proposer_swin_b', 4, False),
  ('proposer_swin_b', 4, True),
  ('proposer_r101c', 4, False),
  ('coseg_prefix_vitb16', 4, False),
  ('coseg_cross_vitb16', 4, False),
  ('clipseg_finetune', 16, False),
  ('mpt_vitb16', 32, False),
  ('ft_vitb16', 32, False),
)
TINY = ('scenes:mpt', 'scenes:proposer', 'scenes:coseg_prefix', 'scenes:clipseg')


def checks(*, smoke: bool, repeats: int) -> Iterator[Check]:
  """Yields the steps, then the comparisons with other precisions."""
  steps = [(name, 2, False) for name in TINY] if smoke else FULL
  for name, size, narrow in steps:
    title = f'step {name}{" bfloat16" if narrow else ""} {size} examples'
    run = functools.partial(_step, name, size, narrow, repeats)
    yield Check(title, 'losses and gradients not finite', run)
  for name in TINY:
    title = f'gradient {name} float32 as on the CPU'
    yield Check(title, 'largest relative error', functools.partial(_as_cpu, name))
    title = f'loss {name} bfloat16 as in float32'
    yield Check(title, 'relative error', functools.partial(_as_wide, name))


def _narrow(config: ml_collections.ConfigDict) -> None:
  tower = config.proposer if config.recipe == 'proposer' else config.clip
  tower.update(dtype='bfloat16', remat=True)


def _step(name: str, size: int, narrow: bool, repeats: int) -> Found:
  config = drawn.configuration(name)
  if narrow:
    _narrow(config)
  config = Settings.of(config)
  recipe = make_recipe(config)
  params = drawn.fill(drawn.initializer(recipe))
  constants = drawn.draw_constants(recipe, size)
  placed = place_step(recipe, config, params, constants, (1, 1))
  batch = placed.put(drawn.draw_batch(recipe, size, jax.random.key(2)))
  began = time.perf_counter()
  program = placed.compile(batch, donate=True)
  compiling = time.perf_counter() - began
  state, times, found = placed.state, [], []
  for _ in range(1 + repeats):
    began = time.perf_counter()
    state, metrics = jax.block_until_ready(program(state, placed.constants, batch))
    times.append(time.perf_counter() - began)
    found += [float(metrics['loss']), float(metrics['gradient_norm'])]
  seconds = statistics.median(times[1:])
  _, held = program_facts(program)
  facts = {
    's a step': float(f'{seconds:.4g}'),
    'examples/s': float(f'{size / seconds:.4g}'),
    'MFU': round(least_seconds(program.work) / seconds, 3),
    'GFLOP': round(program.flops / 1e9, 1),
    'MB': None if held is None else round(held / 1e6),
    's to compile': round(compiling, 1),
    'losses': [float(f'{x:.5g}') for x in (found[0], found[-2])],
  }
  wrong = float(sum(not math.isfinite(x) for x in found))
  return Found(wrong, 0.0, facts=facts)


def _as_cpu(name: str) -> Found:
  """Compares loss and gradient of this device with the CPU's, in full float32."""
  given = _tiny(drawn.configuration(name))
  with jax.default_matmul_precision('highest'):
    here = _gradient(*given)
    with jax.default_device(jax.devices('cpu')[0]):
      wanted = _gradient(*given)
  return compared(here, wanted, 1e-3)


def _as_wide(name: str) -> Found:
  config = drawn.configuration(name)
  with jax.default_matmul_precision('highest'):
    wanted = _gradient(*_tiny(config))
  _narrow(config)
  found = _gradient(*_tiny(config))
  differ = compared(found, wanted, 1.0)
  # Gradients of drawn weights nearly cancel: how far they are is told, not judged.
  facts = {'gradients differ by': float(f'{differ.value:.2g}'), **differ.facts}
  error = abs(found['loss'] / wanted['loss'] - 1)
  return Found(error, 0.02, facts=facts)


def _tiny(
  config: ml_collections.ConfigDict,
) -> tuple[Recipe, Params, Constants, Batch]:
  recipe = make_recipe(Settings.of(config))
  batch = drawn.draw_batch(recipe, 4, jax.random.key(2))
  params = drawn.fill(drawn.initializer(recipe))
  return recipe, params, *jax.device_get((drawn.draw_constants(recipe, 4), batch))


def _gradient(
  recipe: Recipe, params: Params, constants: Constants, batch: Batch
) -> dict[str, float]:
  """The loss, and the length of the gradient of each part of the model."""

  @jax.jit
  def both(params: Params, constants: Constants, batch: Batch) -> tuple[Any, Any]:
    key = jax.random.key(0)
    gradient = jax.value_and_grad(lambda p: recipe.loss(p, constants, batch, key)[0])
    loss, grads = gradient(params)
    parts: dict[str, Any] = {}
    for path, x in flatten(grads).items():
      part = '/'.join(path.split('/')[:2])
      parts[part] = parts.get(part, 0.0) + jnp.sum(jnp.square(x))
    return loss, parts

  loss, parts = jax.device_get(both(params, constants, batch))
  lengths = {part: float(x) ** 0.5 for part, x in parts.items()}
  return {'loss': float(loss), **lengths}


def compared(found: dict[str, float], wanted: dict[str, float], limit: float) -> Found:
  """Compares losses, and lengths of gradients relative to the longest of them."""
  longest = max(x for name, x in wanted.items() if name != 'loss')
  errors = {
    name: abs(found[name] - x) / (abs(x) if name == 'loss' else longest)
    for name, x in wanted.items()
  }
  worst = max(errors, key=lambda name: (math.isnan(errors[name]), errors[name]))
  return Found(errors[worst], limit, facts={'most in': worst, 'loss': found['loss']})
