"""Optimizers come from optax, by name; all other keys are arguments."""

import optax


def get_optimizer(optimizer_config, learning_rate_fn, params):
  del params
  arguments = optimizer_config.to_dict()
  make = getattr(optax, arguments.pop('optimizer'))
  return make(learning_rate=learning_rate_fn, **arguments)
