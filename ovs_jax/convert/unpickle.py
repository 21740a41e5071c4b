"""Reads pickles without importing or running anything that they name.

Python's own unpickler, the one that is written in Python: names look up `pickle_names`
and nothing else, and what is not there is collected and refused. It differs where a
hostile file could take memory or time: sizes are compared with the file before anything
is allocated, keys of dictionaries that are no plain values are not hashed, and large
byte strings stay in the file until they are asked for.
"""

import io
import pathlib
import pickle
import struct
from collections.abc import Callable
from typing import Any

from ovs_jax.convert.pickle_names import (
  Holder,
  Name,
  PickledArray,
  PickledDtype,
  look_up,
)
from ovs_jax.convert.storage import FileBytes

# Byte strings from here on stay in the file.
LARGE = 2**16
# The longest line of a number or a string in the old text instructions.
MAX_LINE = 2**20

_MODULES = {'__builtin__': 'builtins', 'copy_reg': 'copyreg'}
_PROBLEMS = (
  ArithmeticError,
  AttributeError,
  EOFError,
  LookupError,
  pickle.UnpicklingError,
  struct.error,
  TypeError,
  ValueError,
)


class RefusedPickle(ValueError):
  """A pickle that names what a checkpoint does not need."""


class _Bounded:
  """A file that says before it reads whether as much is there."""

  def __init__(self, file: io.BufferedIOBase, size: int) -> None:
    self.file, self.size = file, size

  def check(self, count: int) -> None:
    """Raises ValueError if fewer than `count` bytes are left."""
    if count < 0 or count > self.size - self.file.tell():
      raise ValueError(f'it is cut off, {count} more bytes were expected')

  def read(self, count: int) -> bytes:
    """Returns so many bytes."""
    self.check(count)
    return self.file.read(count)

  def readline(self) -> bytes:
    """Returns a line with its end."""
    line = self.file.readline(MAX_LINE)
    if not line.endswith(b'\n'):
      raise ValueError('it is cut off within a line')
    return line


class Unpickler(pickle._Unpickler):  # not the one in C, which hashes any key
  """The stack machine; afterwards the file stands behind the pickle."""

  def __init__(
    self,
    file: io.BufferedIOBase,
    *,
    size: int,
    where: str,
    path: pathlib.Path | None = None,
    persistent: Callable[[Any], Any] | None = None,
    script: bool = False,
  ) -> None:
    """Reads nothing yet.

    Args:
      file: read from its position on.
      size: where the file ends, in bytes.
      where: what is read, for errors.
      path: the file itself if large byte strings may stay in it, else None.
      persistent: turns the identifier of a storage into it; None if there are none.
      script: whether TorchScript's classes may appear.
    """
    self._bounded = _Bounded(file, size)
    super().__init__(self._bounded, encoding='latin1')  # of Python 2, text or bytes
    self._where, self._path = where, path
    self._persistent, self._script = persistent, script
    self._refused: set[str] = set()

  def load(self) -> Any:
    """Returns the object that the pickle describes.

    Raises:
      ValueError: it is damaged, or cut off.
      RefusedPickle: it names something that is not on the list; all such names.
    """
    value, problem = None, None
    try:
      value = super().load()
    except _PROBLEMS as error:
      problem = error
    if self._refused:
      raise RefusedPickle(
        f'{self._where} is refused: besides tensors it names '
        f'{", ".join(sorted(self._refused))}. Nothing of it was run. Only tensors and '
        'plain containers are read; if you trust the file, load it with the program '
        'that wrote it and save model.state_dict() alone, best as .safetensors'
      )
    if problem is not None:
      unknown = 'unknown instruction or type ' * isinstance(problem, KeyError)
      raise ValueError(
        f'{self._where} is damaged: at byte {self._bounded.file.tell()} of '
        f'{self._bounded.size}: {unknown}{problem}. A pickle with tensors was '
        'expected; download or copy the file again'
      ) from problem
    return value

  def find_class(self, module: str, name: str) -> Name:
    """Returns what stands for a name; unknown ones are noted, and refused later."""
    full = f'{_MODULES.get(module, module)}.{name}'
    found = look_up(full, script=self._script)
    if found is None:
      self._refused.add(full)
    return found or Name(full, lambda *args: Holder(full))

  def persistent_load(self, pid: Any) -> Any:
    """Returns the storage of an identifier."""
    if self._persistent is None:
      raise ValueError('it refers to storages outside of it')
    return self._persistent(pid)

  # Instructions that differ from Python's.

  def _skip_frame(self) -> None:
    self.read(8)

  def _load_bytes(self, layout: str, *, text: bool = False) -> None:
    (count,) = struct.unpack(layout, self.read(struct.calcsize(layout)))
    if self._path is None or count < LARGE:
      data = self.read(count)
      self.append(data.decode(self.encoding) if text else data)
      return
    self._bounded.check(count)
    file = self._bounded.file
    self.append(FileBytes(self._path, file.tell(), count))
    file.seek(count, io.SEEK_CUR)

  def _add_items(self, items: list[Any], kind: type) -> None:
    """Adds to a list or a dictionary; what is added to a `Holder` is not needed."""
    target = self.stack[-1]
    if isinstance(target, Holder):
      return
    if not isinstance(target, kind):
      raise TypeError(f'items are added to something that is not a {kind.__name__}')
    if kind is dict:
      target.update(_pairs(items))
    elif kind is list:
      target.extend(items)

  def _load_dict(self) -> None:
    items = self.pop_mark()  # first: it changes what `append` is
    self.append(_pairs(items))

  def _load_set(self, *, frozen: bool) -> None:
    if frozen:
      self.pop_mark()
    self.append(Holder('builtins.frozenset' if frozen else 'builtins.set'))

  def _new_object(self, *, keywords: bool) -> None:
    if keywords:  # which only inert classes could have
      self.stack.pop()
    self.load_reduce()

  def _build(self) -> None:
    state = self.stack.pop()
    target = self.stack[-1]
    if isinstance(target, Holder | PickledArray | PickledDtype):
      target.build(state)
    elif not isinstance(target, dict):  # of a dictionary: attributes, not needed
      raise TypeError('a state is given to something that takes none')

  def _refuse(self) -> None:
    raise ValueError('it uses the registry of extensions or buffers outside of it')

  dispatch = {
    **pickle._Unpickler.dispatch,
    pickle.FRAME[0]: _skip_frame,
    pickle.BINSTRING[0]: lambda self: self._load_bytes('<i', text=True),
    pickle.BINBYTES[0]: lambda self: self._load_bytes('<I'),
    pickle.BINBYTES8[0]: lambda self: self._load_bytes('<Q'),
    pickle.BYTEARRAY8[0]: lambda self: self._load_bytes('<Q'),
    pickle.APPEND[0]: lambda self: self._add_items([self.stack.pop()], list),
    pickle.APPENDS[0]: lambda self: self._add_items(self.pop_mark(), list),
    pickle.SETITEM[0]: lambda self: self._add_items(_last(self.stack, 2), dict),
    pickle.SETITEMS[0]: lambda self: self._add_items(self.pop_mark(), dict),
    pickle.ADDITEMS[0]: lambda self: self._add_items(self.pop_mark(), Holder),
    pickle.DICT[0]: _load_dict,
    pickle.EMPTY_SET[0]: lambda self: self._load_set(frozen=False),
    pickle.FROZENSET[0]: lambda self: self._load_set(frozen=True),
    pickle.NEWOBJ[0]: lambda self: self._new_object(keywords=False),
    pickle.NEWOBJ_EX[0]: lambda self: self._new_object(keywords=True),
    pickle.BUILD[0]: _build,
    pickle.EXT1[0]: _refuse,
    pickle.EXT2[0]: _refuse,
    pickle.EXT4[0]: _refuse,
    pickle.PERSID[0]: _refuse,
    pickle.NEXT_BUFFER[0]: _refuse,
    pickle.READONLY_BUFFER[0]: _refuse,
  }


def _last(stack: list[Any], count: int) -> list[Any]:
  items = stack[-count:]
  del stack[-count:]
  return items


def _pairs(items: list[Any]) -> dict[Any, Any]:
  """Returns alternating keys and values as a dictionary."""
  if len(items) % 2:
    raise ValueError('a dictionary has a key without a value')
  return {_key(k): v for k, v in zip(items[::2], items[1::2], strict=True)}


def _key(value: Any) -> Any:
  """Returns plain keys, and a new object for others, which could be costly to hash."""
  return value if isinstance(value, str | int | float | bytes | None) else object()
