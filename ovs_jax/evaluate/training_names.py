"""Whether an evaluation takes the class list of training for what it was."""

from collections.abc import Mapping, Sequence

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import local
from ovs_jax.core.lookup import did_you_mean
from ovs_jax.settings import Settings
from ovs_jax.text import vocabulary
from ovs_jax.text.classes import read_names


def training_list(given: str) -> vocabulary.Vocabulary:
  """Returns the list `config.suite.training`: of this package, or a file of one's own.

  Raises:
    FileNotFoundError, ValueError: it is neither.
  """
  if given in vocabulary.known():
    return vocabulary.load(given)
  if not local(given).exists():
    near = did_you_mean(given, vocabulary.known())
    raise FileNotFoundError(
      f'config.suite.training={given} is no file of names, and no list of '
      f'{", ".join(vocabulary.known())}.{near}'
    )
  return vocabulary.own(given, read_names(given).names)


def check_training(
  config: Settings,
  trained: Mapping[str, str] | None,
  evaluated: Sequence[vocabulary.Vocabulary],
) -> str | None:
  """Compares `suite.training` with the class list that the checkpoint names.

  Where the evaluated lists say themselves what is seen, nothing depends on it.

  Args:
    config: of the evaluation.
    trained: `name` and `sha256` of the checkpoint's list; None if it does not say.
    evaluated: class lists.

  Returns:
    What a report has to say about it: that it could not be compared, and why.

  Raises:
    ValueError: they are different lists of this package.
  """
  if all(any(names.splits) for names in evaluated):
    return None
  given = training_list(config.suite.training)
  taken = f'The groups of classes take them to be those of {given.name}.'
  if trained is None:
    return f'The checkpoint does not say with which names it was trained. {taken}'
  if trained['sha256'] == given.sha256:
    return None
  kinds = [f'{x["name"]} (sha256 {x["sha256"]})' for x in (given.identity(), trained)]
  known = vocabulary.known()
  if trained['name'] not in known or given.name not in known:
    names = 'the names' if trained['name'] in known else 'names of its own,'
    return f'The checkpoint was trained with {names} {kinds[1]}. {taken}'
  raise UserError(
    f'config.suite.training is {kinds[0]}, but the checkpoint '
    f'{config.eval.checkpoint} was trained with {kinds[1]}: classes would be called '
    f'seen that are not. Set --config.suite.training={trained["name"]}; if that is its '
    'value, the list has changed since: train again, or evaluate with that version'
  )
