"""Parts of trainers."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import core, struct
from flax.training import checkpoints

from scenic.dataset_lib import datasets


@struct.dataclass
class TrainState:
  tx: Any = struct.field(default=None, pytree_node=False)
  opt_state: Any = None
  params: Any = None
  global_step: Any = 0
  model_state: Any = None
  rng: Any = None


def get_dataset(config, data_rng, *, dataset_service_address=None, **kwargs):
  for key in ('batch_size', 'eval_batch_size'):
    if config.get(key, config.batch_size) % jax.device_count():
      raise ValueError(f'{key} must be divisible by the number of devices')
  return datasets.DatasetRegistry.get(config.dataset_name)(
    batch_size=config.batch_size // jax.process_count(),
    eval_batch_size=config.get('eval_batch_size', config.batch_size),
    num_shards=jax.local_device_count(),
    dtype_str=config.data_dtype_str,
    rng=data_rng,
    shuffle_seed=config.get('shuffle_seed', None),
    dataset_configs=config.get('dataset_configs', {}),
    dataset_service_address=dataset_service_address,
    **kwargs,
  )


def initialize_model(*, model_def, input_spec, config, rngs):
  """With one array for each spec, and not under jit; then counts operations."""

  def zeros(rows):
    return [jnp.zeros((rows, *shape[1:]), dtype) for shape, dtype in input_spec]

  variables = model_def.init(
    {'params': rngs},
    *zeros(config.batch_size // jax.device_count()),
    train=False,
    debug=False,
  )
  state, params = core.pop(core.freeze(variables), 'params')
  if config.get('count_flops', True):
    apply = functools.partial(model_def.apply, train=False, debug=False)
    jax.eval_shape(apply, {'params': params, **state}, *zeros(1))
  return params, state


def checkpoint_path_step(path):
  return float(path.rsplit('_', 1)[1])


def restore_checkpoint(workdir, state):
  state = checkpoints.restore_checkpoint(workdir, state)
  return state, int(state.global_step)


def save_checkpoint(workdir, state, keep):
  step = int(state.global_step)
  checkpoints.save_checkpoint(workdir, jax.device_get(state), step, keep=keep)
