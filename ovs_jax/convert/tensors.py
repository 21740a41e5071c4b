"""Foreign tensors by name, of which none is read before it is asked for."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Shaped

from ovs_jax.convert.storage import Tensor, widen
from ovs_jax.core.errors import UserError
from ovs_jax.core.tree import shorten

# What is converted: arrays by name, which may still lie in their file.
Source = Mapping[str, np.ndarray]


class Tensors(Source):
  """Tensors by name, each read anew when it is asked for.

  Half precision becomes float32. `dict(tensors)` therefore reads all of them; `rename`
  and `shapes` read none.
  """

  def __init__(self, *parts: Mapping[str, Tensor | np.ndarray]) -> None:
    """Takes tensors of files, arrays, or both; later ones replace earlier ones."""
    self._entries: dict[str, Tensor | np.ndarray] = {}
    for part in parts:
      self._entries.update(part._entries if isinstance(part, Tensors) else part)

  def __getitem__(self, name: str) -> Shaped[np.ndarray, '...']:
    """Reads a tensor, of the shape that the file has; halves become float32."""
    entry = self._entries[name]
    return widen(entry.read()) if isinstance(entry, Tensor) else entry

  def __iter__(self) -> Iterator[str]:
    """The names."""
    return iter(self._entries)

  def __len__(self) -> int:
    """The number of tensors."""
    return len(self._entries)

  def __contains__(self, name: object) -> bool:
    return name in self._entries

  def entry(self, name: str) -> Tensor | np.ndarray:
    """Returns a tensor, or where it is: `shape` and `dtype` are those of the file."""
    return self._entries[name]

  @property
  def shapes(self) -> dict[str, tuple[int, ...]]:
    """Returns the shapes, without reading values."""
    return {name: tuple(entry.shape) for name, entry in self._entries.items()}

  @property
  def dtypes(self) -> dict[str, np.dtype]:
    """Returns the dtypes in the file, before half precision is widened."""
    return {name: np.dtype(entry.dtype) for name, entry in self._entries.items()}

  def rename(self, rename: Callable[[str], str | None]) -> 'Tensors':
    """Returns them by other names, without reading values.

    Args:
      rename: from a name to the new one; None leaves the tensor out.

    Raises:
      ValueError: two tensors would have one name.
    """
    found: dict[str, Tensor | np.ndarray] = {}
    for name, entry in self._entries.items():
      new = rename(name)
      if new in found:
        raise UserError(f'two tensors would be called {new!r}; {name!r} is the second')
      if new is not None:
        found[new] = entry
    return Tensors(found)

  def inside(self, prefix: str) -> 'Tensors':
    """Returns those below a prefix, by their names without it."""
    start = len(prefix)
    return self.rename(lambda name: name[start:] if name.startswith(prefix) else None)

  def without(self, names: Iterable[str]) -> 'Tensors':
    """Returns all but those of these names."""
    left_out = set(names)
    return self.rename(lambda name: None if name in left_out else name)


def shape_of(source: Source, name: str) -> tuple[int, ...]:
  """Returns the shape of a tensor, without reading it if it can."""
  found = source.entry(name) if isinstance(source, Tensors) else source[name]
  return tuple(found.shape)


def shapes_of(
  source: Source, names: Sequence[str], *, what: str
) -> list[tuple[int, ...]]:
  """Returns the shapes of tensors that `what` has.

  Raises:
    ValueError: some are not there.
  """
  missing = [name for name in names if name not in source]
  if missing:
    raise UserError(
      f'not {what}: {shorten(missing)} missing from its {len(source)} tensors'
    )
  return [shape_of(source, name) for name in names]


def count(source: Source, before: str) -> int:
  """Returns how many numbers come, with a dot, after `before` at the start of names."""
  found = (re.match(rf'{re.escape(before)}(\d+)\.', name) for name in source)
  return len({match[1] for match in found if match})


def matching(source: Iterable[str], patterns: Sequence[str]) -> list[str]:
  """Returns the names that are wholly one of the patterns."""
  return [n for n in source if any(re.fullmatch(pattern, n) for pattern in patterns)]
