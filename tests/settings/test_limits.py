"""What declarations accept, and the line that they give for what they do not."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pytest

from ovs_jax.core.errors import UserError
from ovs_jax.core.limits import (
  Ascending,
  Count,
  Filled,
  Name,
  OneOf,
  Pattern,
  Range,
  Rate,
  Sentence,
  Share,
  describe,
  plain,
  read,
)

TABLE = {'warm': 1, 'cold': 2}


@pytest.mark.parametrize(
  ('kind', 'given', 'value'),
  [
    (int, 3, 3),
    (float, 3, 3.0),
    (Count, 1, 1),
    (Share, 0, 0.0),
    (Rate, 0.999, 0.999),
    (bool, False, False),
    (Annotated[str, OneOf(TABLE)], 'warm', 'warm'),
    (Literal['a', ''], '', ''),
    (Literal[-1] | Count, -1, -1),
    (float | None, None, None),
    (tuple[int, ...], [1, 2], (1, 2)),
    (tuple[int, ...], (), ()),
    (tuple[()] | tuple[Share, Share], (0, 1), (0.0, 1.0)),
    (tuple[tuple[Pattern, float | None], ...], [['^a', None]], (('^a', None),)),
    (Annotated[tuple[float, float], Ascending()], (1, 1), (1.0, 1.0)),
    (Sentence, 'a {}', 'a {}'),
    (Mapping[str, Count], {'a': 1}, {'a': 1}),
  ],
)
def test_what_fits_is_taken(kind: Any, given: Any, value: Any) -> None:
  got, problems = read(kind, given, 'x')
  assert problems == [] and got == value and type(got) is type(value)


@pytest.mark.parametrize(
  ('kind', 'given', 'line'),
  [
    (int, True, 'x is True, expected an integer'),
    (int, 1e9, 'x is 1000000000.0, expected an integer'),
    (Count, 0, 'x is 0, expected an integer, at least 1'),
    (float, math.nan, 'x is nan, expected a finite number'),
    (Share, math.inf, 'x is inf, expected a finite number, at least 0 and at most 1'),
    (Rate, 1.0, 'x is 1.0, expected a number, at least 0 and below 1'),
    (bool, 1, 'x is 1, expected True or False'),
    (str, None, 'x is None, expected a text'),
    (Name, '', "x is '', expected a text, not empty"),
    (
      Annotated[str, OneOf(TABLE)],
      'warn',
      "x is 'warn', expected one of 'warm', 'cold'. Did you mean 'warm'?",
    ),
    (Literal['a', 'b'], 1, "x is 1, expected one of 'a', 'b'"),
    (Literal[1], True, 'x is True, expected 1'),
    (Literal[-1] | Count, 0, 'x is 0, expected -1 or an integer, at least 1'),
    (tuple[Count, ...], (2, 0), 'x[1] is 0, expected an integer, at least 1'),
    (tuple[int, int], (1,), 'x is (1,), expected (an integer; an integer)'),
    (tuple[int, ...], 'ab', "x is 'ab', expected a tuple (of each: an integer)"),
    (
      Annotated[tuple[int, ...], Filled()],
      (),
      'x is (), expected a tuple (of each: an integer), not empty',
    ),
    (
      Annotated[tuple[int, int], Ascending()],
      (2, 1),
      'x is (2, 1), expected (an integer; an integer), ascending',
    ),
    (Pattern, '(', "x is '(', expected a regular expression"),
    (
      Sentence,
      'a {} on a {}',
      "x is 'a {} on a {}', expected a text, with one '{}', where the name goes",
    ),
    (Mapping[str, Count], {'a': 0}, 'x.a is 0, expected an integer, at least 1'),
    (Mapping[str, Count], 3, 'x is 3, expected sections by name'),
  ],
)
def test_what_does_not_is_one_line(kind: Any, given: Any, line: str) -> None:
  assert read(kind, given, 'x')[1] == [line]


def test_long_values_are_cut() -> None:
  (line,) = read(int, 'x' * 100, 'x')[1]
  assert line == f"x is '{'x' * 56}..., expected an integer"


def test_a_table_is_asked_when_it_is_looked_at() -> None:
  table = {'warm': 1}
  kind = Annotated[str, OneOf(table)]
  assert read(kind, 'hot', 'x')[1]
  table['hot'] = 3
  assert not read(kind, 'hot', 'x')[1]


@dataclasses.dataclass(frozen=True)
class Inner:
  least: Count
  most: Count = 9

  def __post_init__(self) -> None:
    if self.least > self.most:
      raise UserError(f'least {self.least} is more than most {self.most}')


@dataclasses.dataclass(frozen=True)
class Outer:
  inner: Inner
  name: Name = 'n'


def test_a_dataclass_is_made_of_mappings_and_back() -> None:
  got, problems = read(Outer, {'inner': {'least': 2}}, 'c')
  assert problems == [] and got == Outer(Inner(2))
  assert plain(got) == {'inner': {'least': 2, 'most': 9}, 'name': 'n'}


def test_all_that_is_wrong_is_told_at_once() -> None:
  given = {'inner': {'mots': 1, 'most': 'x'}, 'name': ''}
  assert read(Outer, given, 'c')[1] == [
    "c.inner.mots is no key. Did you mean 'most'?",
    "c.inner.most is 'x', expected an integer, at least 1",
    'c.inner.least is missing',
    "c.name is '', expected a text, not empty",
  ]


def test_what_fields_say_of_each_other_is_told_of_their_section() -> None:
  problems = read(Outer, {'inner': {'least': 10}}, 'c')[1]
  assert problems == ['c.inner: least 10 is more than most 9']
  assert read(Outer, 3, 'c')[1] == ['c is 3, expected a section of keys']


def test_ranges_are_described_by_their_ends() -> None:
  assert str(Range(above=0, most=1)) == 'above 0 and at most 1'
  assert describe(Annotated[float, Range(least=0, below=1)] | None) == (
    'a number, at least 0 and below 1 or None'
  )
