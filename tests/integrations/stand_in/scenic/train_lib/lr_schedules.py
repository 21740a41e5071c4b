"""Schedules come from a table, and have a base."""

import jax.numpy as jnp

lr_fn_dict = {}


def get_learning_rate_fn(config):
  if 'base_learning_rate' not in config.lr_configs:
    raise ValueError('no base_learning_rate')
  if 'learning_rate_schedule' not in config.lr_configs:
    return lambda step: jnp.float32(config.lr_configs.base_learning_rate)
  return lr_fn_dict[config.lr_configs['learning_rate_schedule']](config.lr_configs)
