"""Names that have nothing to do with a data set, to see how much they disturb.

They come from the class lists of the benchmarks, without those that share a word with
any class of the data set; and where more are asked for, from the same names behind one
or two adjectives ("old wooden accordion"). The order is that of their SHA-256: the same
names on every machine, and the first 100 are among the first 1,000.
"""

import functools
import hashlib
import itertools
from collections.abc import Sequence

import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.types import Float, Int
from ovs_jax.evaluate.similarity import plain_names
from ovs_jax.text import vocabulary

_AGES = tuple(
  'old new broken dirty clean empty heavy cheap dusty rusty shiny ugly'.split()
)
_MADE_OF = tuple(
  'wooden plastic metal glass paper stone leather rubber golden woollen concrete '
  'ceramic velvet bamboo copper marble cotton porcelain'.split()
)
_ADJECTIVES = (
  tuple((x,) for x in _AGES + _MADE_OF),
  tuple(itertools.product(_AGES, _MADE_OF)),
)
_OTHER = ('scenes',)  # lists whose names are no everyday things
_NO_THINGS = {'unknown', 'background', 'others', 'other'}


def distractors(classes: Sequence[str], count: int) -> tuple[str, ...]:
  """Returns `count` names that share no word with the classes.

  Args:
    classes: all names of the data set, synonyms too.
    count: how many.

  Raises:
    ValueError: there are not so many.
  """
  taken = {word for name in classes for word in _words(name)}

  def free(names: Sequence[str]) -> list[str]:
    left = [name for name in names if not _words(name) & taken]
    return sorted(left, key=lambda x: hashlib.sha256(x.encode()).digest())

  bases = free(_bases())
  found = bases[:count]
  for adjectives in _ADJECTIVES:
    if len(found) < count:
      made = [' '.join((*words, name)) for words in adjectives for name in bases]
      new = [name for name in free(made) if name not in bases]
      found += new[: count - len(found)]
  if len(found) < count:
    raise UserError(
      f'only {len(found):,} names share no word with the classes of this data set, '
      f'{count:,} were asked for; lower config.suite.distractors'
    )
  return tuple(found)


def all_words(names: vocabulary.Vocabulary) -> list[str]:
  """Returns the names of a class list and their synonyms."""
  return [*itertools.chain(*names.synonyms), *names.names]


def clearest(
  rows: Float[np.ndarray, 'n d'],
  classes: Float[np.ndarray, 'k d'],
  count: int,
  *,
  near: float,
) -> Int[np.ndarray, 'm']:
  """Chooses the first `count` candidates that are like no class.

  Where there are not so many, as to a text tower that tells nothing apart, the least
  alike of the others fill up the rest.

  Args:
    rows: L2-normalised embeddings of the candidates.
    classes: those of the classes.
    count: how many to choose.
    near: cosine from which on a candidate is like a class.
  """
  alike = (rows @ classes.T).max(axis=1)
  clear, rest = np.flatnonzero(alike < near), np.flatnonzero(alike >= near)
  rest = rest[np.argsort(alike[rest], kind='stable')]
  return np.concatenate([clear, rest])[:count]


@functools.cache
def _bases() -> tuple[str, ...]:
  """The first name of every class of the benchmarks, plain."""
  lists = [vocabulary.load(n).names for n in vocabulary.known() if n not in _OTHER]
  firsts = (min(plain_names(name.split(',')[0])) for names in lists for name in names)
  return tuple(dict.fromkeys(n for n in firsts if n not in _NO_THINGS))


def _words(name: str) -> set[str]:
  """The words of a name, singular as far as an "s" tells."""
  text = name.lower().replace('-', ' ').replace(',', ' ')
  return {word.rstrip('s') for word in text.split()}
