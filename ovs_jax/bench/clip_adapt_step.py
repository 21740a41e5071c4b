"""A training step of CLIP's adaptation: crops, loss, gradient, AdamW."""

import dataclasses

import jax
from ml_collections import ConfigDict

from ovs_jax.bench import drawn
from ovs_jax.bench.measure import Variant, Workload
from ovs_jax.bench.placed_step import place_step
from ovs_jax.core.lookup import lookup
from ovs_jax.core.tree import flatten
from ovs_jax.models.clip import PRESETS, ClipConfig
from ovs_jax.settings import Settings
from ovs_jax.train.recipes import make_recipe

# Configurations of which all is taken but the tower's size.
METHODS = {'mpt': 'mpt_vitl14', 'ft': 'ft_vitl14'}


@dataclasses.dataclass(frozen=True)
class Options:
  """What `--set` changes.

  Attributes:
    preset: of CLIP: tiny, b32, b16, l14 or l14_336.
    method: mpt (mask prompts) or ft (the image tower and the temperature).
    batch: crops at once.
    dtype: the towers compute in; parameters are float32.
    remat: whether blocks are computed again on the way back.
    chunk: columns of logits at once; 0: all.
    mesh: devices along the batch, and along heads and hidden units.
  """

  preset: str = 'b16'
  method: str = 'mpt'
  batch: int = 8
  dtype: str = 'float32'
  remat: bool = False
  chunk: int = 0
  mesh: tuple[int, ...] = (1, 1)


def build(options: Options) -> Workload:
  """The step with cached texts, as at full size, and with the text tower in it."""
  clip = dataclasses.replace(
    lookup(PRESETS, options.preset, 'CLIP preset'),
    dtype=options.dtype,
    remat=options.remat,
  )
  config = Settings.of(settings(clip, options))
  recipe = make_recipe(config)
  params = drawn.fill(drawn.initializer(recipe))
  constants = drawn.draw_constants(recipe, options.batch)
  placed = place_step(recipe, config, params, constants, options.mesh)
  variants = []
  for name, cached in (('package', True), ('with text tower', False)):
    adapt = dataclasses.replace(config.adapt, cache_text=cached)
    recipe.config = dataclasses.replace(config, adapt=adapt)
    batch = placed.put(drawn.draw_batch(recipe, options.batch, jax.random.key(1)))
    program = placed.compile(batch)
    # The state stays, so that every run does the same work.
    run = jax.tree_util.Partial(program, placed.state, placed.constants, batch)
    variants.append(Variant(name, lambda run=run: run()[1], program=program))
  leaves = flatten(params)
  facts = {
    'parameters': sum(x.size for x in leaves.values()),
    'trained': sum(leaves[path].size for path in placed.trainable),
  }
  return Workload('crops', options.batch, variants, facts)


def settings(clip: ClipConfig, options: Options) -> ConfigDict:
  """Returns the configuration of the method with a tower of another size."""
  config = drawn.configuration(lookup(METHODS, options.method, 'method'))
  depth = config.clip.prompt_depth
  config.clip.update(dataclasses.asdict(clip))
  config.clip.prompt_depth = min(depth, clip.vision_layers)
  config.adapt.loss_chunk = options.chunk
  return config
