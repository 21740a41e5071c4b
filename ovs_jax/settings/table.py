"""All keys as a page: of each the default, what it may be, and what it is."""

import ast
import dataclasses
import functools
import inspect
import re
from collections.abc import Iterator
from typing import Any

from ovs_jax.core.limits import describe, hints
from ovs_jax.settings.whole import Settings

_PAGE = """# Configuration

Every key of a configuration: its default, what it may be, and what it is. Numbers are
finite. `--config.SECTION.KEY=value` changes one, and of a stage of a pipeline
`--config.stages.STAGE.key=value`. All that is wrong is said at once, before
anything is loaded, written or compiled. The sections `clip`, `proposer`, `coseg` and
`clipseg` are sizes of networks.

Made from `ovs_jax/settings` by `.venv/bin/python -m ovs_jax.settings`.
"""
_LONGEST = 48  # characters of a default


def page() -> str:
  """Returns docs/configuration.md."""
  lines = [_PAGE]
  single = [name for name, kind in hints(Settings).items() if not _is_section(kind)]
  lines += ['## Of the whole', '', *_table(Settings('NAME', 'train'), single)]
  for name, kind in hints(Settings).items():
    if _is_section(kind):
      lines += _section(name, getattr(Settings('NAME', 'train'), name))
  return '\n'.join(lines).rstrip('\n') + '\n'


def _is_section(kind: Any) -> bool:
  return dataclasses.is_dataclass(kind)


def _section(path: str, section: Any) -> list[str]:
  """The table of a section, and those of the sections in it."""
  kinds = hints(type(section))
  own = [name for name, kind in kinds.items() if not _is_section(kind)]
  title = (inspect.getdoc(type(section)) or '').partition('\n')[0]
  lines = [f'## {path}', '', title, '', *_table(section, own)]
  for name in kinds:
    if name not in own:
      lines += _section(f'{path}.{name}', getattr(section, name))
  return lines


def _table(section: Any, names: list[str]) -> Iterator[str]:
  kinds, said = hints(type(section)), comments(type(section))
  yield '| key | default | may be | |'
  yield '|---|---|---|---|'
  for name in names:
    default = repr(getattr(section, name))
    if len(default) > _LONGEST:
      default = f'{default[: _LONGEST - 3]}...'
    cells = (f'`{name}`', f'`{default}`', describe(kinds[name]), said[name])
    yield f'| {" | ".join(cell.replace("|", "/") for cell in cells)} |'
  yield ''


@functools.cache
def comments(section: type) -> dict[str, str]:
  """Returns what is said of each field: beside or above it, or in the docstring.

  A comment above belongs to one field, as one beside it does. Docstrings name fields
  under `Attributes:`.
  """
  found = {}
  for kind in reversed(section.__mro__[:-1]):
    source = inspect.getsource(kind)
    lines = source.splitlines()
    told = _attributes(inspect.getdoc(kind) or '')
    for node in ast.parse(source).body[0].body:  # type: ignore[attr-defined]
      if isinstance(node, ast.AnnAssign):
        name = node.target.id  # type: ignore[union-attr]
        found[name] = _beside(lines, node) or told.get(name) or _above(lines, node)
  return found


def _beside(lines: list[str], node: ast.AnnAssign) -> str:
  for number in (node.lineno, node.end_lineno or node.lineno):
    if match := re.search(r'  # (.*)$', lines[number - 1]):
      return match[1]
  return ''


def _above(lines: list[str], node: ast.AnnAssign) -> str:
  texts: list[str] = []
  number = node.lineno - 2
  while number >= 0 and (match := re.fullmatch(r'\s*# (.*)', lines[number])):
    texts.insert(0, match[1])
    number -= 1
  return ' '.join(texts)


def _attributes(docstring: str) -> dict[str, str]:
  _, _, told = docstring.partition('Attributes:\n')
  found = {}
  for name, text in re.findall(r'^  (\w+): (.*(?:\n    .*)*)', told, re.MULTILINE):
    text = ' '.join(text.split()).rstrip('.')
    if match := re.search(r'; `(\w+)` likewise$', text):
      text = text[: match.start()]
      found[match[1]] = text
    found[name] = text
  return found
