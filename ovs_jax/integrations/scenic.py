"""google-research's Scenic: our data sets in its registry, our recipes as its models.

Scenic has no release: clone https://github.com/google-research/scenic (this was written
for commit 4a38d475) and put it on PYTHONPATH. PyPI's `scenic` is another project.

    from ovs_jax.integrations import scenic
    scenic.register()  # 'ovs_jax/voc_20', ..., and 'ovs_jax' for the data of a recipe
    Model = scenic.model_class()  # Model(config, meta_data) is a scenic BaseModel

A trainer of Scenic then gets its batches from `get_dataset('ovs_jax')`, with a
configuration of `configs/` as `dataset_configs`, and trains `Model` on `inputs`.
"""

import dataclasses
import functools
import importlib
import importlib.util
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import ml_collections
import numpy as np

from ovs_jax.core.lookup import lookup
from ovs_jax.core.types import VOID, Array, Batch, Metrics, Params
from ovs_jax.data import DATASETS, augment, load_dataset, load_names, transforms
from ovs_jax.data.pipeline import eval_batches, train_batches
from ovs_jax.train.recipes import RECIPES, Recipe

_SIDE = 512  # of images, unless `dataset_configs.size` says otherwise


def load(name: str) -> Any:
  """Returns a module of Scenic.

  Raises:
    ImportError: Scenic is not there, or PyPI's project of the same name is.
  """
  if importlib.util.find_spec('scenic') is None:
    raise ImportError(
      'google-research/scenic is not on PYTHONPATH; clone '
      'https://github.com/google-research/scenic and add the clone to PYTHONPATH'
    )
  if importlib.util.find_spec('scenic.train_lib') is None:
    raise ImportError(
      "the module 'scenic' that Python finds is not google-research/scenic, but "
      "probably PyPI's package of that name, which describes driving scenarios; pip "
      'uninstall scenic, clone https://github.com/google-research/scenic and add the '
      'clone to PYTHONPATH'
    )
  return importlib.import_module(name)


def register() -> list[str]:
  """Adds our data sets to Scenic's registry; returns their names there.

  Every data set with label maps is `ovs_jax/<name>`. `ovs_jax` alone gives the batches
  of the recipe whose configuration is in `dataset_configs`.

  Raises:
    ImportError: see `load`.
  """
  registry = load('scenic.dataset_lib.datasets').DatasetRegistry
  builders = {
    f'ovs_jax/{name}': functools.partial(segmentation_dataset, name)
    for name, dataset in DATASETS.items()
    # Captions alone have no label maps; Scenic's padding needs a void of 8 bits.
    if name != 'coco_captions_2017' and dataset.void == VOID
  }
  builders['ovs_jax'] = recipe_dataset
  known = set(registry.list())
  for name, builder in builders.items():
    if name not in known:
      registry.add(name, builder)
  return sorted(builders)


def segmentation_dataset(
  name: str,
  *,
  batch_size: int,
  eval_batch_size: int,
  num_shards: int,
  dtype_str: str = 'float32',
  shuffle_seed: int = 0,
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
    shuffle_seed: of the training order.
    rng: not used; the order follows from the seed.
    dataset_configs: `variant`, `data_dir`, `size` (side of the square images),
      `train_split`, `valid_split`; all optional.
    dataset_service_address: not used.
  """
  del rng, dataset_service_address
  settings = _settings(dataset_configs)
  config = ml_collections.ConfigDict({'name': name, **settings})
  _, builder = load_dataset(config)
  train, valid = _batches(builder, config, batch_size, eval_batch_size, shuffle_seed)
  utils = load('scenic.dataset_lib.dataset_utils')

  def shards(batches: Iterator[dict[str, np.ndarray]]) -> Iterator[Any]:
    for batch in batches:
      yield utils.shard(_for_scenic(batch, dtype_str), num_shards)

  names = load_names(config).names
  splits = builder.info.splits
  return utils.Dataset(
    train_iter=shards(train),
    valid_iter=shards(valid),
    meta_data={
      'num_classes': len(names),
      'class_names': list(names),
      'input_shape': (-1, config.size, config.size, 3),
      'input_dtype': np.dtype(dtype_str),
      'num_train_examples': splits[config.train_split].num_examples,
      'num_eval_examples': splits[config.valid_split].num_examples,
      'target_is_onehot': False,
    },
  )


def _batches(
  builder: Any, config: Any, batch_size: int, eval_batch_size: int, seed: int
) -> tuple[Iterator[dict[str, np.ndarray]], Iterator[dict[str, np.ndarray]]]:
  """Training and validation, both without end."""
  steps = [
    augment.scale_jitter((config.size,), config.size),
    augment.pad_square(config.size),
    transforms.keep('image', 'label'),
  ]
  place = {'process_index': jax.process_index(), 'process_count': jax.process_count()}
  train = train_batches(
    builder,
    config.train_split,
    [steps[0], transforms.random_flip, *steps[1:]],
    batch_size=batch_size * jax.process_count(),
    seed=seed,
    start=0,
    **place,
  )

  def valid() -> Iterator[dict[str, np.ndarray]]:
    """Scenic asks for as many batches as there are, again and again."""
    while True:
      yield from eval_batches(
        builder, config.valid_split, steps, batch_size=eval_batch_size, **place
      )

  return train, valid()


def _settings(given: Any) -> dict[str, Any]:
  """The defaults with the given values in their place.

  Raises:
    ValueError: an unknown key.
  """
  settings = {
    'variant': 'default',
    'data_dir': '~/.cache/ovs_jax/data',
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
  known = batch['label'] != VOID
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
  shuffle_seed: int = 0,
  rng: Any = None,
  dataset_configs: Any = None,
  dataset_service_address: str | None = None,
) -> Any:
  """The batches of a recipe, whole, as `inputs`.

  Args:
    batch_size: of a host; replaces that of the configuration.
    eval_batch_size: not used: recipes have training data only.
    num_shards: local devices.
    dtype_str: not used; the recipe says.
    shuffle_seed: replaces the configuration's seed.
    rng: not used.
    dataset_configs: a configuration of `configs/`.
    dataset_service_address: not used.

  Raises:
    ValueError: there is no configuration.
  """
  del eval_batch_size, dtype_str, rng, dataset_service_address
  if dataset_configs is None or 'recipe' not in dataset_configs:
    raise ValueError('dataset_configs is not a configuration of configs/ with a recipe')
  config = dataset_configs.copy_and_resolve_references()
  with config.unlocked():
    config.train.batch_size = batch_size * jax.process_count()
    config.seed = shuffle_seed
  recipe = _recipe(config)
  utils = load('scenic.dataset_lib.dataset_utils')

  def batches() -> Iterator[Any]:
    for batch in recipe.batches(0):
      weights = np.ones(batch_size, np.float32)
      yield utils.shard({'inputs': batch, 'batch_mask': weights}, num_shards)

  _, builder = load_dataset(config.dataset)
  split = config.train.split
  return utils.Dataset(
    train_iter=batches(),
    meta_data={
      'num_train_examples': builder.info.splits[split].num_examples,
      'num_eval_examples': 0,
      'recipe': config.recipe,
    },
  )


def _recipe(config: Any) -> Recipe:
  return lookup(RECIPES, config.recipe, 'recipe')(config)


@dataclasses.dataclass(frozen=True)
class _Held:
  """Keeps a recipe whole: Flax would look for modules inside it."""

  recipe: Recipe

  def __hash__(self) -> int:
    return id(self.recipe)


class RecipeModule(nn.Module):
  """A recipe as a Flax module: from its batch to its loss and metrics."""

  held: _Held

  @nn.compact
  def __call__(
    self, inputs: Batch, *, train: bool = False, debug: bool = False
  ) -> tuple[Array, Metrics]:
    """Returns the loss of a batch of `Recipe.batches`, and what is logged beside it.

    The random stream `dropout` is needed in training only.
    """
    del debug
    params: Params = self.param('recipe', self.held.recipe.init)
    key = self.make_rng('dropout') if train else jax.random.key(0)
    return self.held.recipe.loss(params, inputs, key)


def model_class() -> type:
  """Returns a class of Scenic models, made from a configuration of `configs/`.

  Raises:
    ImportError: see `load`.
  """
  base = load('scenic.model_lib.base_models.base_model').BaseModel

  class RecipeModel(base):
    """What `flax_model` returns is `(loss, metrics)`, which the others take apart."""

    def build_flax_model(self) -> nn.Module:
      return RecipeModule(_Held(_recipe(self.config)))

    def loss_function(self, logits: Any, batch: Any, model_params: Any = None) -> Array:
      del batch, model_params
      return logits[0]

    def get_metrics_fn(self, split: str | None = None) -> Any:
      """Per-device (sum, count); Scenic's pmap trainers add them up themselves."""
      del split
      return _metrics

    def get_metrics_fn_jit(self, split: str | None = None) -> Any:
      del split
      return _metrics

    def default_flax_model_config(self) -> Any:
      raise ValueError('give a configuration of configs/ that has a recipe')

  return RecipeModel


def _metrics(logits: Any, batch: Any) -> dict[str, tuple[Array, Array]]:
  count = batch['batch_mask'].sum()
  loss, metrics = logits
  return {k: (v * count, count) for k, v in {**metrics, 'loss': loss}.items()}
