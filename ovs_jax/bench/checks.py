"""Checks that hold or do not, each with its number. One that fails stops no other."""

import dataclasses
import fnmatch
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from ovs_jax.core.errors import UserError


@dataclasses.dataclass(frozen=True)
class Found:
  """What a check found.

  Attributes:
    value: its number.
    limit: that the number must keep to.
    least: whether the limit is the least that the number may be, not the most.
    facts: what else was measured.
  """

  value: float
  limit: float
  least: bool = False
  facts: dict[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def held(self) -> bool:
    """Whether it does; NaN does not."""
    return self.value >= self.limit if self.least else self.value <= self.limit


@dataclasses.dataclass(frozen=True)
class Check:
  """One row.

  Attributes:
    name: of the row.
    what: the number is.
    run: finds it out.
  """

  name: str
  what: str
  run: Callable[[], Found]


@dataclasses.dataclass(frozen=True)
class Checklist:
  """Checks in the order of their importance.

  Attributes:
    checks: all of them.
    seconds: after which none is begun.
  """

  checks: Sequence[Check]
  seconds: float

  def choose(self, patterns: str) -> 'Checklist':
    """Returns those whose name fits one of the patterns, such as 'step *,fusion'.

    Raises:
      ValueError: none does.
    """
    wanted = [pattern.strip() for pattern in patterns.split(',')]
    chosen = [
      check
      for check in self.checks
      if any(fnmatch.fnmatch(check.name, pattern) for pattern in wanted)
    ]
    if not chosen:
      names = ', '.join(check.name for check in self.checks)
      raise UserError(f'no check is called {patterns!r}; there are: {names}')
    return dataclasses.replace(self, checks=chosen)

  def run(self) -> list[dict[str, Any]]:
    """Returns one row for each check; says on stderr how far it is."""
    began, rows = time.perf_counter(), []
    for check in self.checks:
      late = time.perf_counter() - began > self.seconds
      rows.append(_left_out(check, self.seconds) if late else _row(check))
      print(_line(rows[-1]), file=sys.stderr, flush=True)
    return rows


def _row(check: Check) -> dict[str, Any]:
  began = time.perf_counter()
  row: dict[str, Any] = {'check': check.name, 'what': check.what}
  try:
    found = check.run()
  except Exception as error:  # whatever it is, the row says it and the others run
    text = ' '.join(str(error).split())[:300]
    row |= {'held': False, 'value': None, 'limit': None, 'facts': {}}
    row['error'] = f'{type(error).__name__}: {text}'
  else:
    row |= {'held': bool(found.held), 'value': float(found.value)}
    row |= {'limit': float(found.limit), 'facts': found.facts}
  return {**row, 'seconds': round(time.perf_counter() - began, 2)}


def _left_out(check: Check, seconds: float) -> dict[str, Any]:
  return {
    'check': check.name,
    'what': check.what,
    'held': False,
    'value': None,
    'limit': None,
    'facts': {},
    'error': f'not run: {seconds:g} s were over; raise --set=seconds= or set only=',
    'seconds': 0.0,
  }


def _line(row: dict[str, Any]) -> str:
  facts = ', '.join(f'{key} {value}' for key, value in row['facts'].items())
  number = limit = '-'
  if row['value'] is not None:
    number, limit = f'{row["what"]} {row["value"]:.4g}', f'{row["limit"]:.4g}'
  cells = [
    row['check'],
    'yes' if row['held'] else 'NO',
    number,
    limit,
    f'{row["seconds"]:.1f}',
    row.get('error', facts).replace('|', '/'),
  ]
  return '| ' + ' | '.join(cells) + ' |'


def table(rows: Sequence[dict[str, Any]]) -> str:
  """Returns the rows as Markdown, with a line that sums them up."""
  lines = ['| check | holds | number | limit | s | beside it |', '|---' * 6 + '|']
  lines += [_line(row) for row in rows]
  held = sum(row['held'] for row in rows)
  total = sum(row['seconds'] for row in rows)
  lines += ['', f'{held} of {len(rows)} checks hold; {total:.0f} s']
  return '\n'.join(lines)
