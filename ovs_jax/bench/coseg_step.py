"""A training step of CoSeg, from pictures and from stored activations."""

import dataclasses

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from ovs_jax.bench.measure import Variant, Workload
from ovs_jax.bench.placed_step import place_step
from ovs_jax.core.lookup import lookup
from ovs_jax.core.types import Batch
from ovs_jax.models.coseg import PRESETS, init_coseg, tiny
from ovs_jax.train.recipes.coseg import CoSegTraining, encode_images


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
  """Returns what the recipe reads: the paper's training, on COCO-Stuff's class list."""
  lookup(PRESETS, options.language, 'language model')
  sizes = tiny(options.language) if options.small else PRESETS[options.language]
  parts = sizes.to_dict()
  clip = {**parts.pop('clip'), 'dtype': options.dtype, 'remat': options.remat}
  slots = {
    'template': 'a photo of a {}',
    'matching': 'area',
    'language_loss': 'sequence',
    'tau': 0.08,
    'duplicates': 'literal',
    'direction': 'pred2gt',
    'ignore_unlabeled': False,
    'forced': 0.0,
    'unmatched': 1.0,
    'weights': {'bce': 1.0, 'dice': 0.0, 'focal': 0.0, 'language': 0.08, 'area': 0.0},
  }
  optimizer = {
    'schedule': 'constant',
    'learning_rate': 1e-4,
    'warmup': 0,
    'end': 1.0,
    'power': 1.0,
    'b1': 0.9,
    'b2': 0.999,
    'eps': 1e-8,
    'weight_decay': 0.0,
    'gradient_clip': None,
    'groups': ((r'^clip/', None), (r'.*', 1.0)),
    'decay': ((r'.*', 1.0),),
  }
  return ml_collections.ConfigDict(
    {
      'seed': 0,
      'dataset': {'name': 'coco_stuff_171'},
      'clip': clip,
      'coseg': parts,
      'slots': slots,
      'optimizer': optimizer,
      'train': {'steps': 1, 'accumulate': 1},
    }
  )


def build(options: Options) -> Workload:
  """The step that the training loop runs."""
  config = configuration(options)
  recipe = CoSegTraining(config)
  params = init_coseg(recipe.model, jax.random.key(0))
  recipe.set_anchors(_directions(len(recipe.seen) + 1, recipe.model.clip.embed_dim))
  placed = place_step(recipe, config, params, options.mesh)
  side = recipe.model.image_size
  rng = np.random.default_rng(0)
  shape = (options.batch, side, side)
  label = np.kron(
    rng.integers(0, len(recipe.seen), (options.batch, 4, 4)),
    np.ones((1, side // 4, side // 4), np.int64),
  )
  batch = {
    'image': jnp.asarray(rng.integers(0, 256, (*shape, 3)), jnp.uint8),
    'label': jnp.asarray(label, jnp.uint8),
  }
  stored = {
    'label': batch['label'],
    **encode_images(recipe.model, params, batch['image']),
  }
  losses = {}

  def variant(name: str, given: Batch) -> Variant:
    given = placed.put(given)
    program = placed.compile(given)
    losses[name] = float(program(placed.state, given)[1]['loss'])
    return Variant(
      name, lambda: program(placed.state, given)[1]['loss'], program=program
    )

  variants = [variant('package', batch), variant('stored activations', stored)]
  facts = {f'loss, {name}': value for name, value in losses.items()}
  return Workload('images', options.batch, variants, facts)


def _directions(count: int, width: int) -> jax.Array:
  x = jax.random.normal(jax.random.key(3), (count, width))
  return x / jnp.linalg.norm(x, axis=1, keepdims=True)
