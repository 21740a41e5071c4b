"""A training step of CoSeg, from pictures and from stored activations."""

import dataclasses

import jax
import ml_collections

from ovs_jax.bench import drawn
from ovs_jax.bench.measure import Variant, Workload
from ovs_jax.bench.placed_step import place_step
from ovs_jax.core.lookup import lookup
from ovs_jax.core.types import Batch
from ovs_jax.models.coseg import PRESETS, tiny
from ovs_jax.settings import Settings
from ovs_jax.train.recipes import make_recipe
from ovs_jax.train.recipes.coseg import encode_images


@dataclasses.dataclass(frozen=True)
class Options:
  """What `--set` changes.

  Attributes:
    language: prefix or cross.
    batch: images; the paper's is 32.
    small: the sizes for `scenes` in place of the paper's.
    dtype: the networks compute in.
    remat: whether blocks are computed again in the backward pass.
    mesh: devices along the batch, and along heads and hidden units.
  """

  language: str = 'prefix'
  batch: int = 2
  small: bool = False
  dtype: str = 'float32'
  remat: bool = False
  mesh: tuple[int, ...] = (1, 1)


def configuration(options: Options) -> ml_collections.ConfigDict:
  """Returns the paper's training, with networks of the options' size."""
  lookup(PRESETS, options.language, 'language model')
  config = drawn.configuration(f'coseg_{options.language}_vitb16')
  if options.small:
    parts = tiny(options.language).to_dict()
    config.clip.update(parts.pop('clip'))
    config.coseg.update(parts)
  config.clip.update(dtype=options.dtype, remat=options.remat)
  return config


def build(options: Options) -> Workload:
  """The step that the training loop runs."""
  config = Settings.of(configuration(options))
  recipe = make_recipe(config)
  params = drawn.fill(drawn.initializer(recipe))
  constants = drawn.draw_constants(recipe, options.batch)
  placed = place_step(recipe, config, params, constants, options.mesh)
  keys = jax.random.split(jax.random.key(1))
  image = drawn.draw_pictures(keys[0], options.batch, recipe.model.image_size)
  label = drawn.draw_batch(recipe, options.batch, keys[1])['label']
  stored = {'label': label, **encode_images(recipe.model, params, image)}
  losses = {}

  def variant(name: str, given: Batch) -> Variant:
    given = placed.put(given)
    program = placed.compile(given)

    def run() -> jax.Array:
      return program(placed.state, placed.constants, given)[1]['loss']

    losses[name] = float(run())
    return Variant(name, run, program=program)

  variants = [
    variant('package', {'image': image, 'label': label}),
    variant('stored activations', stored),
  ]
  facts = {f'loss, {name}': value for name, value in losses.items()}
  return Workload('images', options.batch, variants, facts)
