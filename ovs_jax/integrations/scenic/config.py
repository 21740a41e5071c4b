"""A configuration of `configs/` in the form of Scenic's main and trainers.

`--config=ovs_jax/integrations/scenic/config.py:NAME` takes configs/NAME.py, and what
follows a second colon is its argument. Keys that both have are one: changing
`--config.dataset_configs.train.steps` changes `num_training_steps`.
"""

import importlib

import ml_collections

from ovs_jax.core.errors import UserError
from ovs_jax.integrations.scenic.optimizer import NAME


def get_config(arg: str = 'scenes:clip') -> ml_collections.ConfigDict:
  """Returns Scenic's keys around those of a file of `configs/`.

  Raises:
    ValueError: it is not the training of a recipe.
  """
  name, _, argument = arg.partition(':')
  return wrap(importlib.import_module(f'configs.{name}').get_config(argument))


def wrap(settings: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Returns Scenic's keys around a recipe's.

  Raises:
    ValueError: there is no recipe.
  """
  if not settings.recipe:
    raise UserError(
      f'{settings.name!r} is not the training of a recipe but a {settings.mode!r}'
    )
  train = settings.train
  config = ml_collections.ConfigDict()
  config.experiment_name = settings.name
  config.dataset_name = 'ovs_jax'
  config.dataset_configs = settings
  config.data_dtype_str = 'float32'  # of data sets that are not a recipe's
  config.rng_seed = settings.get_ref('seed')
  config.batch_size = train.get_ref('batch_size')
  config.num_training_steps = train.get_ref('steps')
  config.optimizer_configs = ml_collections.ConfigDict({'optimizer': NAME})
  config.lr_configs = ml_collections.ConfigDict({'learning_rate_schedule': NAME})
  config.lr_configs.base_learning_rate = settings.optimizer.get_ref('learning_rate')
  config.lr_configs.config = settings
  config.log_summary_steps = train.get_ref('log_every')
  config.log_eval_steps = train.get_ref('steps')  # there is nothing to evaluate on
  config.checkpoint = True
  config.checkpoint_steps = train.get_ref('save_every')
  config.max_checkpoint_keep = train.get_ref('keep')
  config.debug_train = False
  config.debug_eval = False
  config.xprof = False  # a trace of Scenic's first steps
  return config
