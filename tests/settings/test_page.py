"""docs/configuration.md: made from the declarations, and with all of them."""

import dataclasses
import pathlib
import subprocess
import sys
from typing import Annotated

from ovs_jax.core.limits import Count, Range
from ovs_jax.core.tree import flatten
from ovs_jax.settings import Settings
from ovs_jax.settings.table import comments, page

ROOT = pathlib.Path(__file__).parents[2]


def test_the_page_is_up_to_date() -> None:
  """Else run `python -m ovs_jax.settings` and put what it prints in its place."""
  assert (ROOT / 'docs/configuration.md').read_text(encoding='utf-8') == page()


def test_the_command_prints_it() -> None:
  done = subprocess.run(
    [sys.executable, '-m', 'ovs_jax.settings'],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout == page()


def test_every_key_has_a_line_with_a_comment() -> None:
  found, section = {}, ''
  for line in page().splitlines():
    if line.startswith('## '):
      section = '' if line == '## Of the whole' else f'{line[3:].replace(".", "/")}/'
    elif line.startswith('| `'):
      key, _, kind, said = (x.strip() for x in line.strip('|').split(' | '))
      found[section + key.strip('`')] = kind, said
  assert set(found) == {*flatten(Settings('x', 'train').to_dict()), 'order', 'stages'}
  assert [key for key, (kind, said) in found.items() if not kind or not said] == []


@dataclasses.dataclass(frozen=True)
class Example:
  """One of each.

  Attributes:
    told: in the docstring,
      on two lines; `too` likewise.
  """

  beside: Count = 1  # beside it
  # above it, on
  # two lines
  above: Annotated[
    int,
    Range(least=0),
  ] = 0
  told: int = 0
  too: int = 0
  nothing: int = 0


def test_comments_are_found_where_they_stand() -> None:
  assert comments(Example) == {
    'beside': 'beside it',
    'above': 'above it, on two lines',
    'told': 'in the docstring, on two lines',
    'too': 'in the docstring, on two lines',
    'nothing': '',
  }
