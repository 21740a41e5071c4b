"""Recipes with drawn parameters, texts and batches, for want of checkpoints and data.

A step is then that of the training itself, at the size that its configuration says.
Nothing is compiled for it, and of parameters and batches `jax.eval_shape` gives the
shapes alone.
"""

import functools
import importlib
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.tree import flatten, unflatten
from ovs_jax.core.types import Array, Batch, Constants, Params, UInt8
from ovs_jax.data.scenes_draw import SIZE
from ovs_jax.models.clip import init_clip
from ovs_jax.models.clipseg import init_clipseg
from ovs_jax.models.coseg import init_coseg
from ovs_jax.models.maskformer import init_maskformer
from ovs_jax.train.recipes import Recipe


def configuration(name: str, argument: str = '') -> ml_collections.ConfigDict:
  """Returns what the file `configs/<name>.py` makes of the argument.

  Args:
    name: of the file; a colon and an argument may follow.
    argument: likewise.

  Raises:
    ValueError: there is no such file below this directory.
  """
  name, _, own = name.partition(':')
  try:
    module = importlib.import_module(f'configs.{name}')
  except ModuleNotFoundError as error:
    raise UserError(
      f'configs/{name}.py was not found; run this command in the root of the '
      'repository, whose configurations it takes'
    ) from error
  return module.get_config(':'.join(filter(None, (own, argument))))


def draw_constants(recipe: Recipe, size: int) -> Constants:
  """Returns what `Recipe.prepare` embeds, for batches of `size`: directions."""
  kind = recipe.config.recipe
  if kind == 'coseg':
    anchors = _directions(len(recipe.seen) + 1, recipe.model.clip.embed_dim)
    return {'anchors': anchors}
  if kind == 'proposer':
    return {'text': _directions(len(recipe.seen), recipe.model.embed_dim)}
  if kind == 'clipseg':
    width = recipe.model.clip.embed_dim
    return {'phrases': _directions(_phrase_count(recipe), width)}
  if kind == 'clip_regions' and recipe.config.adapt.cache_text:
    return {'nouns': _directions(size, recipe.clip.embed_dim)}
  return {}


def initializer(recipe: Recipe) -> Callable[[Array], Params]:
  """Returns what draws parameters of the shapes and names that the recipe trains."""
  kind = recipe.config.recipe
  if kind.startswith('clip_'):
    return functools.partial(init_clip, recipe.clip)
  init = {'clipseg': init_clipseg, 'coseg': init_coseg, 'proposer': init_maskformer}
  return functools.partial(init[kind], recipe.model)


def fill(init: Callable[[Array], Params]) -> dict[str, Any]:
  """Returns parameters of the shapes of `init(key)`, without compiling anything.

  Scales are 1, and all else as wide as keeps the variance of what passes through. The
  numbers come back after a million, at another place of every array.
  """
  shapes = flatten(jax.eval_shape(init, jax.random.key(0)))
  generator = np.random.default_rng(0)
  numbers = generator.standard_normal(1_000_003, np.float32)

  def draw(path: str, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    if path.endswith(('scale', 'var')):
      return np.ones(leaf.shape, leaf.dtype)
    fan_in = max(math.prod(leaf.shape[:-1]), 1) if len(leaf.shape) > 1 else 100
    start = generator.integers(len(numbers))
    drawn = np.resize(np.roll(numbers, start), leaf.shape)
    drawn *= np.float32(fan_in**-0.5)
    return drawn.astype(leaf.dtype, copy=False)

  return unflatten({path: draw(path, leaf) for path, leaf in shapes.items()})


def draw_batch(recipe: Recipe, size: int, key: Array) -> Batch:
  """Returns `size` examples as the recipe's `batches` yields them, of noise."""
  return _BATCHES[recipe.config.recipe](recipe, size, key)


def _directions(count: int, width: int) -> Array:
  x = jax.random.normal(jax.random.key(1), (count, width))
  return x / jnp.linalg.norm(x, axis=1, keepdims=True)


def _phrase_count(recipe: Any) -> int:
  """Returns how many phrases there are; a user's table is taken to have one name."""
  return max(1, len(recipe.seen)) * len(recipe.config.phrases.templates)


def draw_pictures(key: Array, count: int, side: int) -> UInt8[Array, 'b s s 3']:
  """Returns squares of noise."""
  shape = (count, side, side)
  return jax.random.randint(key, (*shape, 3), 0, 256).astype(jnp.uint8)


def _tokens(key: Array, shape: tuple[int, int], vocabulary: int) -> Array:
  """Draws sentences that end with the end token."""
  drawn = jax.random.randint(key, shape, 1, vocabulary - 1)
  return drawn.at[:, -1].set(vocabulary - 1)


def _captions(recipe: Any, size: int, key: Array) -> Batch:
  keys = jax.random.split(key)
  side, length = recipe.clip.image_size, recipe.config.train.text_length
  return {
    'image': draw_pictures(keys[0], size, side),
    'tokens': _tokens(keys[1], (size, length), recipe.clip.vocab_size),
  }


def _crops(recipe: Any, size: int, key: Array) -> Batch:
  """Draws crops, half of each foreground, with a noun of its own for each."""
  c, side = recipe.config, recipe.clip.image_size
  keys = jax.random.split(key)
  kind = jnp.uint8 if c.adapt.uint8 else jnp.float32
  half = jnp.broadcast_to(jnp.arange(side) < side // 2, (size, side, side))
  batch = {
    'image': draw_pictures(keys[0], size, side).astype(kind),
    'mask': half.astype(kind),
  }
  plain = c.adapt.duplicates == 'negatives' and not c.adapt.loss_chunk
  if c.adapt.cache_text or not plain:
    batch['noun'] = jnp.arange(size, dtype=jnp.int32)
  if not c.adapt.cache_text:
    shape = (size, c.train.text_length)
    batch['tokens'] = _tokens(keys[1], shape, recipe.clip.vocab_size)
  return batch


def _targets(recipe: Any, size: int, key: Array) -> Batch:
  """Draws pictures whose targets are bands, a quarter of them padding."""
  c = recipe.config.train
  side = c.crop or SIZE
  keys = jax.random.split(key)
  ids = jnp.arange(c.max_targets)
  bands = jnp.arange(side) * c.max_targets // side
  shape = (size, c.max_targets)
  return {
    'image': draw_pictures(keys[0], size, side),
    'label': jnp.broadcast_to(bands, (size, side, side)).astype(jnp.uint8),
    'ids': jnp.broadcast_to(ids, shape),
    'classes': jax.random.randint(keys[1], shape, 0, len(recipe.seen), jnp.int32),
    'valid': jnp.broadcast_to(ids < max(1, 3 * c.max_targets // 4), shape),
  }


def _labels(recipe: Any, size: int, key: Array) -> Batch:
  """Draws pictures whose label maps are 4 x 4 squares."""
  side = recipe.model.image_size
  keys = jax.random.split(key)
  squares = jax.random.randint(keys[0], (size, 4, 4), 0, len(recipe.seen))
  step = math.ceil(side / 4)
  label = jnp.repeat(jnp.repeat(squares, step, 1), step, 2)[:, :side, :side]
  image = draw_pictures(keys[1], size, side)
  return {'image': image, 'label': label.astype(jnp.uint8)}


def _phrases(recipe: Any, size: int, key: Array) -> Batch:
  side = recipe.model.image_size
  keys = jax.random.split(key)
  mask = jnp.broadcast_to(jnp.arange(side) < side // 3, (size, side, side))
  return {
    'image': draw_pictures(keys[0], size, side),
    'mask': mask,
    'phrase': jax.random.randint(keys[1], (size,), 0, _phrase_count(recipe), jnp.int32),
  }


_BATCHES: dict[str, Callable[[Any, int, Array], Batch]] = {
  'clip_pretrain': _captions,
  'clip_regions': _crops,
  'clipseg': _phrases,
  'coseg': _labels,
  'proposer': _targets,
}
