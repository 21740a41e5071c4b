"""How long a training is, in steps or in epochs of the data that is there."""

from ovs_jax.core import hosts
from ovs_jax.core.errors import UserError
from ovs_jax.settings import Settings
from ovs_jax.train.recipes.recipe import Recipe


def steps_of(config: Settings, recipe: Recipe) -> int:
  """Returns the steps of `config.train`, and says them where epochs decide.

  Epochs have whole batches: what is left over of one is not shown.

  Raises:
    ValueError: neither steps nor epochs are given, or both, or an epoch is shorter than
      a batch.
  """
  c = config.train
  if bool(c.steps) == bool(c.epochs):
    raise UserError(
      f'config.train.steps is {c.steps} and config.train.epochs is {c.epochs}; give '
      'one of them and set the other to 0'
    )
  if c.steps:
    return c.steps
  examples = recipe.examples()
  steps = int(c.epochs * (examples // c.batch_size))
  if steps < 1:
    raise UserError(
      f'{c.epochs} epochs of {examples} examples are no whole batch of {c.batch_size}; '
      'lower config.train.batch_size or use more data'
    )
  if hosts.primary():
    print(
      f'{config.name}: {c.epochs:g} epochs of {examples:,} examples in batches of '
      f'{c.batch_size} are {steps:,} steps',
      flush=True,
    )
  return steps
