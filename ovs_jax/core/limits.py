"""What the fields of a dataclass may hold: declared beside them, and checked here.

The annotation of a field is its type, and `Annotated` adds what else has to be true:

    steps: Annotated[int, Range(least=1)]
    schedule: Annotated[str, OneOf(SCHEDULES)]
    prior: Literal['mask', 'box']

Numbers are finite. `read` makes a dataclass of nested mappings and says all that is
wrong with them.
"""

import dataclasses
import functools
import math
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Literal

from ovs_jax.core.errors import UserError
from ovs_jax.core.lookup import did_you_mean

_SHOWN = 60  # characters of a value in a message


@dataclasses.dataclass(frozen=True)
class Range:
  """A number from `least` or above `above`, up to `most` or below `below`."""

  least: int | float | None = None
  above: int | float | None = None
  most: int | float | None = None
  below: int | float | None = None

  def accepts(self, value: int | float) -> bool:
    """Whether a number is in the range."""
    return not (
      (self.least is not None and value < self.least)
      or (self.above is not None and value <= self.above)
      or (self.most is not None and value > self.most)
      or (self.below is not None and value >= self.below)
    )

  def __str__(self) -> str:
    ends = {'at least': self.least, 'above': self.above}
    ends |= {'at most': self.most, 'below': self.below}
    return ' and '.join(f'{k} {v}' for k, v in ends.items() if v is not None)


class OneOf:
  """A name of a table."""

  def __init__(self, names: Collection[str]) -> None:
    """Takes the table, or its names."""
    self.names = names

  def accepts(self, value: str) -> bool:
    """Whether the table has the name."""
    return value in self.names

  def __str__(self) -> str:
    return f'one of {", ".join(map(repr, self.names))}'


class Filled:
  """Not empty."""

  def accepts(self, value: str | tuple[Any, ...]) -> bool:
    """Whether there is something."""
    return bool(value)

  def __str__(self) -> str:
    return 'not empty'


class FileName:
  """The path of a file, as far as a name shows it."""

  def accepts(self, value: str) -> bool:
    """Whether there is a folder before it, or an ending behind it."""
    return '/' in value or '.' in value

  def __str__(self) -> str:
    return "a path of a file, with a '/' or an ending"


class Ascending:
  """Numbers of which none is less than the one before."""

  def accepts(self, value: tuple[Any, ...]) -> bool:
    """Whether they are in order."""
    return list(value) == sorted(value)

  def __str__(self) -> str:
    return 'ascending'


class WithName:
  """A sentence with one place for a name."""

  def accepts(self, value: str) -> bool:
    """Whether the place is there, once."""
    return value.count('{}') == 1

  def __str__(self) -> str:
    return "with one '{}', where the name goes"


class Regular:
  """A regular expression."""

  def accepts(self, value: str) -> bool:
    """Whether it can be compiled."""
    try:
      re.compile(value)
    except re.error:
      return False
    return True

  def __str__(self) -> str:
    return 'a regular expression'


class Fold:
  """One part of several, '' for none."""

  def accepts(self, value: str) -> bool:
    """Whether it is such as 0/3, the first of three."""
    found = re.fullmatch(r'(\d{1,4})/(\d{1,4})', value, re.ASCII)
    return not value or (found is not None and int(found[1]) < int(found[2]) > 1)

  def __str__(self) -> str:
    return "'' or a part such as '0/3', the first of three"


@dataclasses.dataclass(frozen=True)
class Located:
  """A path or an address, '' for none.

  Attributes:
    read: whether a job depends on what is there (and not on where it is).
  """

  read: bool = True

  def accepts(self, value: str) -> bool:
    """Whether it can be one; whether something is there is seen when a job starts."""
    return '\0' not in value

  def __str__(self) -> str:
    return 'a path'


_TEXTS = (OneOf, Regular, FileName, Fold)

Count = Annotated[int, Range(least=1)]
# Of networks, up to what no published one comes near.
Size = Annotated[int, Range(least=1, most=2**15)]
Depth = Annotated[int, Range(least=1, most=2**10)]
Maybe = Annotated[int, Range(least=0, most=2**15)]  # a size; 0: none, or a default
Natural = Annotated[int, Range(least=0)]
Weight = Annotated[float, Range(least=0)]
Positive = Annotated[float, Range(above=0)]
Share = Annotated[float, Range(least=0, most=1)]
Rate = Annotated[float, Range(least=0, below=1)]
Name = Annotated[str, Filled()]
Sentence = Annotated[str, WithName()]
Pattern = Annotated[str, Regular()]
Given = Annotated[str, Located()]  # of what a job reads
Spot = Annotated[str, Located(read=False)]  # of what it writes, or looks through

_SECTION = 'a section'
_PLAIN = {int: 'an integer', float: 'a number', bool: 'True or False', str: 'a text'}


def describe(kind: Any) -> str:
  """Says what an annotation accepts, such as 'an integer, at least 1'."""
  origin, inside = typing.get_origin(kind), typing.get_args(kind)
  if origin is Annotated:
    # These say by themselves that it is a text.
    told = [str(rule) for rule in inside[1:] if isinstance(rule, _TEXTS)]
    known = any(isinstance(rule, Located) for rule in inside[1:])
    first = [] if known else [describe(inside[0])]
    return ', '.join(told or [*first, *map(str, inside[1:])])
  if origin is Literal:
    few = len(inside) == 1
    return repr(inside[0]) if few else f'one of {", ".join(map(repr, inside))}'
  if origin in (typing.Union, types.UnionType):
    return ' or '.join(describe(x) for x in inside if describe(x) != _SECTION)
  if origin is tuple and not inside:
    return '()'
  if origin is tuple and inside[-1] is Ellipsis:
    return f'a tuple (of each: {describe(inside[0])})'
  if origin is tuple:
    return f'({"; ".join(describe(x) for x in inside)})'
  if kind is None or kind is type(None):
    return 'None'
  if origin is not None:
    return 'sections by name'
  return _PLAIN.get(kind, _SECTION)


def read(kind: Any, given: Any, path: str) -> tuple[Any, list[str]]:
  """Reads a value as an annotation, or a dataclass, has it.

  Integers become numbers where those are asked for, and lists tuples. Keys that are not
  given have the defaults of their fields.

  Args:
    kind: the annotation, or the dataclass.
    given: the value; of a dataclass a mapping, or anything with `items`.
    path: of the value, for messages.

  Returns:
    The value, and what is wrong with it, in lines that begin with paths. Where
    something is, the value is nothing to go on with.
  """
  origin, inside = typing.get_origin(kind), typing.get_args(kind)
  if dataclasses.is_dataclass(kind):
    return _read_fields(kind, given, path)
  if origin is Annotated:
    return _read_annotated(kind, given, path)
  if origin in (typing.Union, types.UnionType):
    return _read_union(kind, given, path)
  if origin is tuple:
    return _read_tuple(kind, given, path)
  if origin is not None and origin is not Literal:  # a mapping
    return _read_mapping(inside[1], given, path)
  if origin is Literal:
    fits = any(given == x and type(given) is type(x) for x in inside)
  elif kind is float:
    fits = type(given) in (int, float) and math.isfinite(given)
    given = float(given) if fits else given
  elif kind is None or kind is type(None):
    fits = given is None
  else:
    fits = type(given) is kind
  return given, [] if fits else [_wrong(kind, given, path)]


def _wrong(kind: Any, given: Any, path: str) -> str:
  """The line of a value that does not fit, with the nearest that would."""
  shown = repr(given)
  shown = shown if len(shown) <= _SHOWN else f'{shown[: _SHOWN - 3]}...'
  expected = describe(kind)
  if isinstance(given, float) and not math.isfinite(given):
    expected = expected.replace('a number', 'a finite number')
  near = did_you_mean(given, _choices(kind)) if isinstance(given, str) else ''
  return f'{path} is {shown}, expected {expected}{"." if near else ""}{near}'


def _choices(kind: Any) -> list[str]:
  origin, inside = typing.get_origin(kind), typing.get_args(kind)
  if origin is Literal:
    return [x for x in inside if isinstance(x, str) and x]
  if origin is Annotated:
    return [
      x for rule in inside[1:] if isinstance(rule, OneOf) for x in rule.names if x
    ]
  if origin in (typing.Union, types.UnionType):
    return [x for option in inside for x in _choices(option)]
  return []


def _read_annotated(kind: Any, given: Any, path: str) -> tuple[Any, list[str]]:
  base, *rules = typing.get_args(kind)
  value, problems = read(base, given, path)
  if len(problems) == 1 and problems[0].startswith(f'{path} is '):
    return value, [_wrong(kind, given, path)]  # says what else is asked for
  if problems or all(rule.accepts(value) for rule in rules):
    return value, problems
  return value, [_wrong(kind, given, path)]


def _read_union(kind: Any, given: Any, path: str) -> tuple[Any, list[str]]:
  for option in typing.get_args(kind):
    value, problems = read(option, given, path)
    if not problems:
      return value, []
  return given, [_wrong(kind, given, path)]


def _read_tuple(kind: Any, given: Any, path: str) -> tuple[Any, list[str]]:
  inside = typing.get_args(kind)
  if not isinstance(given, (tuple, list)):
    return given, [_wrong(kind, given, path)]
  if inside and inside[-1] is Ellipsis:
    inside = (inside[0],) * len(given)
  if len(inside) != len(given):
    return given, [_wrong(kind, given, path)]
  values, problems = [], []
  for i, (part, value) in enumerate(zip(inside, given, strict=True)):
    value, wrong = read(part, value, f'{path}[{i}]')
    values.append(value)
    problems += wrong
  return tuple(values), problems


def _read_mapping(kind: Any, given: Any, path: str) -> tuple[Any, list[str]]:
  if not hasattr(given, 'items'):
    return given, [f'{path} is {given!r}, expected sections by name']
  values, problems = {}, []
  for name, value in given.items():
    values[name], wrong = read(kind, value, f'{path}.{name}')
    problems += wrong
  return values, problems


@functools.cache
def hints(kind: type) -> dict[str, Any]:
  """Returns the annotation of every field of a dataclass, in order."""
  found = typing.get_type_hints(kind, include_extras=True)
  return {field.name: found[field.name] for field in dataclasses.fields(kind)}


def _read_fields(kind: Any, given: Any, path: str) -> tuple[Any, list[str]]:
  given = vars(given) if isinstance(given, kind) else given
  if not hasattr(given, 'items'):
    return given, [f'{path} is {given!r}, expected a section of keys']
  known, values, problems = hints(kind), {}, []
  for name, value in given.items():
    if name not in known:
      problems.append(f'{path}.{name} is no key.{did_you_mean(name, known)}')
      continue
    values[name], wrong = read(known[name], value, f'{path}.{name}')
    problems += wrong
  for field in dataclasses.fields(kind):
    required = field.default is field.default_factory is dataclasses.MISSING
    if required and field.name not in given:
      problems.append(f'{path}.{field.name} is missing')
  if problems:
    return given, problems
  try:
    return kind(**values), []
  except UserError as error:  # what fields say of each other
    return given, [f'{path}: {error}']


def places(
  kind: Any, value: Any, change: Callable[[str, Located, str], str], path: str = ''
) -> Any:
  """Returns a value in which the paths that it has are others.

  Args:
    kind: the annotation, or the dataclass.
    value: as `plain` or JSON has it.
    change: from the key of a path ('init.clip'), what its annotation says, and the path
      to another one.
    path: key of the value.
  """
  origin, inside = typing.get_origin(kind), typing.get_args(kind)
  within = f'{path}.' if path else ''
  if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
    known = hints(kind)
    return {
      k: places(known[k], x, change, f'{within}{k}') if k in known else x
      for k, x in value.items()
    }
  if origin is Annotated:
    for rule in inside[1:]:
      if isinstance(rule, Located) and isinstance(value, str):
        return change(path, rule, value)
    return places(inside[0], value, change, path)
  if origin is tuple and inside and isinstance(value, (tuple, list)):
    parts = (inside[0],) * len(value) if inside[-1] is Ellipsis else inside
    found = enumerate(zip(parts, value, strict=False))
    return tuple(places(part, x, change, f'{within}{i}') for i, (part, x) in found)
  if isinstance(value, Mapping) and len(inside) == 2:
    return {k: places(inside[1], x, change, f'{within}{k}') for k, x in value.items()}
  return value


def plain(value: Any) -> Any:
  """Returns a dataclass as nested dicts; tuples stay, with what is in them."""
  if dataclasses.is_dataclass(value):
    return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
  if isinstance(value, Mapping):
    return {name: plain(x) for name, x in value.items()}
  return value
