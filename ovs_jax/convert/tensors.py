"""Foreign tensors by name, of which none is read before it is asked for."""

import collections
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from ovs_jax.convert import reader

Tensors = Mapping[str, np.ndarray]


class Renamed(Mapping[str, np.ndarray]):
  """Tensors under other names; none is read before it is asked for.

  Attributes:
    tensors: by their old names.
    names: from new names to old ones.
  """

  def __init__(self, tensors: Tensors, names: Mapping[str, str]) -> None:
    """Gives each of `names` the tensor that its value names."""
    self.tensors, self.names = tensors, dict(names)

  def __getitem__(self, name: str) -> np.ndarray:
    """Reads the tensor of a new name."""
    return self.tensors[self.names[name]]

  def __iter__(self) -> Iterator[str]:
    """The new names."""
    return iter(self.names)

  def __len__(self) -> int:
    """The number of new names."""
    return len(self.names)

  def __contains__(self, name: object) -> bool:
    return name in self.names


def kind_of(tensors: Tensors, name: str) -> tuple[tuple[int, ...], np.dtype]:
  """Returns shape and type of a tensor, as in its file, without reading it if it can.

  The type may be smaller than that of the values, which a reader may widen.
  """
  while isinstance(tensors, Renamed | collections.ChainMap):
    if isinstance(tensors, Renamed):
      tensors, name = tensors.tensors, tensors.names[name]
    else:
      tensors = next(part for part in tensors.maps if name in part)
  if isinstance(tensors, reader.Tensors):
    entry = tensors.entry(name)
    return tuple(entry.shape), np.dtype(entry.dtype)
  return tensors[name].shape, tensors[name].dtype


def shape_of(tensors: Tensors, name: str) -> tuple[int, ...]:
  """Returns the shape of a tensor."""
  return kind_of(tensors, name)[0]


def shapes_of(
  source: Tensors, names: Sequence[str], *, what: str
) -> list[tuple[int, ...]]:
  """Returns the shapes of tensors that `what` has.

  Raises:
    ValueError: some are not there.
  """
  missing = [name for name in names if name not in source]
  if missing:
    raise ValueError(
      f'not {what}: {", ".join(missing[:12])} missing from its {len(source)} tensors'
    )
  return [shape_of(source, name) for name in names]


def count(source: Tensors, pattern: str) -> int:
  """Returns how many values the group of `pattern` has at the start of names."""
  found = (re.match(pattern, name) for name in source)
  return len({match[1] for match in found if match})


def matching(source: Iterable[str], patterns: Sequence[str]) -> list[str]:
  """Returns the names that are wholly one of the patterns."""
  return [n for n in source if any(re.fullmatch(pattern, n) for pattern in patterns)]


def without(source: Tensors, names: Iterable[str]) -> Renamed:
  """Returns the tensors but those of these names."""
  left_out = set(names)
  return Renamed(source, {n: n for n in source if n not in left_out})


def inside(source: Tensors, prefix: str) -> Renamed:
  """Returns the tensors below a prefix, by their names without it."""
  names = {n.removeprefix(prefix): n for n in source if n.startswith(prefix)}
  return Renamed(source, names)
