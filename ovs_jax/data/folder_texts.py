"""The text files of a user's folder: names of classes, and captions."""

import json
import pathlib

from ovs_jax.core.errors import UserError
from ovs_jax.data.sources import Problem
from ovs_jax.text.classes import as_list, read_text, unquoted
from ovs_jax.text.tokenizer import clean


def class_names(
  directory: pathlib.Path, problems: list[Problem]
) -> tuple[tuple[str, ...], tuple[int, ...]]:
  """Class names and their values, from names.txt."""
  path = directory / 'names.txt'
  if not (directory / 'masks').is_dir():
    return (), ()
  try:
    lines = read_text(path).rstrip().split('\n')
  except (FileNotFoundError, UserError) as error:
    missing = isinstance(error, FileNotFoundError)
    what = 'names.txt' if missing else f'names.txt ({error})'
    problems.append(Problem('missing' if missing else 'unreadable', what))
    return (), ()
  names, values = [], []
  for line, (number, rest) in zip(lines, as_list(lines), strict=True):
    if line.strip() and not rest:  # a header
      continue
    value, _, name = (
      rest.partition('\t') if '\t' in rest else (str(len(names)), '', rest)
    )
    names.append(' '.join(unquoted(name).split()))
    known = int(value) if value.strip().isdecimal() else -1
    values.append(known if number is None else number)
  # What the tokenizer takes for one text would be two classes with the same scores.
  for found, keys, what in (
    (names, [clean(name) for name in names], 'name'),
    (values, values, 'value'),
  ):
    for i, (x, key) in enumerate(zip(found, keys, strict=True)):
      if key in keys[:i]:
        where = f'line {keys.index(key) + 1} and line {i + 1}'
        problems.append(
          Problem('wrong text', f'names.txt: {where} have the {what} {x}')
        )
  for i, (name, value) in enumerate(zip(names, values, strict=True)):
    if not name or not 0 <= value < 2**16 - 1:
      what = f'names.txt: line {i + 1} is {lines[i]!r}, expected NAME or VALUE<TAB>NAME'
      problems.append(Problem('wrong text', what))
  if not names:
    problems.append(Problem('wrong text', 'names.txt has no lines'))
  return tuple(names), tuple(values)


def captions_of(
  directory: pathlib.Path, problems: list[Problem]
) -> dict[str, tuple[str, ...]]:
  """Captions by path below images/, from captions.jsonl."""
  path = directory / 'captions.jsonl'
  if not path.is_file():
    return {}
  found: dict[str, tuple[str, ...]] = {}
  for i, line in enumerate(path.read_text(encoding='utf-8-sig').splitlines()):
    if not line.strip():
      continue
    try:
      entry = json.loads(line)
      captions = entry['captions']
      if isinstance(captions, str) or not all(isinstance(c, str) for c in captions):
        raise TypeError('captions is no list of strings')
      name = str(entry['image'])
      found[name] = found.get(name, ()) + tuple(captions)
    except (ValueError, KeyError, TypeError) as error:
      what = f'captions.jsonl: line {i + 1} ({type(error).__name__}: {error})'
      problems.append(Problem('wrong text', what))
  return found
