"""One training step of the proposer: losses with matching, gradients and AdamW."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax

from ovs_jax.bench import drawn
from ovs_jax.bench.measure import Program, Variant, Workload
from ovs_jax.bench.placed_step import place_step
from ovs_jax.bench.proposer_forward import proposer_config
from ovs_jax.core.tree import count_parameters
from ovs_jax.models.maskformer import MaskFormerConfig
from ovs_jax.settings import Settings
from ovs_jax.train.recipes import make_recipe

# Configurations of which all is taken but what the options say.
_TRAININGS = {
  'swin_b_l14': 'proposer_swin_b',
  'r101c_b16': 'proposer_r101c',
  'tiny': 'proposer_swin_b',
}


@dataclasses.dataclass(frozen=True)
class Options:
  """What `--set` changes.

  Attributes:
    preset: of the proposer: tiny, swin_b_l14 or r101c_b16.
    side: of the pictures, in pixels.
    batch: pictures at once.
    targets: masks of each picture, padding included.
    dtype: of the computation; parameters stay float32.
    alternatives: whether to compile and time those, too.
    mesh: devices along the batch, and along heads and hidden units.
  """

  preset: str = 'swin_b_l14'
  side: int = 640
  batch: int = 1
  targets: int = 40
  dtype: str = 'float32'
  alternatives: bool = True
  mesh: tuple[int, ...] = (1, 1)


def build(options: Options) -> Workload:
  """The step as recipes run it, and with the backbone's blocks computed twice."""
  config = proposer_config(options.preset, options.dtype)
  variants, facts = [], {}
  ways = {'package': False, 'remat': True}
  for name, remat in ways.items() if options.alternatives else [('package', False)]:
    run, program, seconds, count = _step(
      dataclasses.replace(config, remat=remat), options
    )
    variants.append(Variant(name, run, program=program))
    facts |= {'parameters': count, f'{name}: compile_seconds': round(seconds, 1)}
    sizes = program.compiled.memory_analysis()
    if sizes is not None:
      facts[f'{name}: temporary_megabytes'] = round(sizes.temp_size_in_bytes / 1e6)
  return Workload('pictures', options.batch, variants, facts)


def _step(
  config: MaskFormerConfig, options: Options
) -> tuple[Callable[[], Any], Program, float, int]:
  """Returns what runs a step, its program, the seconds it took, and the parameters."""
  settings = Settings.of(drawn.configuration(_TRAININGS[options.preset]))
  train = dataclasses.replace(
    settings.train, crop=options.side, max_targets=options.targets
  )
  settings = dataclasses.replace(settings, proposer=config, train=train)
  recipe = make_recipe(settings)
  params = drawn.fill(drawn.initializer(recipe))
  constants = drawn.draw_constants(recipe, options.batch)
  placed = place_step(recipe, settings, params, constants, options.mesh)
  batch = placed.put(drawn.draw_batch(recipe, options.batch, jax.random.key(2)))
  began = time.perf_counter()
  program = placed.compile(batch, donate=True)
  seconds = time.perf_counter() - began
  held = [placed.state]  # each step takes the place of the one before

  def run() -> Any:
    held[0], metrics = program(held[0], placed.constants, batch)
    return metrics

  return run, program, seconds, count_parameters(params)
