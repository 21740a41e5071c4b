"""A recipe as a model of Scenic's trainers.

What Scenic trains, `params`, are the parameters that the recipe's groups train. The
frozen ones are in `batch_stats`, the one collection that Scenic carries along without
an optimizer: none can move or decay them.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import core

from ovs_jax.core.errors import UserError
from ovs_jax.core.tree import flatten, unflatten
from ovs_jax.core.types import Array, Batch, Constants, Metrics, Params
from ovs_jax.integrations.scenic.checkout import load
from ovs_jax.integrations.scenic.optimizer import PARAMS
from ovs_jax.settings import Settings
from ovs_jax.train.optimizer import learning_rate_scales
from ovs_jax.train.recipes import Recipe, make_recipe
from ovs_jax.train.state import merge_params, split_params

# The axis over which Scenic's trainers map a step.
AXIS = 'batch'
# What our loop does and Scenic's do not, with the value that asks for nothing.
_OURS_ALONE = {
  'train.epochs': 0.0,
  'train.accumulate': 1,
  'train.ema': 0.0,
  'train.skip_not_finite': 0,
  'train.profile': 0,
  'train.writers': (),
  'adapt.evaluate_every': 0,
  'mesh.model': 1,
  'mesh.fsdp': False,
}
# Keys of Scenic that repeat one of the recipe.
_REPEATED = {
  'batch_size': 'train.batch_size',
  'num_training_steps': 'train.steps',
  'rng_seed': 'seed',
}


@dataclasses.dataclass(frozen=True)
class Held:
  """A recipe that the data set and the model of a run share.

  Attributes:
    recipe: what is trained.
    constants: of its loss.
    config: its configuration.
    inputs: shape (-1, ...) and type of each array of a batch.
  """

  recipe: Recipe
  constants: Constants
  config: Settings
  inputs: Mapping[str, tuple[tuple[int, ...], Any]]

  def __hash__(self) -> int:
    """By identity, for Flax and JAX."""
    return id(self)


def build_recipe(config: Settings) -> Recipe:
  """Returns the recipe of a configuration, which sees the rows of all devices.

  Raises:
    ValueError: see `make_recipe`.
  """
  recipe = make_recipe(config)
  if recipe.all_rows is not None:
    recipe.all_rows = all_rows
  return recipe


def all_rows(rows: Array) -> Array:
  """Returns the rows of all devices in a step that Scenic maps over them.

  Each device then has the loss of the whole batch, and the mean of the gradients,
  which Scenic takes, is that of one device with all rows.
  """
  return jax.lax.all_gather(rows, AXIS, tiled=True) if _devices() else rows


def _devices() -> int:
  """Over how many devices the current step is mapped; 0: not at all."""
  try:
    return jax.lax.psum(1, AXIS)
  except NameError:  # what JAX raises for an axis that there is not
    return 0


class RecipeModule(nn.Module):
  """A recipe as a Flax module: from its batch to its loss and metrics."""

  held: Held

  @nn.compact
  def __call__(
    self, inputs: Any, *, train: bool = False, debug: bool = False
  ) -> tuple[Array, Metrics]:
    """Returns the loss of a batch of `Recipe.batches`, and what is logged beside it.

    Parameters are drawn from the recipe's seed, as in our own loop. The random stream
    `dropout` is needed in training only.

    Args:
      inputs: the batch; or one array of as many rows, with which Scenic initialises
        and counts operations, for a batch of zeros.
      train: whether the recipe's randomness is wanted.
      debug: not used.

    Raises:
      ValueError: the step is mapped over several devices, each with its own part of
        the batch, and the recipe's loss needs all of it.
    """
    del debug
    recipe, config = self.held.recipe, self.held.config
    if self.is_initializing():
      params, _ = recipe.prepare(jax.random.key(config.seed))
      trained = set(learning_rate_scales(config.optimizer, params))
      trainable, frozen = split_params(params, trained)
      self.put_variable('params', PARAMS, unflatten(trainable))
      if frozen:
        self.put_variable('batch_stats', PARAMS, unflatten(frozen))
      return jnp.zeros(()), {}
    if not isinstance(inputs, Mapping):
      inputs = self._zeros(inputs.shape[0])
    devices = _devices()
    if devices > 1 and recipe.all_rows is None:
      raise UserError(
        f'the loss of the recipe {config.recipe!r} is over the whole batch, of which '
        f"each of the {devices} devices has a part in Scenic's trainers; train it with "
        'ovs_jax.main, or on one device'
      )
    params = _bounded(recipe, _merged(self.variables))
    key = self.make_rng('dropout') if train else jax.random.key(0)
    return recipe.loss(params, self.held.constants, dict(inputs), key)

  def _zeros(self, rows: int) -> Batch:
    return {
      name: jnp.zeros((rows, *shape[1:]), dtype)
      for name, (shape, dtype) in self.held.inputs.items()
    }


def model_params(recipe: Recipe, state: Any) -> Params:
  """Returns all parameters of a train state of Scenic, within their bounds."""
  return recipe.project(_merged({'params': state.params, **state.model_state}))


def _merged(variables: Any) -> Params:
  variables = core.unfreeze(variables)
  parts = [variables.get(name, {}) for name in ('params', 'batch_stats')]
  return merge_params(*(flatten(part.get(PARAMS, {})) for part in parts))


def _bounded(recipe: Recipe, params: Params) -> Params:
  """Uses parameters within their bounds, where another optimizer left them."""

  def use(x: Array, bounded: Array) -> Array:
    return x if bounded is x else x + jax.lax.stop_gradient(bounded - x)

  return jax.tree.map(use, params, recipe.project(params))


def model_class() -> type:
  """Returns a class of Scenic models, made from a trainer's configuration.

  What `flax_model` returns is `(loss, metrics)`, which the others take apart.

  Raises:
    ImportError: Scenic is not there, or PyPI's project of the same name is.
  """
  base = load('scenic.model_lib.base_models.base_model').BaseModel

  class RecipeModel(base):
    """The recipe of `config.dataset_configs`, of the data set's own instance."""

    def build_flax_model(self) -> nn.Module:
      check_config(self.config)
      if 'recipe' not in self.dataset_meta_data:
        raise UserError(
          "the data set is not that of a recipe; set config.dataset_name='ovs_jax'"
        )
      return RecipeModule(self.dataset_meta_data['recipe'])

    def loss_function(self, logits: Any, batch: Any, model_params: Any = None) -> Array:
      del batch, model_params
      return logits[0]

    def get_metrics_fn(self, split: str | None = None) -> Callable[..., Any]:
      """(sum, count) over all devices, as Scenic's trainers read them."""
      del split
      return metrics_of

    def get_metrics_fn_jit(self, split: str | None = None) -> Callable[..., Any]:
      del split
      return metrics_of

    def default_flax_model_config(self) -> Any:
      raise UserError('give a configuration whose dataset_configs have a recipe')

  return RecipeModel


def check_config(config: Any) -> None:
  """Refuses what a trainer of Scenic would leave out without a word.

  Raises:
    ValueError: there is no recipe where a trainer's configuration has it, a key of
      Scenic says something else than the recipe's, or the recipe asks for what only
      our own loop does.
  """
  settings = config.get('dataset_configs')
  if settings is None or not settings.get('recipe'):
    raise UserError(
      'config.dataset_configs is not a configuration of configs/ with a recipe; keys '
      'of Scenic and of a recipe have the same names and cannot be on one level'
    )
  for key, path in _REPEATED.items():
    expected = _get(settings, path)
    if config.get(key) != expected:
      raise UserError(
        f'config.{key} is {config.get(key)} and config.dataset_configs.{path} is '
        f'{expected}; give both the same value'
      )
  for path, nothing in _OURS_ALONE.items():
    if _get(settings, path) != nothing:
      raise UserError(
        f'config.dataset_configs.{path} is {_get(settings, path)}, which a trainer of '
        f'Scenic does not do; set it to {nothing!r} or train with ovs_jax.main'
      )


def _get(settings: Any, path: str) -> Any:
  for name in path.split('.'):
    settings = settings[name]
  return settings


def metrics_of(logits: Any, batch: Any) -> dict[str, tuple[Array, Array]]:
  """Returns sum and count of the loss and of what is logged, over all devices.

  Args:
    logits: what the module returns.
    batch: with `batch_mask` (b,).
  """
  count = batch['batch_mask'].sum()
  loss, metrics = logits
  sums = {k: (v * count, count) for k, v in {**metrics, 'loss': loss}.items()}
  return jax.lax.psum(sums, AXIS) if _devices() else sums
