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

from ovs_jax.convert.pickle_names import Holder, Name, Table, look_up
from ovs_jax.convert.storage import file_bytes
from ovs_jax.core.errors import UserError

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
# The registry of extensions is of the process, not of the file.
_REFUSED = {pickle.EXT1[0], pickle.EXT2[0], pickle.EXT4[0]}


class RefusedPickle(UserError):
  """A pickle that names what a checkpoint does not need."""


class _Bounded:
  """A file that says before it reads whether as much is there."""

  def __init__(self, file: io.BufferedIOBase, size: int) -> None:
    self.file, self.size = file, size

  def check(self, count: int) -> None:
    """Raises ValueError if fewer than `count` bytes are left."""
    if count < 0 or count > self.size - self.file.tell():
      raise UserError(f'it is cut off, {count} more bytes were expected')

  def read(self, count: int) -> bytes:
    """Returns so many bytes."""
    self.check(count)
    return self.file.read(count)

  def readline(self) -> bytes:
    """Returns a line with its end."""
    line = self.file.readline(MAX_LINE)
    if not line.endswith(b'\n'):
      raise UserError('it is cut off within a line')
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
    self._where, self._path, self._script = where, path, script
    self._refused: set[str] = set()
    if persistent is not None:
      self.persistent_load = persistent

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
      raise UserError(
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
    self.append(file_bytes(self._path, file.tell(), count))
    file.seek(count, io.SEEK_CUR)

  def _load_dict(self) -> None:
    items = self.pop_mark()  # first: it changes what `append` is
    self.append(Table.of(zip(items[::2], items[1::2], strict=True)))

  def _load_frozenset(self) -> None:
    self.pop_mark()
    self.append(Holder('builtins.frozenset'))

  def _new_object(self) -> None:
    self.stack.pop()  # keywords, which only inert classes could have
    self.load_reduce()

  def _build(self) -> None:
    state = self.stack.pop()
    target = self.stack[-1]
    if hasattr(target, 'build'):
      target.build(state)
    elif not isinstance(target, dict):  # of a dictionary: attributes, not needed
      raise TypeError('a state is given to something that takes none')

  dispatch = {
    **{k: v for k, v in pickle._Unpickler.dispatch.items() if k not in _REFUSED},
    pickle.FRAME[0]: _skip_frame,
    pickle.BINSTRING[0]: lambda self: self._load_bytes('<i', text=True),
    pickle.BINBYTES[0]: lambda self: self._load_bytes('<I'),
    pickle.BINBYTES8[0]: lambda self: self._load_bytes('<Q'),
    pickle.BYTEARRAY8[0]: lambda self: self._load_bytes('<Q'),
    pickle.EMPTY_DICT[0]: lambda self: self.append(Table()),
    pickle.DICT[0]: _load_dict,
    pickle.EMPTY_SET[0]: lambda self: self.append(Holder('builtins.set')),
    pickle.FROZENSET[0]: _load_frozenset,
    pickle.NEWOBJ[0]: pickle._Unpickler.load_reduce,
    pickle.NEWOBJ_EX[0]: _new_object,
    pickle.BUILD[0]: _build,
  }
