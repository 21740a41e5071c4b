"""Least values of numbers in a configuration."""

import functools
from collections.abc import Mapping
from typing import Any

from ovs_jax.core.errors import UserError


def check_counts(config: Any, least: Mapping[str, int]) -> None:
  """Refuses numbers that are too small for a job to finish or to have a result.

  Args:
    config: the whole configuration.
    least: the smallest number that a key may have, by its path.

  Raises:
    ValueError: one is smaller.
  """
  for path, smallest in least.items():
    value = functools.reduce(lambda node, part: node[part], path.split('.'), config)
    if value < smallest:
      raise UserError(f'config.{path} is {value}, expected at least {smallest}')
