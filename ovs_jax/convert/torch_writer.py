"""Writes tensors as PyTorch and detectron2 keep them, without PyTorch.

The same tensors give the same bytes.
"""

import dataclasses
import io
import math
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

Tensors = Mapping[str, np.ndarray]

_STORAGES = {
  np.dtype(dtype): f'{name}Storage'
  for dtype, name in (
    (np.bool_, 'Bool'),
    (np.uint8, 'Byte'),
    (np.int32, 'Int'),
    (np.int64, 'Long'),
    (np.float16, 'Half'),
    (ml_dtypes.bfloat16, 'BFloat16'),
    (np.float32, 'Float'),
    (np.float64, 'Double'),
  )
}
_FOLDER = 'archive/'  # in the archive; any name will do
_VERSION = '3\n'  # of the archive
_AT_ONCE = 2**24  # bytes of a tensor that are copied at the same time


@dataclasses.dataclass(frozen=True)
class _Name:
  """A class or function of a module, which is not imported."""

  module: str
  name: str


@dataclasses.dataclass(frozen=True)
class _Call:
  """What a function returns when the file is read."""

  function: _Name
  args: tuple[Any, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Storage:
  """A reference to the numbers of a tensor, which lie in an entry of their own."""

  identity: tuple[Any, ...]


def write_archive(path: pathlib.Path, tensors: Tensors) -> None:
  """Writes a state dict as `torch.save` does (.pt, .pth)."""
  rows = {name: _view(str(i), x) for i, (name, x) in enumerate(tensors.items())}
  with zipfile.ZipFile(path, 'w') as archive:
    _write(archive, 'data.pkl', pickle.PROTO + b'\2' + _code(rows) + pickle.STOP)
    _write(archive, 'byteorder', b'little')
    for i, x in enumerate(tensors.values()):
      _write(archive, f'data/{i}', np.ascontiguousarray(x).reshape(-1).view(np.uint8))
    _write(archive, 'version', _VERSION.encode())


def write_pickle(path: pathlib.Path, tensors: Tensors) -> None:
  """Writes NumPy arrays as detectron2's files of backbones have them (.pkl)."""
  found = {name: np.ascontiguousarray(x) for name, x in tensors.items()}
  content = {'model': found, '__author__': 'ovs_jax', 'matching_heuristics': True}
  with open(path, 'wb') as file:
    pickle.dump(content, file, protocol=4)


# By the ending of the file.
WRITERS: dict[str, Callable[[pathlib.Path, Tensors], None]] = {
  '.pt': write_archive,
  '.pth': write_archive,
  '.pkl': write_pickle,
}


def _write(archive: zipfile.ZipFile, name: str, content: Any) -> None:
  entry = zipfile.ZipInfo(f'{_FOLDER}{name}')  # of 1980, whenever it is written
  with archive.open(entry, 'w', force_zip64=True) as file:
    for start in range(0, len(content), _AT_ONCE):
      file.write(memoryview(content)[start : start + _AT_ONCE])


def _view(key: str, x: np.ndarray) -> _Call:
  """Returns the call that makes a contiguous tensor of a storage."""
  kind = _Name('torch', _STORAGES[x.dtype])
  storage = _Storage(('storage', kind, key, 'cpu', x.size))
  strides = tuple(math.prod(x.shape[i + 1 :]) for i in range(x.ndim))
  hooks = _Call(_Name('collections', 'OrderedDict'))
  rebuild = _Name('torch._utils', '_rebuild_tensor_v2')
  return _Call(rebuild, (storage, 0, x.shape, strides, False, hooks))


def _code(value: Any) -> bytes:
  """Returns the instructions of a pickle that put a value on the stack."""
  if isinstance(value, _Name):
    return pickle.GLOBAL + f'{value.module}\n{value.name}\n'.encode()
  if isinstance(value, _Call):
    return _code(value.function) + _code(value.args) + pickle.REDUCE
  if isinstance(value, _Storage):
    return _code(value.identity) + pickle.BINPERSID
  if isinstance(value, tuple):
    return pickle.MARK + b''.join(map(_code, value)) + pickle.TUPLE
  if isinstance(value, dict):
    items = io.BytesIO()
    for key, x in value.items():
      items.write(_code(key) + _code(x))
    return pickle.EMPTY_DICT + pickle.MARK + items.getvalue() + pickle.SETITEMS
  if isinstance(value, str):
    data = value.encode()
    return pickle.BINUNICODE + struct.pack('<I', len(data)) + data
  if isinstance(value, bool):
    return pickle.NEWTRUE if value else pickle.NEWFALSE
  data = value.to_bytes(value.bit_length() // 8 + 1, 'little', signed=True)
  return pickle.LONG1 + bytes([len(data)]) + data
