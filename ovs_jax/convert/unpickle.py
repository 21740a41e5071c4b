"""Reads pickles without Python's unpickler: nothing in them is imported or run.

A pickle is a program for a small stack machine. This one knows the instructions, but
the names in it only look up `pickle_names`; what is not there is collected and refused.
Large byte strings stay in the file until they are asked for.
"""

import codecs
import io
import pathlib
import pickle
import struct
from collections.abc import Callable
from typing import Any

from ovs_jax.convert.pickle_names import (
  CALLS,
  INERT,
  Holder,
  Name,
  PickledArray,
  PickledDtype,
  is_allowed,
)
from ovs_jax.convert.storage import FileBytes

# Byte strings from here on stay in the file.
LARGE = 2**16
# The longest line of a number or a string in the old text instructions.
MAX_LINE = 2**20

_MODULES = {'__builtin__': 'builtins', 'copy_reg': 'copyreg'}
_NUMBERS = {
  pickle.BININT: '<i',
  pickle.BININT1: '<B',
  pickle.BININT2: '<H',
  pickle.BINFLOAT: '>d',
}
_CONSTANTS = {
  pickle.NONE: None,
  pickle.NEWTRUE: True,
  pickle.NEWFALSE: False,
  pickle.EMPTY_TUPLE: (),
}
_STRINGS = {
  pickle.SHORT_BINSTRING: ('<B', 'latin1'),  # of Python 2, text or bytes
  pickle.BINSTRING: ('<i', 'latin1'),
  pickle.SHORT_BINBYTES: ('<B', None),
  pickle.BINBYTES: ('<I', None),
  pickle.BINBYTES8: ('<Q', None),
  pickle.BYTEARRAY8: ('<Q', None),
  pickle.SHORT_BINUNICODE: ('<B', 'utf-8'),
  pickle.BINUNICODE: ('<I', 'utf-8'),
  pickle.BINUNICODE8: ('<Q', 'utf-8'),
}
_LONGS = {pickle.LONG1: '<B', pickle.LONG4: '<i'}
_TUPLES = {pickle.TUPLE1: 1, pickle.TUPLE2: 2, pickle.TUPLE3: 3}
_GETS = {pickle.BINGET: '<B', pickle.LONG_BINGET: '<I'}
_PUTS = {pickle.BINPUT: '<B', pickle.LONG_BINPUT: '<I'}
_SKIPS = {pickle.PROTO: 1, pickle.FRAME: 8}
_NEW: dict[bytes, Callable[[], Any]] = {
  pickle.EMPTY_LIST: list,
  pickle.EMPTY_DICT: dict,
  pickle.EMPTY_SET: lambda: Holder('builtins.set'),
}


class RefusedPickle(ValueError):
  """A pickle that names what a checkpoint does not need."""


class Unpickler:
  """The stack machine.

  Attributes:
    file: read from its position on; afterwards it stands behind the pickle.
    size: where the file ends, in bytes.
    where: what is read, for errors.
    path: the file itself if large byte strings may stay in it, else None.
    persistent: turns the identifier of a storage into it; None if there are none.
    script: whether TorchScript's classes may appear.
  """

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
    """See the attributes; nothing is read yet."""
    self.file = file
    self.size = size
    self.where = where
    self.path = path
    self.persistent = persistent
    self.script = script
    self._stack: list[Any] = []
    self._marked: list[list[Any]] = []
    self._memo: dict[int, Any] = {}
    self._refused: set[str] = set()

  def load(self) -> Any:
    """Returns the object that the pickle describes.

    Raises:
      ValueError: it is damaged, or cut off.
      RefusedPickle: it names something that is not on the list; all such names.
    """
    problem = None
    try:
      while (code := self._read(1)) != pickle.STOP:
        _ACTIONS[code](self, code)
      value = self._stack.pop()
    except KeyError as error:
      problem = error
      text = f'unknown instruction, memo or type {error}'
    except (
      ArithmeticError,
      AttributeError,
      IndexError,
      struct.error,
      TypeError,
      ValueError,
    ) as error:
      problem = error
      text = str(error)
    if self._refused:
      raise RefusedPickle(
        f'{self.where} is refused: besides tensors it names '
        f'{", ".join(sorted(self._refused))}. Nothing of it was run. Only tensors and '
        'plain containers are read; if you trust the file, load it with the program '
        'that wrote it and save model.state_dict() alone, best as .safetensors'
      )
    if problem is not None:
      raise ValueError(
        f'{self.where} is damaged: at byte {self.file.tell()} of {self.size}: {text}. '
        'A pickle with tensors was expected; download or copy the file again'
      ) from problem
    return value

  def _read(self, count: int) -> bytes:
    if count < 0 or count > self.size - self.file.tell():
      raise ValueError(f'it is cut off, {count} more bytes were expected')
    return self.file.read(count)

  def _line(self) -> bytes:
    line = self.file.readline(MAX_LINE)
    if not line.endswith(b'\n'):
      raise ValueError('it is cut off within a line')
    return line[:-1]

  def _number(self, layout: str) -> Any:
    (value,) = struct.unpack(layout, self._read(struct.calcsize(layout)))
    return value

  def _after_mark(self) -> list[Any]:
    items, self._stack = self._stack, self._marked.pop()
    return items

  # Instructions, each called with its own code.

  def _push_number(self, code: bytes) -> None:
    self._stack.append(self._number(_NUMBERS[code]))

  def _push_constant(self, code: bytes) -> None:
    self._stack.append(_CONSTANTS[code])

  def _push_new(self, code: bytes) -> None:
    self._stack.append(_NEW[code]())

  def _push_long(self, code: bytes) -> None:
    data = self._read(self._number(_LONGS[code]))
    self._stack.append(int.from_bytes(data, 'little', signed=True))

  def _push_string(self, code: bytes) -> None:
    layout, encoding = _STRINGS[code]
    count = self._number(layout)
    if self.path is not None and count >= LARGE and encoding != 'utf-8':
      start = self.file.tell()
      if count > self.size - start:
        raise ValueError(f'it is cut off, {count} more bytes were expected')
      self._stack.append(FileBytes(self.path, start, count))
      self.file.seek(start + count)
      return
    data = self._read(count)
    self._stack.append(data.decode(encoding) if encoding else data)

  def _push_line(self, code: bytes) -> None:
    line = self._line()
    if code == pickle.FLOAT:
      value: Any = float(line)
    elif code == pickle.STRING:
      value = codecs.escape_decode(line[1:-1])[0].decode('latin1')
    elif code == pickle.UNICODE:
      value = line.decode('raw-unicode-escape')
    else:
      flags = {b'00': False, b'01': True} if code == pickle.INT else {}
      value = flags[line] if line in flags else int(line.rstrip(b'L'))
    self._stack.append(value)

  def _mark(self, code: bytes) -> None:
    self._marked.append(self._stack)
    self._stack = []

  def _pop(self, code: bytes) -> None:
    if code == pickle.POP_MARK or not self._stack:
      self._after_mark()
    else:
      self._stack.pop()

  def _duplicate(self, code: bytes) -> None:
    self._stack.append(self._stack[-1])

  def _skip(self, code: bytes) -> None:
    self._read(_SKIPS[code])

  def _get(self, code: bytes) -> None:
    key = int(self._line()) if code == pickle.GET else self._number(_GETS[code])
    self._stack.append(self._memo[key])

  def _put(self, code: bytes) -> None:
    if code == pickle.MEMOIZE:
      key = len(self._memo)
    else:
      key = int(self._line()) if code == pickle.PUT else self._number(_PUTS[code])
    self._memo[key] = self._stack[-1]

  def _tuple(self, code: bytes) -> None:
    if code == pickle.TUPLE:
      done = tuple(self._after_mark())
      self._stack.append(done)
      return
    items = tuple(self._stack[-_TUPLES[code] :])
    if len(items) != _TUPLES[code]:
      raise IndexError('the stack is too short')
    self._stack[-_TUPLES[code] :] = [items]

  def _list(self, code: bytes) -> None:
    items = self._after_mark()
    self._stack.append(items)

  def _append(self, code: bytes) -> None:
    items = [self._stack.pop()] if code == pickle.APPEND else self._after_mark()
    target = self._stack[-1]
    if isinstance(target, list):
      target.extend(items)
    elif not isinstance(target, Holder):
      raise TypeError('items are added to something that is not a list')

  def _dict(self, code: bytes) -> None:
    items = self._after_mark()
    self._stack.append(_pairs(items))

  def _set_items(self, code: bytes) -> None:
    if code == pickle.SETITEM:
      value = self._stack.pop()
      items = [self._stack.pop(), value]
    else:
      items = self._after_mark()
    target = self._stack[-1]
    if isinstance(target, dict):
      target.update(_pairs(items))
    elif not isinstance(target, Holder):
      raise TypeError('items are set in something that is not a dictionary')

  def _drop_items(self, code: bytes) -> None:
    items = self._after_mark()
    if code == pickle.FROZENSET:
      self._stack.append(Holder('builtins.frozenset'))
    elif items and not isinstance(self._stack[-1], Holder):
      raise TypeError('items are added to something that is not a set')

  # Names and what is done with them.

  def _global(self, code: bytes) -> None:
    if code == pickle.STACK_GLOBAL:
      name, module = self._stack.pop(), self._stack.pop()
      if not isinstance(name, str) or not isinstance(module, str):
        raise TypeError('a name is not text')
    else:
      module, name = (self._line().decode('utf-8') for _ in range(2))
    self._stack.append(self._named(f'{_MODULES.get(module, module)}.{name}'))

  def _named(self, full: str) -> Name:
    if not is_allowed(full, script=self.script):
      self._refused.add(full)
    return Name(full)

  def _instance(self, code: bytes) -> None:
    """INST and OBJ, instances of Python 2's classes: none is known."""
    items = self._after_mark()
    if code == pickle.INST:
      module, name = (self._line().decode('utf-8') for _ in range(2))
      items.insert(0, self._named(f'{_MODULES.get(module, module)}.{name}'))
    self._stack.append(self._call(items[0], tuple(items[1:])))

  def _extension(self, code: bytes) -> None:
    raise ValueError('it uses the registry of extensions or buffers outside of it')

  def _reduce(self, code: bytes) -> None:
    args, function = self._stack.pop(), self._stack.pop()
    self._stack.append(self._call(function, args))

  def _new_object(self, code: bytes) -> None:
    if code == pickle.NEWOBJ_EX:
      self._stack.pop()  # keywords, which only inert classes could have
    self._reduce(code)

  def _call(self, function: Any, args: Any) -> Any:
    if not isinstance(function, Name) or not isinstance(args, tuple):
      raise TypeError('something that is not a function is called')
    if function.full in CALLS:
      return CALLS[function.full](*args)
    inert = function.full in INERT or function.full.startswith('__torch__.')
    if not inert and function.full not in self._refused:
      raise TypeError(f'{function.full} is called')
    return Holder(function.full)

  def _build(self, code: bytes) -> None:
    state = self._stack.pop()
    target = self._stack[-1]
    if isinstance(target, PickledDtype | PickledArray):
      target.build(state)
    elif isinstance(target, Holder):
      for part in state if isinstance(state, tuple) else (state,):
        found = part if isinstance(part, dict) else {}
        target.state.update({k: v for k, v in found.items() if isinstance(k, str)})
    elif not isinstance(target, dict):  # of a dictionary: attributes, not needed
      raise TypeError('a state is given to something that takes none')

  def _storage(self, code: bytes) -> None:
    if self.persistent is None:
      raise ValueError('it refers to storages outside of it')
    self._stack.append(self.persistent(self._stack.pop()))


def _pairs(items: list[Any]) -> dict[Any, Any]:
  """Returns alternating keys and values as a dictionary."""
  if len(items) % 2:
    raise ValueError('a dictionary has a key without a value')
  return {_key(k): v for k, v in zip(items[::2], items[1::2], strict=True)}


def _key(value: Any) -> Any:
  """Returns plain keys, and a new object for others, which could be costly to hash."""
  return value if isinstance(value, str | int | float | bytes | None) else object()


_ACTIONS: dict[bytes, Callable[[Unpickler, bytes], None]] = {
  code: action
  for codes, action in (
    (_NUMBERS, Unpickler._push_number),
    (_CONSTANTS, Unpickler._push_constant),
    (_NEW, Unpickler._push_new),
    (_LONGS, Unpickler._push_long),
    (_STRINGS, Unpickler._push_string),
    (
      (pickle.INT, pickle.LONG, pickle.FLOAT, pickle.STRING, pickle.UNICODE),
      Unpickler._push_line,
    ),
    ((pickle.MARK,), Unpickler._mark),
    ((pickle.POP, pickle.POP_MARK), Unpickler._pop),
    ((pickle.DUP,), Unpickler._duplicate),
    (_SKIPS, Unpickler._skip),
    ((pickle.GET, *_GETS), Unpickler._get),
    ((pickle.PUT, pickle.MEMOIZE, *_PUTS), Unpickler._put),
    ((pickle.TUPLE, *_TUPLES), Unpickler._tuple),
    ((pickle.LIST,), Unpickler._list),
    ((pickle.APPEND, pickle.APPENDS), Unpickler._append),
    ((pickle.DICT,), Unpickler._dict),
    ((pickle.SETITEM, pickle.SETITEMS), Unpickler._set_items),
    ((pickle.ADDITEMS, pickle.FROZENSET), Unpickler._drop_items),
    ((pickle.GLOBAL, pickle.STACK_GLOBAL), Unpickler._global),
    ((pickle.INST, pickle.OBJ), Unpickler._instance),
    (
      (
        pickle.EXT1,
        pickle.EXT2,
        pickle.EXT4,
        pickle.PERSID,
        pickle.NEXT_BUFFER,
        pickle.READONLY_BUFFER,
      ),
      Unpickler._extension,
    ),
    ((pickle.REDUCE,), Unpickler._reduce),
    ((pickle.NEWOBJ, pickle.NEWOBJ_EX), Unpickler._new_object),
    ((pickle.BUILD,), Unpickler._build),
    ((pickle.BINPERSID,), Unpickler._storage),
  )
  for code in codes
}
