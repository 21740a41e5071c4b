"""Our data sets as Scenic calls them."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import DATA_DIR
from ovs_jax.core.lookup import lookup
from ovs_jax.core.types import Int, void_of
from ovs_jax.data import DATASETS, augment, load_dataset, load_names, transforms
from ovs_jax.data.pipeline import eval_batches, train_batches
from ovs_jax.integrations.scenic.checkout import load
from ovs_jax.integrations.scenic.model import Held, build_recipe
from ovs_jax.settings import Dataset, Settings

_SIDE = 512  # of images, unless `dataset_configs.size` says otherwise


def segmentation_dataset(
  name: str,
  *,
  batch_size: int,
  eval_batch_size: int,
  num_shards: int,
  dtype_str: str = 'float32',
  shuffle_seed: int | None = None,
  rng: Any = None,
  dataset_configs: Any = None,
  dataset_service_address: str | None = None,
) -> Any:
  """Builds a data set as Scenic calls it: images in 0..1, labels, a mask of known ones.

  Args:
    name: of `DATASETS`.
    batch_size: of a host's training batches.
    eval_batch_size: of a host's validation batches.
    num_shards: local devices; batches are (num_shards, b / num_shards, ...).
    dtype_str: of the images.
    shuffle_seed: of the training order; None, as Scenic gives it unless told
      otherwise, is 0.
    rng: not used; the order follows from the seed.
    dataset_configs: `variant`, `data_dir`, `size` (side of the square images),
      `train_split`, `valid_split`; all optional.
    dataset_service_address: not used.
  """
  del rng, dataset_service_address
  settings = _settings(dataset_configs)
  lookup(DATASETS, name, 'data set')
  dataset = Dataset(name, settings['variant'], settings['data_dir'])
  _, builder = load_dataset(dataset)
  train, valid = _batches(
    builder, settings, batch_size, eval_batch_size, shuffle_seed or 0
  )
  utils = load('scenic.dataset_lib.dataset_utils')

  def shards(batches: Iterator[dict[str, np.ndarray]]) -> Iterator[Any]:
    for batch in batches:
      yield utils.shard(_for_scenic(batch, dtype_str), num_shards)

  names = load_names(dataset).names
  splits = builder.info.splits
  return utils.Dataset(
    train_iter=shards(train),
    valid_iter=shards(valid),
    meta_data={
      'num_classes': len(names),
      'class_names': list(names),
      'input_shape': (-1, settings['size'], settings['size'], 3),
      'input_dtype': np.dtype(dtype_str),
      'num_train_examples': splits[settings['train_split']].num_examples,
      'num_eval_examples': splits[settings['valid_split']].num_examples,
      'target_is_onehot': False,
    },
  )


def _batches(
  builder: Any,
  settings: Mapping[str, Any],
  batch_size: int,
  eval_batch_size: int,
  seed: int,
) -> tuple[Iterator[dict[str, np.ndarray]], Iterator[dict[str, np.ndarray]]]:
  """Training and validation, both without end."""
  steps = [
    augment.scale_jitter((settings['size'],), settings['size']),
    augment.pad_square(settings['size']),
    transforms.keep('image', 'label'),
  ]
  place = {'process_index': jax.process_index(), 'process_count': jax.process_count()}
  size = batch_size * jax.process_count()
  train = train_batches(
    builder,
    settings['train_split'],
    [steps[0], transforms.random_flip, *steps[1:]],
    batch_size=size,
    seed=seed,
    start=0,
    rows=_own_rows(size),
  )

  def valid() -> Iterator[dict[str, np.ndarray]]:
    """Scenic asks for as many batches as there are, again and again."""
    while True:
      yield from eval_batches(
        builder, settings['valid_split'], steps, batch_size=eval_batch_size, **place
      )

  return train, valid()


def _own_rows(size: int) -> Int[np.ndarray, 'r']:
  """The rows of a global batch that Scenic asks this host for."""
  return np.array_split(np.arange(size), jax.process_count())[jax.process_index()]


def _settings(given: Any) -> dict[str, Any]:
  """The defaults with the given values in their place.

  Raises:
    ValueError: an unknown key.
  """
  settings = {
    'variant': 'default',
    'data_dir': DATA_DIR,
    'size': _SIDE,
    'train_split': 'train',
    'valid_split': 'val',
  }
  for key, value in dict(given or {}).items():
    lookup(settings, key, 'key of dataset_configs')
    settings[key] = value
  return settings


def _for_scenic(batch: dict[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
  """Scenic's names; unlabelled pixels and filled-up examples weigh nothing."""
  known = batch['label'] != void_of(batch['label'].dtype)
  if 'example_valid' in batch:
    known &= batch['example_valid'][:, None, None]
  return {
    'inputs': (batch['image'] / 255.0).astype(dtype),
    'label': np.where(known, batch['label'], 0).astype(np.int32),
    'batch_mask': known.astype(np.float32),
  }


def recipe_dataset(
  *,
  batch_size: int,
  eval_batch_size: int,
  num_shards: int,
  dtype_str: str = 'float32',
  shuffle_seed: int | None = None,
  rng: Any = None,
  dataset_configs: Any = None,
  dataset_service_address: str | None = None,
  start: int = 0,
) -> Any:
  """The batches of a recipe, whole, as `inputs`.

  Args:
    batch_size: of a host; replaces that of the configuration.
    eval_batch_size: not used: recipes have training data only.
    num_shards: local devices.
    dtype_str: not used; the recipe says.
    shuffle_seed: replaces the configuration's seed, for the batches alone.
    rng: not used.
    dataset_configs: a configuration of `configs/`.
    dataset_service_address: not used.
    start: finished steps, whose batches are skipped.

  Raises:
    ValueError: there is no configuration.
  """
  del eval_batch_size, dtype_str, rng, dataset_service_address
  if dataset_configs is None or not dataset_configs.get('recipe'):
    raise UserError('dataset_configs is not a configuration of configs/ with a recipe')
  given = Settings.of(dataset_configs)
  config = dataclasses.replace(
    given,
    train=dataclasses.replace(given.train, batch_size=batch_size * jax.process_count()),
    seed=given.seed if shuffle_seed is None else shuffle_seed,
  )
  recipe = build_recipe(config)
  _, constants = recipe.prepare(jax.random.key(config.seed))
  batches = recipe.batches(start, _own_rows(config.train.batch_size))
  first = next(batches)
  inputs = {name: ((-1, *x.shape[1:]), x.dtype) for name, x in first.items()}
  shape, dtype = next(iter(inputs.values()))
  utils = load('scenic.dataset_lib.dataset_utils')

  def shards() -> Iterator[Any]:
    for batch in itertools.chain([first], batches):
      weights = np.ones(batch_size, np.float32)
      yield utils.shard({'inputs': batch, 'batch_mask': weights}, num_shards)

  return utils.Dataset(
    train_iter=shards(),
    meta_data={
      'input_shape': shape,
      'input_dtype': dtype,
      'num_eval_examples': 0,
      'recipe': Held(recipe, constants, given, inputs),
    },
  )
