"""AdamW over ordered groups of parameters.

`groups` is an ordered list of (path pattern, learning-rate scale or None); the first
match wins, None freezes. `decay` likewise gives each trainable parameter's share of the
weight decay. A pattern that matches nothing, or a parameter without one, is an error.
"""

from collections.abc import Mapping
from typing import Any

import optax

from ovs_jax.core.schedule import build_schedule
from ovs_jax.core.tree import flatten, match_rules


def learning_rate_scales(config: Any, params: Mapping[str, Any]) -> dict[str, float]:
  """Returns the scale of every trainable parameter, by path.

  Raises:
    ValueError: the patterns do not fit the parameters, or freeze them all.
  """
  rules = match_rules(flatten(params), config.groups, what='config.optimizer.groups')
  scales = {path: scale for path, scale in rules.items() if scale is not None}
  if not scales:
    raise ValueError('config.optimizer.groups freezes every parameter')
  return scales


def build_optimizer(
  config: Any, scales: Mapping[str, float], steps: int
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
    optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps),
    optax.stateless(add_decay),
    optax.stateless(scale_groups),
    optax.scale_by_learning_rate(schedule),
  ]
  if config.gradient_clip is not None:
    steps_in_order.insert(0, optax.clip_by_global_norm(config.gradient_clip))
  return optax.chain(*steps_in_order), schedule
