"""What can be trained. A recipe is a model, its data and its loss."""

from collections.abc import Callable

from ovs_jax.core.errors import UserError
from ovs_jax.core.lookup import lookup
from ovs_jax.settings import Settings
from ovs_jax.train.recipes.clip_pretrain import ClipPretrain
from ovs_jax.train.recipes.clip_regions import ClipRegions
from ovs_jax.train.recipes.clipseg import ClipSegTraining
from ovs_jax.train.recipes.coseg import CoSegTraining
from ovs_jax.train.recipes.proposer import Proposer
from ovs_jax.train.recipes.recipe import Recipe

RECIPES: dict[str, Callable[[Settings], Recipe]] = {
  'clip_pretrain': ClipPretrain,
  'clip_regions': ClipRegions,
  'clipseg': ClipSegTraining,
  'coseg': CoSegTraining,
  'proposer': Proposer,
}


def make_recipe(config: Settings) -> Recipe:
  """Returns the recipe of a configuration.

  Raises:
    ValueError: it is unknown, refuses its settings, or has no evaluation and is asked
      for one.
  """
  recipe = lookup(RECIPES, config.recipe, 'recipe')(config)
  chooses = isinstance(recipe, Proposer | ClipSegTraining)  # by photos, not crops
  if config.adapt.evaluate_every and (chooses or not recipe.evaluate_every):
    raise UserError(
      f'the recipe {config.recipe!r} has no evaluation during training; set '
      'config.adapt.evaluate_every=0'
    )
  if config.train.choose and not chooses:
    raise UserError(
      'config.train.choose is of the recipes proposer and clipseg, and not of '
      f"{config.recipe!r}; set it to ''"
    )
  if config.train.patience and not recipe.evaluate_every:
    raise UserError(
      'config.train.patience counts evaluations, and there are none; set '
      'config.train.choose or config.adapt.evaluate_every, or patience=0'
    )
  return recipe
