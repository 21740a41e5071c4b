"""The names that a foreign checkpoint would have: a table read backwards."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ovs_jax.convert.rules import Rule, export, targets_of
from ovs_jax.core.tree import flatten

_REFERENCE = re.compile(r'\\g<(\w+)>|\\(\d)')


def foreign_names(rules: Sequence[Rule], params: Mapping[str, Any]) -> list[str]:
  """Returns the names of all tensors that `export` can write for these parameters.

  Args:
    rules: the table. Outside of its groups, patterns are plain text.
    params: the tree, of arrays or shapes.

  Raises:
    ValueError: parameters that no rule reaches.
  """
  leaves = flatten(params)
  names, reached = [], set()
  for rule in rules:
    first = _target_pattern(rule.target.split()[0])
    for path, leaf in leaves.items():
      found = re.fullmatch(first, path)
      if not found:
        continue
      values = {
        key.removeprefix('_'): value for key, value in found.groupdict().items()
      }
      stacked = '(?P<layer>' in rule.pattern and 'layer' not in values
      for layer in range(leaf.shape[0]) if stacked else [None]:
        name = _fill(rule.pattern, {**values, 'layer': str(layer)})
        if re.fullmatch(rule.pattern, name):
          names.append(name)
          reached.update(targets_of(name, [rule]))
  missing = [path for path in leaves if path not in reached]
  if missing:
    raise ValueError(
      f'{len(missing)} parameters have no foreign name: {", ".join(missing[:12])}'
    )
  return names


def export_all(
  rules: Sequence[Rule], params: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  """Returns every foreign tensor of these parameters; the inverse of `rules.apply`."""
  return export(params, rules, foreign_names(rules, params))


def _target_pattern(target: str) -> str:
  """Returns a pattern of our paths, with the groups that `target` refers to."""
  pattern, end, seen = '', 0, set()
  for reference in _REFERENCE.finditer(target):
    key = f'_{reference[1] or reference[2]}'
    pattern += re.escape(target[end : reference.start()])
    pattern += f'(?P={key})' if key in seen else f'(?P<{key}>[^/]+?)'
    seen.add(key)
    end = reference.end()
  return pattern + re.escape(target[end:])


def _fill(pattern: str, values: Mapping[str, str]) -> str:
  """Returns the text of `pattern` with its groups replaced by `values`."""
  text, number = '', 0
  for piece, group in _pieces(pattern):
    if not group:
      text += piece.replace('\\', '')
      continue
    number += 1
    named = re.match(r'\(\?P<(\w+)>', piece)
    text += values.get(named[1] if named else str(number), '')
  return text


def _pieces(pattern: str) -> Iterator[tuple[str, bool]]:
  """Yields plain parts and outermost groups of a pattern, in order."""
  depth, start = 0, 0
  for i, character in enumerate(pattern):
    if character == '(':
      if not depth:
        yield pattern[start:i], False
        start = i
      depth += 1
    elif character == ')':
      depth -= 1
      if not depth:
        yield pattern[start : i + 1], True
        start = i + 1
  yield pattern[start:], False
