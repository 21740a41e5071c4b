"""A training step of CLIP's adaptation: crops, loss, gradient, AdamW."""

import dataclasses

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from ovs_jax.bench.measure import Variant, Workload
from ovs_jax.bench.placed_step import place_step
from ovs_jax.core.lookup import lookup
from ovs_jax.core.tree import flatten
from ovs_jax.core.types import Batch
from ovs_jax.models.clip import PRESETS, ClipConfig, init_clip
from ovs_jax.train.recipes.clip_regions import ClipRegions

METHODS = {
  'mpt': ((r'visual/mask_prompt$', 1.0), (r'.*', None)),
  'ft': ((r'^(visual/|logit_scale$)', 1.0), (r'.*', None)),
}


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
  groups = lookup(METHODS, options.method, 'method')
  clip = dataclasses.replace(
    lookup(PRESETS, options.preset, 'CLIP preset'),
    prompt_depth=3 if options.method == 'mpt' else 0,
    dtype=options.dtype,
    remat=options.remat,
  )
  config = settings(clip, options, groups)
  recipe = ClipRegions(config)
  params = init_clip(clip, jax.random.key(0))
  placed = place_step(recipe, config, params, options.mesh)
  variants = []
  for name, batch in batches(clip, options.batch).items():
    batch = placed.put(batch)
    program = placed.compile(batch)
    # The state stays, so that every run does the same work.
    run = jax.tree_util.Partial(program, placed.state, batch)
    variants.append(Variant(name, lambda run=run: run()[1], program=program))
  leaves = flatten(params)
  facts = {
    'parameters': sum(x.size for x in leaves.values()),
    'trained': sum(leaves[path].size for path in placed.trainable),
  }
  return Workload('crops', options.batch, variants, facts)


def settings(
  clip: ClipConfig, options: Options, groups: tuple[tuple[str, float | None], ...]
) -> ConfigDict:
  """What the recipe and the step read of a configuration."""
  adapt = {
    'store': 'all',
    'duplicates': 'negatives',
    'prior': 'mask',
    'loss_chunk': options.chunk,
    'evaluate_every': 0,
  }
  optimizer = {
    'schedule': 'warmup_cosine',
    'learning_rate': 1e-5,
    'warmup': 1,
    'end': 0.0,
    'power': 1.0,
    'b1': 0.9,
    'b2': 0.98,
    'eps': 1e-6,
    'weight_decay': 0.2,
    'gradient_clip': None,
    'groups': groups,
    'decay': ((r'(bias|scale|class_embedding|mask_prompt)$', 0.0), (r'.*', 1.0)),
  }
  keys = {
    'clip': dataclasses.asdict(clip),
    'adapt': adapt,
    'optimizer': optimizer,
    'train': {'steps': 1000, 'accumulate': 1},
    'seed': 0,
  }
  return ConfigDict(keys)


def batches(clip: ClipConfig, size: int) -> dict[str, Batch]:
  """Returns drawn crops with embedded texts, and with sentences of 16 tokens."""
  keys = jax.random.split(jax.random.key(1), 4)
  side = clip.image_size
  text = jax.random.normal(keys[2], (size, clip.embed_dim))
  tokens = jax.random.randint(keys[3], (size, 16), 1, clip.vocab_size - 1)
  crops = {
    'image': jax.random.randint(keys[0], (size, side, side, 3), 0, 256).astype('uint8'),
    'mask': jnp.broadcast_to(jnp.arange(side) < side // 2, (size, side, side)).astype(
      'uint8'
    ),
    'noun': jnp.arange(size, dtype=jnp.int32),
  }
  text = text / jnp.linalg.norm(text, axis=1, keepdims=True)
  return {
    'package': {**crops, 'text': text},
    'with text tower': {**crops, 'tokens': tokens.at[:, -1].set(clip.vocab_size - 1)},
  }
