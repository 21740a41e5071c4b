"""Numbers of a configuration that cannot be as small as somebody made them."""

import functools
from collections.abc import Mapping
from typing import Any


def check_counts(config: Any, least: Mapping[str, int]) -> None:
  """Refuses what would end a job amid its work, or leave nothing of it.

  Args:
    config: the whole configuration.
    least: the smallest number that a key may have, by its path.

  Raises:
    ValueError: one is smaller.
  """
  for path, smallest in least.items():
    value = functools.reduce(lambda node, part: node[part], path.split('.'), config)
    if value < smallest:
      raise ValueError(f'config.{path} is {value}, expected at least {smallest}')
