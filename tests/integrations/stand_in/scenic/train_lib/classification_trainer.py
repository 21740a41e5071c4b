"""A step mapped over the devices, each with its own rows; then the loop."""

import functools

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import jax_utils

from scenic.train_lib import lr_schedules, optimizers, train_utils

flax.config.update('flax_use_orbax_checkpointing', False)


def train_step(state, batch, *, flax_model, loss_fn, metrics_fn, lr_fn):
  rng, key = jax.random.split(state.rng)
  key = jax.random.fold_in(key, jax.lax.axis_index('batch'))

  def loss(params):
    logits, model_state = flax_model.apply(
      {'params': params, **state.model_state},
      batch['inputs'],
      mutable=['batch_stats'],
      train=True,
      rngs={'dropout': key},
      debug=False,
    )
    return loss_fn(logits, batch, params), (model_state, logits)

  gradient, (model_state, logits) = jax.grad(loss, has_aux=True)(state.params)
  gradient = jax.lax.pmean(gradient, axis_name='batch')
  updates, moments = state.tx.update(gradient, state.opt_state, state.params)
  new = state.replace(
    global_step=state.global_step + 1,
    opt_state=moments,
    params=optax.apply_updates(state.params, updates),
    model_state=model_state,
    rng=rng,
  )
  rate = lr_fn(jnp.asarray([state.global_step]))
  return new, metrics_fn(logits, batch), {'learning_rate': rate}


def train(*, rng, config, model_cls, dataset, workdir, writer):
  model = model_cls(config, dataset.meta_data)
  spec = (
    dataset.meta_data['input_shape'],
    dataset.meta_data.get('input_dtype', jnp.float32),
  )
  params, model_state = train_utils.initialize_model(
    model_def=model.flax_model, input_spec=[spec], config=config, rngs=rng
  )
  lr_fn = lr_schedules.get_learning_rate_fn(config)
  tx = optimizers.get_optimizer(config.optimizer_configs, lr_fn, params=params)
  state = train_utils.TrainState(
    tx, jax.jit(tx.init)(params), params, 0, model_state, rng
  )
  start = 0
  if config.checkpoint:
    state, start = train_utils.restore_checkpoint(workdir, state)
  state = jax_utils.replicate(state)
  step_function = functools.partial(
    train_step,
    flax_model=model.flax_model,
    loss_fn=model.loss_function,
    metrics_fn=model.get_metrics_fn('train'),
    lr_fn=lr_fn,
  )
  mapped = jax.pmap(step_function, axis_name='batch', donate_argnums=(0, 1))
  total = config.num_training_steps
  for step in range(start + 1, total + 1):
    state, sums, logs = mapped(state, next(dataset.train_iter))
    # Of the first device alone: the sums are over all.
    sums, logs = jax.device_get(jax_utils.unreplicate((sums, logs)))
    means = {name: value / count for name, (value, count) in sums.items()}
    writer.write_scalars(step, {**means, **{k: np.mean(x) for k, x in logs.items()}})
    if config.checkpoint and (step % config.checkpoint_steps == 1 or step == total):
      train_utils.save_checkpoint(
        workdir, jax_utils.unreplicate(state), config.max_checkpoint_keep
      )
  return state, means, {}
