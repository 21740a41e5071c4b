"""Lists of class names, in evaluation order: the benchmarks' and the user's own."""

import csv
import dataclasses
import functools
import hashlib
import importlib.resources
import io
import json
from collections.abc import Iterable, Sequence

from ovs_jax.core.errors import UserError
from ovs_jax.core.lookup import lookup
from ovs_jax.text.tokenizer import clean

REQUIRED_COLUMNS = ('train_id', 'source_value', 'name')
SPLITS = ('', 'seen', 'unseen')


@dataclasses.dataclass(frozen=True)
class Vocabulary:
  """The classes of a data set; all tuples have one entry per class, by train id.

  Attributes:
    name: of the vocabulary, e.g. 'scenes'.
    names: class names as they are put into templates.
    source_values: the class's value in the annotation files.
    kinds: 'thing', 'stuff', or '' where the source does not say.
    splits: 'seen' or 'unseen' in training, or '' where there is no such split.
    synonyms: other names of the class; not used in evaluation.
  """

  name: str
  names: tuple[str, ...]
  source_values: tuple[int, ...]
  kinds: tuple[str, ...]
  splits: tuple[str, ...]
  synonyms: tuple[tuple[str, ...], ...]

  def __len__(self) -> int:
    """The number of classes."""
    return len(self.names)

  @property
  def sha256(self) -> str:
    """Digest of everything but `name`; equal digests mean comparable results."""
    columns = [self.names, self.source_values, self.kinds, self.splits, self.synonyms]
    return hashlib.sha256(json.dumps(columns).encode('ascii')).hexdigest()

  def held_out(self, fold: str) -> 'Vocabulary':
    """Returns the list with a part of its seen classes taken for unseen.

    Args:
      fold: 'I/N', every Nth of the seen classes from the Ith on, counted from 0.

    Raises:
      UserError: there are fewer seen classes than parts.
    """
    part, parts = map(int, fold.split('/'))
    seen = [k for k, split in enumerate(self.splits) if split == 'seen']
    if len(seen) < parts:
      raise UserError(
        f'the class list {self.name} has {len(seen)} seen classes, which '
        f'config.dataset.fold={fold} cannot divide; leave it out'
      )
    splits = list(self.splits)
    for k in seen[part::parts]:
      splits[k] = 'unseen'
    return dataclasses.replace(self, splits=tuple(splits))

  def identity(self) -> dict[str, str]:
    """Returns what a checkpoint says of the class list that it was trained with."""
    return {'name': self.name, 'sha256': self.sha256}


# What models trained on drawn pictures know, by the list of their names.
_WORLDS = {'scenes': '{count} drawn shapes and textures, and nothing of photographs'}


def knowledge(name: str) -> str:
  """Returns what a model knows that was trained with the names of a list.

  Such as '72 drawn shapes and textures, and nothing of photographs', or 'masks of 171
  names (coco_stuff_171)'; nothing for a list that the package does not have.
  """
  if name not in known():
    return ''
  told = _WORLDS.get(name, f'masks of {{count}} names ({name})')
  return told.format(count=len(load(name)))


def known() -> dict[str, str]:
  """Returns the vocabularies in the package: name to file name."""
  folder = importlib.resources.files(__package__) / 'names'
  files = sorted(file.name for file in folder.iterdir() if file.name.endswith('.tsv'))
  return {file.removesuffix('.tsv'): file for file in files}


@functools.cache
def load(name: str) -> Vocabulary:
  """Returns a vocabulary of the package.

  Raises:
    ValueError: unknown name; lists the known ones and the closest.
  """
  file = lookup(known(), name, 'vocabulary')
  folder = importlib.resources.files(__package__) / 'names'
  return parse(folder.joinpath(file).read_text(encoding='utf-8'), name)


def own(
  name: str, names: Sequence[str], values: Sequence[int] | None = None
) -> Vocabulary:
  """Returns the list of a user's own classes.

  What a list of the package calls a thing or stuff is one here, too.

  Args:
    name: of the list.
    names: of the classes.
    values: of the classes in label files; None: 0, 1, ...
  """
  blank = ('',) * len(names)
  values = range(len(names)) if values is None else values
  none = ((),) * len(names)
  kinds = _kinds()
  found = tuple(kinds.get(clean(x), '') for x in names)
  return Vocabulary(name, tuple(names), tuple(values), found, blank, none)


@functools.cache
def _kinds() -> dict[str, str]:
  """Of names in the package's lists, in the form that CLIP sees, their kinds."""
  lists = map(load, known())
  pairs = (zip(x.names, x.kinds, strict=True) for x in lists)
  return {clean(name): kind for found in pairs for name, kind in found if kind}


def parse(text: str, name: str) -> Vocabulary:
  """Reads tab separated values with a header line.

  Columns `train_id`, `source_value` and `name` are required; `kind`, `split` and
  `synonyms` (separated by '|') may be absent. Others are ignored.

  Raises:
    ValueError: a column is missing, train ids are not 0, 1, 2, ... in order, a name
      is blank or repeated, or a value is not what its column holds.
  """
  reader = csv.DictReader(io.StringIO(text), delimiter='\t', quoting=csv.QUOTE_NONE)
  missing = [c for c in REQUIRED_COLUMNS if c not in (reader.fieldnames or ())]
  if missing:
    raise UserError(
      f'vocabulary {name!r} lacks the columns {missing}; its header is '
      f'{reader.fieldnames}. Separate columns with tabs.'
    )
  rows = [{key: value or '' for key, value in row.items() if key} for row in reader]
  _check(rows, name)
  return Vocabulary(
    name=name,
    names=tuple(row['name'] for row in rows),
    source_values=tuple(int(row['source_value']) for row in rows),
    kinds=tuple(row.get('kind', '') for row in rows),
    splits=tuple(row.get('split', '') for row in rows),
    synonyms=tuple(
      tuple(s for s in row.get('synonyms', '').split('|') if s) for row in rows
    ),
  )


def _check(rows: Sequence[dict[str, str]], name: str) -> None:
  problems = [] if rows else ['there are no classes']
  seen = {}
  for i, row in enumerate(rows):
    if row['train_id'] != str(i):
      problems.append(f'class {i} has train_id {row["train_id"]!r}, expected {i}')
    if not row['source_value'].isdecimal():
      problems.append(f'class {i} has source_value {row["source_value"]!r}, no integer')
    if row.get('split', '') not in SPLITS:
      problems.append(f'class {i} has split {row["split"]!r}, expected one of {SPLITS}')
    if not row['name'].strip():
      problems.append(f'class {i} has no name')
    elif row['name'] in seen:
      problems.append(f'classes {seen[row["name"]]} and {i} are both {row["name"]!r}')
    seen.setdefault(row['name'], i)
  if problems:
    raise UserError(
      f'vocabulary {name!r} has {len(problems)} problems; correct its rows:\n  '
      + '\n  '.join(problems)
    )


def _split(names: str) -> list[str]:
  try:
    line = ' '.join(names.split())
    return next(csv.reader([line], skipinitialspace=True, strict=True), [''])
  except csv.Error as error:
    raise UserError(
      f'the quotes in {names!r} do not match; a name with a comma stands in a pair of '
      'double quotes, with a comma after it'
    ) from error


def parse_names(names: str | Iterable[object]) -> tuple[str, ...]:
  """Returns the class names a user typed, checked.

  Args:
    names: 'red ball, grass', or one string per name. In a string, a name with a comma
      stands in double quotes: '"door, double door", wall'.

  Returns:
    The names in order, each stripped and its white space collapsed.

  Raises:
    ValueError: no names, a blank one, one that is not a string, or two that are the
      same text for CLIP.
  """
  names = names if isinstance(names, str) else list(names)
  given = _split(names) if isinstance(names, str) else names
  wrong = [name for name in given if not isinstance(name, str)]
  if wrong:
    raise UserError(f'class names must be strings, got {wrong}. Quote them.')
  found = tuple(' '.join(name.split()) for name in given)
  if not any(found):
    raise UserError(
      f'no class names in {names!r}; expected at least one, e.g. "red ball, grass".'
    )
  if '' in found:
    raise UserError(
      f'class name {found.index("") + 1} of {len(found)} in {names!r} is blank. '
      'Remove it, or the comma too many.'
    )
  first = {}
  for name in found:
    key = clean(name)
    if key in first:
      raise UserError(
        f'class names {first[key]!r} and {name!r} are the same for CLIP, which '
        'ignores case, accents written in two characters, full width and the like. '
        'Keep one.'
      )
    first[key] = name
  return found
