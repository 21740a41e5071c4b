"""Writes files as PyTorch does, instruction by instruction and without PyTorch."""

import dataclasses
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
CLASSES = {
  np.dtype(dtype): f'torch.{name}Storage'
  for dtype, name in (
    (np.bool_, 'Bool'),
    (np.uint8, 'Byte'),
    (np.int8, 'Char'),
    (np.int16, 'Short'),
    (np.int32, 'Int'),
    (np.int64, 'Long'),
    (np.float16, 'Half'),
    (ml_dtypes.bfloat16, 'BFloat16'),
    (np.float32, 'Float'),
    (np.float64, 'Double'),
  )
}


@dataclasses.dataclass(frozen=True)
class Global:
  """A class or function."""

  name: str


@dataclasses.dataclass(frozen=True)
class Call:
  """A call, and the state that the result is given afterwards."""

  function: str
  args: tuple[Any, ...] = ()
  state: Any = None
  new: bool = False


@dataclasses.dataclass(frozen=True)
class Outside:
  """A reference to something outside of the pickle."""

  identifier: Any


def dumps(value: Any, *, protocol: int = 2) -> bytes:
  """Returns a pickle of plain values, names, calls and references."""
  return pickle.PROTO + bytes([protocol]) + _code(value) + pickle.STOP


def _code(value: Any) -> bytes:
  if value is None:
    return pickle.NONE
  if isinstance(value, bool):
    return pickle.NEWTRUE if value else pickle.NEWFALSE
  if isinstance(value, int):
    data = value.to_bytes(value.bit_length() // 8 + 1, 'little', signed=True)
    return pickle.LONG1 + bytes([len(data)]) + data
  if isinstance(value, float):
    return pickle.BINFLOAT + struct.pack('>d', value)
  if isinstance(value, str):
    data = value.encode()
    return pickle.BINUNICODE + struct.pack('<I', len(data)) + data
  if isinstance(value, bytes):
    return pickle.BINBYTES + struct.pack('<I', len(value)) + value
  if isinstance(value, tuple):
    return pickle.MARK + b''.join(map(_code, value)) + pickle.TUPLE
  if isinstance(value, list):
    return pickle.EMPTY_LIST + pickle.MARK + b''.join(map(_code, value)) + b'e'
  if isinstance(value, dict):
    items = b''.join(_code(k) + _code(v) for k, v in value.items())
    return pickle.EMPTY_DICT + pickle.MARK + items + pickle.SETITEMS
  if isinstance(value, Global):
    module, _, name = value.name.rpartition('.')
    return pickle.GLOBAL + f'{module}\n{name}\n'.encode()
  if isinstance(value, Outside):
    return _code(value.identifier) + pickle.BINPERSID
  how = pickle.NEWOBJ if value.new else pickle.REDUCE
  code = _code(Global(value.function)) + _code(value.args) + how
  return code if value.state is None else code + _code(value.state) + pickle.BUILD


def storage(key: str, dtype: Any, count: int, *more: Any) -> Outside:
  """Returns the reference to a storage of `count` elements."""
  kind = CLASSES[np.dtype(dtype)] if not isinstance(dtype, str) else dtype
  return Outside(('storage', Global(kind), key, 'cpu', count, *more))


def view(
  store: Outside, shape: tuple[int, ...], strides: Any = None, offset: int = 0
) -> Call:
  """Returns a tensor in a storage; without strides it is contiguous."""
  if strides is None:
    strides = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
  args = (store, offset, tuple(shape), tuple(strides), False)
  return Call('torch._utils._rebuild_tensor_v2', (*args, ordered()))


def ordered(items: Mapping[str, Any] | None = None) -> Any:
  """Returns an OrderedDict; of a plain dict the reader makes no difference."""
  return Call('collections.OrderedDict') if items is None else dict(items)


def tensors(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, Call], dict[str, Any]]:
  """Returns one tensor and one storage per array."""
  views, stores = {}, {}
  for index, (name, array) in enumerate(arrays.items()):
    key = str(index)
    views[name] = view(storage(key, array.dtype, array.size), array.shape)
    stores[key] = np.ascontiguousarray(array)
  return views, stores


def write_zip(
  path: pathlib.Path,
  root: Any,
  stores: Mapping[str, Any],
  *,
  prefix: str = 'archive/',
  entries: Mapping[str, Any] | None = None,
  compression: int = zipfile.ZIP_STORED,
) -> pathlib.Path:
  """Writes what torch.save and torch.jit.save write; `entries` are further ones."""
  with zipfile.ZipFile(path, 'w', compression) as archive:
    archive.writestr(f'{prefix}data.pkl', root if type(root) is bytes else dumps(root))
    for name, data in (entries or {}).items():
      archive.writestr(f'{prefix}{name}', data)
    for key, values in stores.items():
      archive.writestr(f'{prefix}data/{key}', bytes(np.asarray(values).tobytes()))
    archive.writestr(f'{prefix}version', '3\n')
    archive.writestr(f'{prefix}.data/serialization_id', '0123456789')
  return path


def write_stream(
  path: pathlib.Path, root: Any, stores: Mapping[str, np.ndarray]
) -> pathlib.Path:
  """Writes what torch.save wrote before version 1.6."""
  system = {'protocol_version': PROTOCOL, 'little_endian': True}
  with open(path, 'wb') as file:
    for value in (MAGIC, PROTOCOL, system, root, list(stores)):
      file.write(dumps(value))
    for array in stores.values():
      file.write(struct.pack('<q', array.size) + array.tobytes())
  return path


def module(name: str, **attributes: Any) -> Call:
  """Returns a TorchScript object."""
  return Call(f'__torch__.{name}', (), attributes, new=True)


def declaration(name: str, parameters: list[str], buffers: list[str]) -> str:
  """Returns how the code of a TorchScript archive declares a class."""
  lists = [''.join(f'"{entry}", ' for entry in part) for part in (parameters, buffers)]
  return (
    f'class {name}(Module):\n  __parameters__ = [{lists[0]}]\n'
    f'  __buffers__ = [{lists[1]}]\n  training : bool\n'
  )
