"""Tables that map the tensors of a foreign checkpoint to our parameters, strictly.

A table is a list of `Rule`s: a regular expression over source names, the paths of the
parameters that the tensor becomes, and how its values are laid out anew. The same table
read backwards writes the foreign layout (`export`). Nothing is skipped quietly: every
source tensor is used once or ignored by name, and every parameter is filled.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from ovs_jax.convert.tensors import shape_of
from ovs_jax.core.tree import flatten, unflatten

Shape = tuple[int, ...]
Arrays = list[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Transform:
  """How one source tensor becomes one or more parameters, and back.

  Attributes:
    split: from the tensor and the shapes of the parameters to the parameters; raises
      ValueError if they do not fit.
    join: the inverse.
  """

  split: Callable[[np.ndarray, Sequence[Shape]], Arrays]
  join: Callable[[Arrays], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Rule:
  r"""One line of a table.

  Attributes:
    pattern: matched against whole source names. A group named `layer` is the index
      into parameters that are stacked along axis 0.
    target: paths of the parameters, with backreferences (`\1`, `\g<name>`); several
      are separated by blanks.
    transform: see `Transform`.
  """

  pattern: str
  target: str
  transform: Transform


def _check(x: np.ndarray, shape: Shape) -> np.ndarray:
  if x.shape != tuple(shape):
    raise ValueError(f'gives {x.shape} instead of {tuple(shape)}')
  return x


def _head_split(x: np.ndarray, shape: Shape) -> np.ndarray:
  """Divides the last axis of a projection into heads."""
  if len(shape) != x.ndim + 1 or shape[-2] * shape[-1] != x.shape[-1]:
    raise ValueError(f'gives {x.shape}, whose last axis does not fit {shape}')
  return _check(x.reshape(*x.shape[:-1], *shape[-2:]), shape)


def _split_qkv(x: np.ndarray, shapes: Sequence[Shape]) -> Arrays:
  if x.shape[0] % 3:
    raise ValueError(f'has {x.shape[0]} rows, which are not query, key and value')
  return [_head_split(p.T, s) for p, s in zip(np.split(x, 3), shapes, strict=True)]


def _split_out(x: np.ndarray, shapes: Sequence[Shape]) -> Arrays:
  (shape,) = shapes
  if len(shape) != 3 or x.ndim != 2 or shape[0] * shape[1] != x.shape[1]:
    raise ValueError(f'gives {x.T.shape}, whose first axis does not fit {shape}')
  return [_check(x.T.reshape(*shape[:2], x.shape[0]), shape)]


def _permutation(axes: Shape, back: Shape) -> Transform:
  def split(x: np.ndarray, shapes: Sequence[Shape]) -> Arrays:
    if x.ndim != len(axes):
      raise ValueError(f'has {x.ndim} dimensions, {len(axes)} were expected')
    return [_check(x.transpose(axes), shapes[0])]

  return Transform(split, lambda parts: parts[0].transpose(back))


def _split_point(x: np.ndarray, shapes: Sequence[Shape]) -> Arrays:
  if x.shape[2:] != (1, 1):
    raise ValueError(f'has the shape {x.shape}, not that of a 1x1 convolution')
  return [_check(x[:, :, 0, 0].T, shapes[0])]


# The value as it is.
SAME = Transform(lambda x, shapes: [_check(x, shapes[0])], lambda parts: parts[0])
# PyTorch's (out, in) to Flax's (in, out).
LINEAR = _permutation((1, 0), (1, 0))
# PyTorch's (out, in, y, x) to Flax's (y, x, in, out).
CONV = _permutation((2, 3, 1, 0), (3, 2, 0, 1))
# A transposed convolution's (in, out, y, x) to our (in, y, x, out).
UPCONV = _permutation((0, 2, 3, 1), (0, 3, 1, 2))
# A 1x1 convolution that we write as a dense layer.
POINT = Transform(_split_point, lambda parts: parts[0].T[:, :, None, None])
# Packed rows q, k, v to three kernels (in, heads, head size), or biases (heads, ...).
QKV = Transform(
  _split_qkv,
  lambda parts: np.concatenate(
    [p.reshape(*p.shape[:-2], p.shape[-2] * p.shape[-1]).T for p in parts]
  ),
)
# One of those that is not packed, to its kernel, or bias.
PROJECTION = Transform(
  lambda x, shapes: [_head_split(x.T, shapes[0])],
  lambda parts: parts[0].reshape(*parts[0].shape[:-2], -1).T,
)
# The output projection to (heads, head size, out).
OUT = Transform(_split_out, lambda parts: parts[0].reshape(-1, parts[0].shape[-1]).T)


def attention_rules(source: str, target: str) -> list[Rule]:
  """Rules for PyTorch's `MultiheadAttention` as our `Attention`.

  Args:
    source: pattern up to the attention's tensors, without the dot.
    target: path of the `Attention`.
  """
  kernels = ' '.join(f'{target}/{part}/kernel' for part in 'qkv')
  biases = ' '.join(f'{target}/{part}/bias' for part in 'qkv')
  return [
    Rule(rf'{source}\.in_proj_weight', kernels, QKV),
    Rule(rf'{source}\.in_proj_bias', biases, QKV),
    Rule(rf'{source}\.out_proj\.weight', f'{target}/out/kernel', OUT),
    Rule(rf'{source}\.out_proj\.bias', f'{target}/out/bias', SAME),
  ]


def split_attention_rules(source: str, target: str) -> list[Rule]:
  """Rules for Hugging Face's attention, whose projections are apart; as the above."""
  part = rf'{source}\.(?P<part>[qkv])_proj'
  return [
    Rule(rf'{part}\.weight', rf'{target}/\g<part>/kernel', PROJECTION),
    Rule(rf'{part}\.bias', rf'{target}/\g<part>/bias', PROJECTION),
    Rule(rf'{source}\.out_proj\.weight', f'{target}/out/kernel', OUT),
    Rule(rf'{source}\.out_proj\.bias', f'{target}/out/bias', SAME),
  ]


def linear_rules(source: str, target: str, kernel: Transform = LINEAR) -> list[Rule]:
  """Rules for a layer with `weight` and `bias`."""
  return [
    Rule(rf'{source}\.weight', f'{target}/kernel', kernel),
    Rule(rf'{source}\.bias', f'{target}/bias', SAME),
  ]


def norm_rules(source: str, target: str) -> list[Rule]:
  """Rules for a layer or group norm."""
  return [
    Rule(rf'{source}\.weight', f'{target}/scale', SAME),
    Rule(rf'{source}\.bias', f'{target}/bias', SAME),
  ]


def below(rules: Sequence[Rule], source: str, target: str) -> list[Rule]:
  """Returns the rules of a part of a model, for the whole of it.

  Args:
    rules: the part's.
    source: pattern that its tensors' names have in front.
    target: path that its parameters have in front.
  """
  return [
    Rule(
      f'{source}{rule.pattern}',
      ' '.join(f'{target}{path}' for path in rule.target.split()),
      rule.transform,
    )
    for rule in rules
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
    found = re.fullmatch(rule.pattern, name)
    if found:
      targets = [found.expand(target) for target in rule.target.split()]
      layer = found.groupdict().get('layer')
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
  leaves: dict[str, np.ndarray] = {}
  filled: set[tuple[str, int | None]] = set()
  problems: dict[str, list[str]] = {}

  def report(kind: str, text: str) -> None:
    problems.setdefault(kind, []).append(text)

  idle = {rule.pattern for rule in rules}
  for name in _largest_first(source):
    if any(re.fullmatch(pattern, name) for pattern in ignore):
      continue
    matches = _match(name, rules)
    idle -= {match.rule.pattern for match in matches}
    if not matches:
      report('unused source tensors', name)
    if len(matches) > 1:
      report('source tensors with several rules', name)
    for match in matches[:1]:
      # Read, copied and forgotten one by one: a source may be larger than memory.
      for target, part in _parts(name, np.asarray(source[name]), match, want, report):
        if (target, match.layer) in filled:
          report('parameters filled twice', f'{target} (again by {name})')
        filled.add((target, match.layer))
        if target not in leaves:
          leaves[target] = np.empty(want[target].shape, want[target].dtype)
        if part is not None:
          leaves[target][... if match.layer is None else match.layer] = part
  for pattern in sorted(idle):
    report('rules that matched nothing', pattern)
  for path in _missing(filled, want):
    report('missing parameters', path)
  if problems:
    raise ValueError(_message(what, len(source), problems))
  return unflatten({path: leaves[path] for path in want})


def _largest_first(source: Mapping[str, np.ndarray]) -> list[str]:
  """Returns the names in an order that needs least memory.

  Reading a tensor takes room for it twice; large ones do so while most parameters are
  still empty.
  """
  return sorted(source, key=lambda name: -math.prod(shape_of(source, name)))


def _parts(
  name: str,
  value: np.ndarray,
  match: _Match,
  want: Mapping[str, Any],
  report: Callable[[str, str], None],
) -> list[tuple[str, np.ndarray | None]]:
  """Returns the parameters that a tensor becomes, without values if it cannot."""
  unknown = [target for target in match.targets if target not in want]
  if unknown:
    report('source tensors without a parameter', f'{name} (for {", ".join(unknown)})')
    return []
  shapes = [tuple(want[target].shape) for target in match.targets]
  if match.layer is not None:
    too_deep = any(match.layer >= shape[0] for shape in shapes)
    if too_deep:
      report('source tensors without a parameter', f'{name} (of {shapes[0][0]} layers)')
      return []
    shapes = [shape[1:] for shape in shapes]
  nothing: list[tuple[str, np.ndarray | None]] = [(t, None) for t in match.targets]
  if not jnp.issubdtype(value.dtype, jnp.floating):
    report('not floating-point numbers', f'{name} ({value.dtype})')
    return nothing
  try:
    values = match.rule.transform.split(value, shapes)
  except ValueError as error:
    report('other shapes', f'{name} {value.shape} {error}')
    return nothing
  return list(zip(match.targets, values, strict=True))


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
  lines = []
  for kind, items in problems.items():
    more = f', and {len(items) - 12} more' if len(items) > 12 else ''
    lines.append(f'  {kind}: {", ".join(items[:12])}{more}')
  return (
    f'{what}: cannot convert its {count} tensors: {counts}. Is it the kind of model '
    'that was asked for?\n' + '\n'.join(lines)
  )


def export(
  params: Mapping[str, Any], rules: Sequence[Rule], names: Iterable[str]
) -> dict[str, np.ndarray]:
  """Returns the foreign tensors called `names`; the inverse of `apply`.

  Raises:
    ValueError: names that no rule has, or whose parameters do not exist.
  """
  leaves = flatten(params)
  tensors, unknown = {}, []
  for name in names:
    matches = _match(name, rules)
    if not matches or any(t not in leaves for t in matches[0].targets):
      unknown.append(name)
      continue
    (match, *_) = matches
    parts = [np.asarray(leaves[target]) for target in match.targets]
    if match.layer is not None:
      parts = [part[match.layer] for part in parts]
    tensors[name] = np.array(match.rule.transform.join(parts), order='C')
  if unknown:
    raise ValueError(
      f'{len(unknown)} tensors cannot be exported: {", ".join(unknown[:12])}'
    )
  return tensors
