"""AdamW, or Muon, over ordered groups of parameters.

`groups` is an ordered list of (path pattern, learning-rate scale or None); the first
match wins, None freezes. `decay` likewise gives each trainable parameter's share of the
weight decay. A pattern that matches nothing, or a parameter without one, is an error.

`muon` is an ordered list of (path pattern, number of input axes or None), where -1 is
all axes but the last: what it names goes along the orthogonalised momentum, in steps as
large as Adam's would be; the rest and None stay with Adam. Layers stacked in one array
(of CLIP and Swin) are no single matrix: `stacked` has the patterns of their paths, and
their first axis is then none of the input axes.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import optax
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from ovs_jax.core.errors import UserError
from ovs_jax.core.schedule import build_schedule
from ovs_jax.core.tree import flatten, match_rules
from ovs_jax.settings import Optimizer

# The root mean square of Muon's updates: about what Adam's have (Liu et al. 2025, 2.2).
_MUON_RMS = 0.2


def learning_rate_scales(
  config: Optimizer, params: Mapping[str, Any]
) -> dict[str, float]:
  """Returns the scale of every trainable parameter, by path.

  Raises:
    ValueError: the patterns do not fit the parameters, or freeze them all.
  """
  rules = match_rules(flatten(params), config.groups, what='config.optimizer.groups')
  scales = {path: scale for path, scale in rules.items() if scale is not None}
  if not scales:
    raise UserError('config.optimizer.groups freezes every parameter')
  return scales


def build_optimizer(
  config: Optimizer, scales: Mapping[str, float], steps: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """Returns the transformation of {path: gradient} dicts, and the learning rate.

  Args:
    config: the section `config.optimizer`.
    scales: from `learning_rate_scales`.
    steps: length of the schedule.
  """
  schedule = build_schedule(
    config.schedule,
    config.learning_rate,
    steps,
    warmup=config.warmup,
    end=config.end,
    power=config.power,
  )
  decay = match_rules(
    scales, config.decay, what='config.optimizer.decay', allow_unused=True
  )

  def add_decay(updates: Any, params: Any) -> Any:
    return {
      path: update + config.weight_decay * decay[path] * params[path]
      if config.weight_decay * decay[path]
      else update
      for path, update in updates.items()
    }

  def scale_groups(updates: Any, params: Any) -> Any:
    del params
    return {path: update * scales[path] for path, update in updates.items()}

  steps_in_order = [
    _direction(config, scales),
    optax.stateless(add_decay),
    optax.stateless(scale_groups),
    optax.scale_by_learning_rate(schedule),
  ]
  if config.gradient_clip is not None:
    steps_in_order.insert(0, optax.clip_by_global_norm(config.gradient_clip))
  return optax.chain(*steps_in_order), schedule


def _direction(
  config: Optimizer, scales: Mapping[str, float]
) -> optax.GradientTransformation:
  """Adam; for the matrices that `config.muon` names, Muon."""
  adam = optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps)
  if not config.muon:
    return adam
  rules = (*config.muon, ('', None))
  inputs = match_rules(scales, rules, what='config.optimizer.muon', allow_unused=True)

  def matrices(updates: Mapping[str, Any]) -> list[tuple[str, int, int, Any]]:
    """Path, first input and first output axis, and value of what Adam does not move.

    The latter has been masked out.
    """
    found = []
    for path, x in updates.items():
      if hasattr(x, 'ndim'):
        first = int(any(re.search(pattern, path) for pattern in config.stacked))
        found.append((path, first, first + inputs[path] % (x.ndim - first), x))
    return found

  def numbers(updates: Mapping[str, Any]) -> dict[str, Any]:
    """The axes that each matrix maps from and to."""
    axes = {
      path: (tuple(range(first, split)), tuple(range(split, x.ndim)))
      for path, first, split, x in matrices(updates)
    }
    return {**updates, **{path: MuonDimensionNumbers(*x) for path, x in axes.items()}}

  def like_adam(updates: Mapping[str, Any], params: Any) -> dict[str, Any]:
    """Gives orthogonal matrices the same root mean square, whatever their shape."""
    del params
    scaled = dict(updates)
    for path, first, split, x in matrices(updates):
      side = max(math.prod(x.shape[first:split]), math.prod(x.shape[split:]))
      scaled[path] = _MUON_RMS * math.sqrt(side) * x
    return scaled

  muon = optax.chain(
    scale_by_muon(weight_dimension_numbers=numbers), optax.stateless(like_adam)
  )
  labels = {path: 'adam' if n is None else 'muon' for path, n in inputs.items()}
  return optax.partition({'adam': adam, 'muon': muon}, labels)
