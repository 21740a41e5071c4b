"""A recipe's schedule and optimizer under the names by which Scenic finds them.

Scenic takes schedules from a table and optimizers from optax, by name: both get the
name `ovs_jax`. A trainer then moves the parameters as `train.loop` does: by groups,
with the recipe's own bounds.
"""

import dataclasses
from typing import Any

import jax
import optax
from flax import core

from ovs_jax.core.errors import UserError
from ovs_jax.core.tree import flatten, match_rules, unflatten
from ovs_jax.core.types import Array
from ovs_jax.integrations.scenic.checkout import load
from ovs_jax.settings import Settings
from ovs_jax.train.optimizer import build_optimizer
from ovs_jax.train.recipes import make_recipe

NAME = 'ovs_jax'
PARAMS = 'recipe'  # the one entry of Scenic's parameters


@dataclasses.dataclass(frozen=True)
class RecipeSchedule:
  """The learning rate by step.

  Attributes:
    config: of the recipe.
  """

  config: Settings

  def __call__(self, step: Any) -> Array:
    """Returns the rate of the 0-based step, in its shape."""
    _, schedule = build_optimizer(self.config.optimizer, {}, self.config.train.steps)
    return schedule(step)


def recipe_optimizer(learning_rate: Any) -> optax.GradientTransformation:
  """Returns the optimizer of a recipe, as Scenic asks optax for one.

  Args:
    learning_rate: the `RecipeSchedule` that `lr_configs` gives.

  Raises:
    ValueError: `lr_configs` gives another schedule.
  """
  if not isinstance(learning_rate, RecipeSchedule):
    raise UserError(
      f"config.optimizer_configs.optimizer={NAME!r} has the recipe's own learning "
      f'rate; set config.lr_configs.learning_rate_schedule={NAME!r}'
    )
  config = learning_rate.config
  recipe = make_recipe(config)

  def optimizer(leaves: dict[str, Array]) -> optax.GradientTransformation:
    scales = match_rules(
      leaves, config.optimizer.groups, what='config.optimizer.groups', allow_unused=True
    )
    return build_optimizer(config.optimizer, scales, config.train.steps)[0]

  def init(params: Any) -> Any:
    leaves = _leaves(params)
    return optimizer(leaves).init(leaves)

  def update(gradients: Any, state: Any, params: Any) -> tuple[Any, Any]:
    leaves = _leaves(params)
    updates, state = optimizer(leaves).update(_leaves(gradients), state, leaves)
    moved = {path: x + updates[path] for path, x in leaves.items()}
    bounded = flatten(recipe.project(unflatten(moved)))
    for path, x in moved.items():
      if bounded[path] is not x:
        updates[path] = bounded[path] - leaves[path]
    tree = {PARAMS: unflatten(updates)}
    return jax.tree.unflatten(jax.tree.structure(params), jax.tree.leaves(tree)), state

  return optax.GradientTransformation(init, update)


def _leaves(tree: Any) -> dict[str, Array]:
  return flatten(core.unfreeze(tree)[PARAMS])


def register_optimizer() -> None:
  """Makes both known to Scenic."""
  load('scenic.train_lib.lr_schedules').lr_fn_dict[NAME] = lambda lr_configs: (
    RecipeSchedule(Settings.of(lr_configs.config))
  )
  load('scenic.train_lib.optimizers').optax.ovs_jax = recipe_optimizer
