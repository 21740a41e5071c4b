"""Settings of an OVSeg that are tried on training data, of which the best is told."""

import dataclasses
import itertools
from collections.abc import Iterable

from ovs_jax.core.errors import UserError
from ovs_jax.evaluate.network import Setting
from ovs_jax.settings import Suite


def settings_of(suite: Suite, own: Setting, clips: int) -> list[Setting]:
  """Returns what is tried: lambdas, weights of CLIPs, or each with each.

  Args:
    suite: `config.suite`.
    own: the model's setting.
    clips: how many it has.

  Raises:
    ValueError: weights are to be tried, and there is one CLIP.
  """
  lambdas = [Setting('ensemble', weight) for weight in suite.search]
  if not suite.search_clips:
    return lambdas
  if clips == 1:
    raise UserError(
      f'config.suite.search_clips {suite.search_clips} divides the weight among '
      'several CLIPs, and this OVSeg has one; give more with config.test.clips, or '
      'leave it out'
    )
  return [
    dataclasses.replace(setting, clips=shares)
    for setting in lambdas or [own]
    for shares in divisions(suite.search_clips, clips)
  ]


def names_of(suite: Suite, methods: Iterable[str]) -> list[str]:
  """Returns the names of those methods that were tried."""
  lambdas = [Setting('ensemble', weight).name for weight in suite.search]
  if suite.search_clips:
    return [name for name in methods if '_clips_' in name]
  return [name for name in methods if name in lambdas]


def divisions(parts: int, shares: int) -> list[tuple[float, ...]]:
  """Returns all ways to divide 1 in `parts` equal parts among so many shares."""
  places = range(parts + shares - 1)
  found = []
  for bars in itertools.combinations(places, shares - 1):  # between the parts
    edges = (-1, *bars, parts + shares - 1)
    counts = (b - a - 1 for a, b in itertools.pairwise(edges))
    found.append(tuple(count / parts for count in counts))
  return found
