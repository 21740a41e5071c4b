"""Keeps what runs measured beside the documentation, and finds its numbers there again.

    python -m ovs_jax.evaluate.check_docs                    # README.md and docs/*.md
    python -m ovs_jax.evaluate.check_docs --keep=runs/quickstart \
      --as=docs/runs/quickstart.json

A table below the line `<!-- docs/runs/NAME.json -->` (or of several files) is of that
file: the numbers of each row, but for its first cell, stand together somewhere in it,
within what one stage measured, rounded as the row has them.
"""

import argparse
import math
import pathlib
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Place, local, place, read_json, write_json

_OF = re.compile(r'<!-- ((?:\S+\.json )+)-->')
_NUMBER = re.compile(r'(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?(?![\w.]*[A-Za-z_])')
_DIGITS = 4  # behind the point, in a kept file
_LONGEST = 40  # of lists that are kept; longer ones are of classes
_FILES = ('report.json', 'scores.json', 'choice.json')  # of a stage

Values = list[tuple[float, ...]]  # of every mapping and list of a file


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns 0, 1 if numbers are not found, or 2 after a mistake."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('pages', nargs='*', help='default: README.md and docs/*.md')
  parser.add_argument('--keep', metavar='RUN', help='a finished run to keep')
  parser.add_argument('--as', dest='kept', metavar='FILE.json', help='where')
  arguments = parser.parse_args(argv)
  try:
    if arguments.keep:
      keep(place(arguments.keep), arguments.kept or '')
      return 0
    pages = [local(x) for x in arguments.pages] or _all_pages()
    problems, tables = [], 0
    for page in pages:
      found, count = check(page)
      problems, tables = problems + found, tables + count
  except (ValueError, OSError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  print('\n'.join([*problems, f'{tables} tables looked up']))
  return 1 if problems else 0


def _all_pages() -> list[pathlib.Path]:
  return [local('README.md'), *sorted(local('docs').glob('*.md'))]


def keep(run: Place, target: str) -> None:
  """Writes the scalars that the stages of a run measured, and their seconds.

  Raises:
    UserError: nothing was measured there, or the target is no JSON file.
  """
  if not target.endswith('.json'):
    raise UserError(f'--as={target} is no name of a file; expected FILE.json')
  found: dict[str, Any] = {'jax': jax.__version__, 'stages': {}}
  for done in sorted(run.glob('*/done.json')):
    # Of what a benchmark did with one data set there are no seconds.
    stage = _scalars({'seconds': read_json(done).get('seconds')})
    for name in _FILES:
      if (done.parent / name).is_file():
        stage |= _scalars(read_json(done.parent / name))
    found['stages'][done.parent.name] = stage
  if (run / 'report.json').is_file():
    found['report'] = _scalars(read_json(run / 'report.json'))
  if not found['stages'] and 'report' not in found:
    raise UserError(f'{run} has no finished stages and no report.json to keep')
  write_json(target, found)


def _scalars(value: Any) -> Any:
  """Leaves out long lists, such as those of every class, and paths of a machine."""
  if isinstance(value, dict):
    found = {key: _scalars(x) for key, x in value.items()}
    return {key: x for key, x in found.items() if x is not None}
  if isinstance(value, list):
    rows = [_scalars(x) for x in value]
    numbers = sum(isinstance(x, float | int) or x is None for x in rows)
    return None if numbers > _DIGITS or len(rows) > _LONGEST else rows
  if isinstance(value, str) and value.startswith('/'):
    return None
  return round(value, _DIGITS) if isinstance(value, float) else value


def check(page: pathlib.Path) -> tuple[list[str], int]:
  """Looks up the tables of a page.

  Returns:
    A line for each row whose numbers its file does not have, and how many tables were
    looked up.

  Raises:
    FileNotFoundError: a file is missing.
    UserError: what follows the line of a file is no table.
  """
  problems: list[str] = []
  lines, count = page.read_text('utf-8').splitlines(), 0
  for at, line in enumerate(lines):
    given = _OF.fullmatch(line.strip())
    if given is None:
      continue
    count += 1
    rows = list(_rows(lines[at + 1 :]))
    if not rows:
      raise UserError(f'{page}:{at + 1}: no table with numbers follows {line}')
    files = [_root(page) / name for name in given[1].split()]
    values = [one for file in files for one in _together(read_json(file))]
    for offset, cells in rows:
      numbers = [x for cell in cells for x in _NUMBER.findall(cell)]
      if not any(all(_has(one, x) for x in numbers) for one in values):
        where = f'{page}:{at + 1 + offset}'
        problems.append(
          f'{where}: {given[1].strip()} has not together {", ".join(numbers)}'
        )
  return problems, count


def _root(page: pathlib.Path) -> pathlib.Path:
  return page.parent.parent if page.parent.name == 'docs' else page.parent


def _rows(lines: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
  """Yields the lines of a table, from 1, and their cells behind the first."""
  started = False
  for at, line in enumerate(lines, start=1):
    if not line.startswith('|'):
      if started or line.strip():
        return
      continue
    cells = [x.strip() for x in line.strip().strip('|').split('|')]
    if started and not set(''.join(cells)) <= set('-: '):
      yield at, cells[1:]
    started = True


def _together(value: Any, depth: int = 0) -> Iterator[tuple[float, ...]]:
  """Yields the numbers of each stage, and of each mapping and list in one."""
  if not isinstance(value, dict | list):
    return
  if depth > 1:
    yield tuple(_numbers(value))
  for one in value.values() if isinstance(value, dict) else value:
    yield from _together(one, depth + 1)


def _numbers(value: Any) -> Iterator[float]:
  if isinstance(value, dict | list):
    for one in value.values() if isinstance(value, dict) else value:
      yield from _numbers(one)
  elif isinstance(value, int | float) and not isinstance(value, bool):
    yield float(value)


def _has(values: Sequence[float], shown: str) -> bool:
  number = float(shown.replace(',', ''))
  decimals = len(shown.partition('.')[2])
  least = 0.5 * 10**-decimals + 10**-_DIGITS
  return any(math.isclose(x, number, rel_tol=0, abs_tol=least) for x in values)


if __name__ == '__main__':
  sys.exit(main())
