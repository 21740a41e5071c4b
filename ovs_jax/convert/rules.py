"""Tables that map the tensors of a foreign checkpoint to our parameters, strictly.

A table is a list of `Rule`s: a source name with fields, the paths of the parameters
that the tensor becomes, and how its values are laid out anew. The same table read
backwards writes the foreign layout (`export`). Nothing is skipped quietly: every source
tensor is used once or ignored by name, and every parameter is filled.
"""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from ovs_jax.convert.tensors import shape_of
from ovs_jax.convert.transforms import (
  CONV,
  LINEAR,
  OUT,
  POINT,
  PROJECTION,
  QKV,
  ROW,
  SAME,
  UPCONV,
  VECTOR,
  Transform,
)
from ovs_jax.core.errors import UserError
from ovs_jax.core.tree import flatten, shorten, unflatten

# A field of a name: of digits, or one of the words after the colon.
_FIELD = re.compile(r'<(\w+)(?::([^>]*))?>')
_DIGITS = r'\d+'
_HOMELESS = 'source tensors without a parameter'


@dataclasses.dataclass(frozen=True)
class Rule:
  """One line of a table, which reads both ways.

  Attributes:
    source: a source name with fields: `blocks.<layer>.<part:c_fc|c_proj>.bias`. The
      field `layer` is the index into parameters that are stacked along axis 0.
    target: paths of the parameters, with the same fields; several are separated by
      blanks.
    transform: see `Transform`.
  """

  source: str
  target: str
  transform: Transform

  @property
  def targets(self) -> list[str]:
    """The paths, with their fields."""
    return self.target.split()

  def parse(self, template: str, name: str) -> dict[str, str] | None:
    """Returns the fields of `name`, or None if it is not of that template."""
    found = _pattern(template, self.source).fullmatch(name)
    return found.groupdict() if found else None


@functools.lru_cache(maxsize=4096)
def _pattern(template: str, source: str) -> re.Pattern[str]:
  """Returns the pattern of a template whose fields are as in `source`."""
  words = dict(_FIELD.findall(source))
  pattern, end, seen = '', 0, set()
  for field in _FIELD.finditer(template):
    name = field[1]
    text = f'(?P={name})' if name in seen else f'(?P<{name}>{words[name] or _DIGITS})'
    pattern += re.escape(template[end : field.start()]) + text
    seen.add(name)
    end = field.end()
  return re.compile(pattern + re.escape(template[end:]))


def _fill(template: str, fields: Mapping[str, str]) -> str:
  return _FIELD.sub(lambda field: fields[field[1]], template)


_NORM = (('.weight', '/scale', SAME), ('.bias', '/bias', SAME))
_OUT = (('.weight', '/kernel', OUT), ('.bias', '/bias', SAME))
_QKV = (
  ('weight', '/q/kernel /k/kernel /v/kernel', QKV),
  ('bias', '/q/bias /k/bias /v/bias', QKV),
)
_KV = (('weight', '/k/kernel /v/kernel', QKV), ('bias', '/k/bias /v/bias', QKV))
_HEADS = (('.weight', '/kernel', PROJECTION), ('.bias', '/bias', PROJECTION))
_ATTENTION_OUT = tuple((f'.out_proj{n}', f'/out{p}', t) for n, p, t in _OUT)

# Kinds of layers: of each tensor the end of its name, the ends of the paths of its
# parameters, and how its values are laid out anew.
LAYERS: dict[str, tuple[tuple[str, str, Transform], ...]] = {
  'same': (('', '', SAME),),
  # With axes of length 1 before it: one, of a number or a table; or two, of a vector.
  'row': (('', '', ROW),),
  'vector': (('', '', VECTOR),),
  'matrix': (('.weight', '/kernel', LINEAR),),
  'filters': (('.weight', '/kernel', CONV),),
  'linear': (('.weight', '/kernel', LINEAR), ('.bias', '/bias', SAME)),
  'conv': (('.weight', '/kernel', CONV), ('.bias', '/bias', SAME)),
  'upconv': (('.weight', '/kernel', UPCONV), ('.bias', '/bias', SAME)),
  'point': (('.weight', '/kernel', POINT), ('.bias', '/bias', SAME)),
  'norm': _NORM,
  'batch_norm': (*_NORM, ('.running_<statistic:mean|var>', '/<statistic>', SAME)),
  'heads': _HEADS,  # one of the projections of an attention
  'head_matrix': _HEADS[:1],  # the same without a bias; its bias alone
  'head_bias': (('', '', PROJECTION),),
  'out': _OUT,  # the one after it
  'qkv': tuple((f'.{name}', paths, t) for name, paths, t in _QKV),
  'qkv_matrix': tuple((f'.{name}', paths, t) for name, paths, t in _QKV[:1]),
  'kv': tuple((f'.{name}', paths, t) for name, paths, t in _KV),
  # PyTorch's `MultiheadAttention`, and Hugging Face's, whose projections are apart.
  'attention': (
    *((f'.in_proj_{name}', paths, t) for name, paths, t in _QKV),
    *_ATTENTION_OUT,
  ),
  'split_attention': (
    *((f'.<part:q|k|v>_proj{n}', f'/<part>{p}', t) for n, p, t in _HEADS),
    *_ATTENTION_OUT,
  ),
}


def layer_rules(source: str, target: str, kind: str) -> list[Rule]:
  """Returns the rules of a layer.

  Args:
    source: name of its tensors up to the last dot.
    target: path of its parameters.
    kind: a key of `LAYERS`.
  """
  return [
    Rule(f'{source}{name}', ' '.join(f'{target}{p}' for p in paths.split(' ')), t)
    for name, paths, t in LAYERS[kind]
  ]


def table(lines: str, source: str = '', target: str = '') -> list[Rule]:
  """Returns the rules of a table.

  Args:
    lines: name, path and kind of one layer after the other, as in `layer_rules`.
    source: what all names have in front.
    target: what all paths have in front.
  """
  words = lines.split()
  rows = zip(words[::3], words[1::3], words[2::3], strict=True)
  return [
    rule
    for name, path, kind in rows
    for rule in layer_rules(source + name, target + path, kind)
  ]


@dataclasses.dataclass(frozen=True)
class _Match:
  rule: Rule
  targets: list[str]
  layer: int | None


def _match(name: str, rules: Sequence[Rule]) -> list[_Match]:
  """Returns every rule that takes `name`; a sound table has exactly one."""
  matches = []
  for rule in rules:
    fields = rule.parse(rule.source, name)
    if fields is not None:
      targets = [_fill(target, fields) for target in rule.targets]
      layer = fields.get('layer')
      matches.append(_Match(rule, targets, None if layer is None else int(layer)))
  return matches


def targets_of(name: str, rules: Sequence[Rule]) -> list[str]:
  """Returns the paths that the source tensor `name` becomes; none if no rule has it."""
  return [target for match in _match(name, rules) for target in match.targets]


def apply(
  source: Mapping[str, np.ndarray],
  rules: Sequence[Rule],
  expected: Mapping[str, Any],
  *,
  what: str,
  ignore: Sequence[str] = (),
) -> dict[str, Any]:
  """Converts a foreign checkpoint.

  Args:
    source: its tensors by name.
    rules: the table; each source name must match exactly one.
    expected: the parameter tree to fill; leaves have `shape` and `dtype`
      (`jax.eval_shape` of the model's init).
    what: what is converted; named in errors.
    ignore: patterns of whole source names that hold no parameter.

  Returns:
    Parameters as nested dicts of NumPy arrays with the dtypes of `expected`.

  Raises:
    ValueError: anything unused, missing, doubly filled, or of another shape, or a
      rule that matched nothing; all of it in one message, counts first.
  """
  want = flatten(expected)
  leaves = {path: np.empty(leaf.shape, leaf.dtype) for path, leaf in want.items()}
  filled: set[tuple[str, int | None]] = set()
  problems: dict[str, list[str]] = collections.defaultdict(list)
  idle = {rule.source for rule in rules}
  # Reading a tensor takes room for it twice; large ones first, while most parameters
  # are still empty. One by one: a source may be larger than memory.
  for name in sorted(source, key=lambda name: -math.prod(shape_of(source, name))):
    if any(re.fullmatch(pattern, name) for pattern in ignore):
      continue
    matches = _match(name, rules)
    idle -= {match.rule.source for match in matches}
    if not matches:
      problems['unused source tensors'].append(name)
    if len(matches) > 1:
      problems['source tensors with several rules'].append(name)
    for match in matches[:1]:
      misfit = _fill_leaves(leaves, match, np.asarray(source[name]))
      if misfit is not None:
        kind, text = misfit
        problems[kind].append(f'{name} {text}')
        if kind == _HOMELESS:
          continue
      for target in match.targets:
        if (target, match.layer) in filled:
          problems['parameters filled twice'].append(f'{target} (again by {name})')
        filled.add((target, match.layer))
  problems['rules that matched nothing'] = sorted(idle)
  problems['missing parameters'] = _missing(filled, want)
  problems = {kind: items for kind, items in problems.items() if items}
  if problems:
    raise UserError(_message(what, len(source), problems))
  return unflatten(leaves)


def _fill_leaves(
  leaves: Mapping[str, np.ndarray], match: _Match, value: np.ndarray
) -> tuple[str, str] | None:
  """Writes a tensor into its parameters; returns the kind of a problem, and it."""
  unknown = [target for target in match.targets if target not in leaves]
  if unknown:
    return _HOMELESS, f'(for {", ".join(unknown)})'
  parts = [leaves[target] for target in match.targets]
  if match.layer is not None:
    if any(match.layer >= len(part) for part in parts):
      return _HOMELESS, f'(of {len(parts[0])} layers)'
    parts = [part[match.layer, ...] for part in parts]
  if not jnp.issubdtype(value.dtype, jnp.floating):
    return 'not floating-point numbers', f'({value.dtype})'
  try:
    values = match.rule.transform.split(value, [part.shape for part in parts])
    for part, new in zip(parts, values, strict=True):
      if new.shape != part.shape:
        raise UserError(f'gives {new.shape} instead of {part.shape}')
      part[...] = new
  except ValueError as error:
    return 'other shapes', f'{value.shape} {error}'
  return None


def _missing(filled: set[tuple[str, int | None]], want: Mapping[str, Any]) -> list[str]:
  """Returns the parameters, or layers of them, that no tensor filled."""
  stacked = {path for path, layer in filled if layer is not None}
  missing = []
  for path, leaf in want.items():
    if path in stacked:
      layers = range(leaf.shape[0])
      missing += [f'{path}[{i}]' for i in layers if (path, i) not in filled]
    elif (path, None) not in filled:
      missing.append(path)
  return missing


def _message(what: str, count: int, problems: Mapping[str, list[str]]) -> str:
  counts = ', '.join(f'{len(items)} {kind}' for kind, items in problems.items())
  lines = '\n'.join(f'  {kind}: {shorten(items)}' for kind, items in problems.items())
  return (
    f'{what}: cannot convert its {count} tensors: {counts}. Is it the kind of model '
    f'that was asked for?\n{lines}'
  )


def export(
  params: Mapping[str, Any], rules: Sequence[Rule], names: Iterable[str]
) -> dict[str, np.ndarray]:
  """Returns the foreign tensors called `names`; the inverse of `apply`.

  Raises:
    ValueError: names that no rule has, or whose parameters do not exist.
  """
  return dict(export_each(params, rules, names))


def export_each(
  params: Mapping[str, Any], rules: Sequence[Rule], names: Iterable[str]
) -> Iterator[tuple[str, np.ndarray]]:
  """Gives what `export` returns one by one, so that not all are in memory.

  Raises:
    ValueError: names that no rule has, or whose parameters do not exist.
  """
  leaves = flatten(params)
  found, unknown = {}, []
  for name in names:
    match = next(iter(_match(name, rules)), None)
    if match is None or not leaves.keys() >= set(match.targets):
      unknown.append(name)
    else:
      found[name] = match
  if unknown:
    raise UserError(f'{len(unknown)} tensors cannot be exported: {shorten(unknown)}')
  for name, match in found.items():
    layer = ... if match.layer is None else match.layer
    parts = [np.asarray(leaves[target])[layer] for target in match.targets]
    yield name, np.array(match.rule.transform.join(parts), order='C')


def foreign_names(rules: Sequence[Rule], params: Mapping[str, Any]) -> list[str]:
  """Returns the names of all tensors that `export` can write for these parameters.

  Args:
    rules: the table.
    params: the tree, of arrays or shapes.

  Raises:
    ValueError: parameters that no rule reaches.
  """
  leaves = flatten(params)
  names, reached = [], set()
  for rule in rules:
    for path, leaf in leaves.items():
      fields = rule.parse(rule.targets[0], path)
      if fields is None:
        continue
      reached.update(_fill(target, fields) for target in rule.targets)
      stacked = '<layer>' in rule.source and 'layer' not in fields
      for layer in range(leaf.shape[0]) if stacked else [0]:
        names.append(_fill(rule.source, {'layer': str(layer), **fields}))
  missing = [path for path in leaves if path not in reached]
  if missing:
    raise UserError(
      f'{len(missing)} parameters have no foreign name: {shorten(missing)}'
    )
  return names


def export_all(
  rules: Sequence[Rule], params: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  """Returns every foreign tensor of these parameters; the inverse of `apply`."""
  return export(params, rules, foreign_names(rules, params))
