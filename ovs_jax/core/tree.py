"""Parameter trees as paths, and ordered regular expressions over those paths.

A tree is a nested dict; a leaf is addressed as `a/b/c`. One idiom serves freezing,
learning-rate scales, weight decay, sharding and conversion: an ordered list of
`(pattern, value)` where the first pattern that matches (`re.search`) wins.
"""

import functools
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import jax

from ovs_jax.core.errors import UserError

T = TypeVar('T')


def flatten(tree: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """Returns the leaves by path, in the order of the tree."""
  leaves: dict[str, Any] = {}
  for name, value in tree.items():
    path = f'{prefix}{name}'
    if isinstance(value, Mapping):
      leaves.update(flatten(value, f'{path}/'))
    else:
      leaves[path] = value
  return leaves


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the nested dict of leaves given by path."""
  tree: dict[str, Any] = {}
  for path, value in leaves.items():
    *parents, name = path.split('/')
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
    node[name] = value
  return tree


@functools.lru_cache(maxsize=64)
def drawn_shapes(
  init: Callable[[Any, jax.Array], dict[str, Any]], config: Hashable
) -> dict[str, Any]:
  """Returns the shapes of the parameters that a model draws, without computing any.

  They are kept: large models take seconds to trace. Not to be changed.

  Args:
    init: draws the parameters, from a configuration and a key.
    config: sizes of the model.
  """
  return jax.eval_shape(functools.partial(init, config), jax.random.key(0))


def match_rules(
  paths: Iterable[str],
  rules: Sequence[tuple[str, T]],
  *,
  what: str,
  allow_unused: bool = False,
) -> dict[str, T]:
  """Gives each path the value of the first rule whose pattern it matches.

  Args:
    paths: paths of a parameter tree.
    rules: ordered `(regular expression, value)`.
    what: what the rules are for; named in errors.
    allow_unused: whether a rule may match no path. Sharding rules that cover every
      model of the package set it; rules written for one model do not.

  Raises:
    ValueError: paths without a rule or rules without a path, all of them at once.
  """
  paths = list(paths)
  values: dict[str, T] = {}
  used: set[str] = set()
  for path in paths:
    for pattern, value in rules:
      if re.search(pattern, path):
        used.add(pattern)
        values[path] = value
        break
  unmatched = [path for path in paths if path not in values]
  dead = [pattern for pattern, _ in rules if pattern not in used]
  if allow_unused:
    dead = []
  if unmatched or dead:
    raise UserError(
      f'{what}: {len(unmatched)} parameters match no pattern, {len(dead)} patterns '
      f'match no parameter (or come after one that takes theirs).\n'
      f'  without a pattern: {shorten(unmatched)}\n'
      f'  patterns without a parameter: {shorten(dead)}\n'
      f'  parameters: {shorten(paths)}'
    )
  return values


def map_with_path(function: Any, tree: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the tree with each leaf replaced by `function(path, leaf)`."""
  return unflatten({path: function(path, x) for path, x in flatten(tree).items()})


def difference(
  expected: Mapping[str, Any], got: Mapping[str, Any], *, what: str
) -> str | None:
  """Compares the paths and shapes of two trees.

  Returns:
    None when they agree, else one message with everything missing, unknown and
    mis-shaped, counts first.
  """
  want, have = flatten(expected), flatten(got)
  missing = [path for path in want if path not in have]
  unknown = [path for path in have if path not in want]
  shapes = [
    f'{path} {tuple(have[path].shape)} instead of {tuple(want[path].shape)}'
    for path in want
    if path in have and tuple(have[path].shape) != tuple(want[path].shape)
  ]
  if not (missing or unknown or shapes):
    return None
  return (
    f'{what}: {len(missing)} parameters missing, {len(unknown)} unknown, '
    f'{len(shapes)} of another shape.\n  missing: {shorten(missing)}\n'
    f'  unknown: {shorten(unknown)}\n  shapes: {shorten(shapes)}'
  )


def count_parameters(tree: Mapping[str, Any]) -> int:
  """Returns the number of scalars in the leaves (arrays or shape structs)."""
  return sum(int(x.size) for x in jax.tree.leaves(tree))


def shorten(names: Sequence[str], most: int = 12, separator: str = ', ') -> str:
  """Returns the first names as text, and how many there are more."""
  more = f'{separator}and {len(names) - most} more' if len(names) > most else ''
  return (separator.join(names[:most]) + more) or 'none'
