"""Tensors that lie in files, read one at a time when their values are asked for."""

import contextlib
import dataclasses
import functools
import io
import math
import pathlib
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
from jaxtyping import Shaped, UInt8

from ovs_jax.core.errors import UserError

# A tensor may repeat what is stored (a stride of 0), up to this many bytes.
MAX_EXPANDED = 64 * 2**20

# Axes that an array of NumPy may have, in all its versions.
MAX_RANK = 32

# Element types by PyTorch's names.
DTYPES = {
  **{
    name: np.dtype(name)
    for name in (
      'bool uint8 int8 uint16 int16 uint32 int32 uint64 int64 '
      'float16 float32 float64 complex64 complex128'
    ).split()
  },
  **{
    name: np.dtype(getattr(ml_dtypes, name))
    for name in ('bfloat16', 'float8_e4m3fn', 'float8_e5m2')
  },
}

# Floating point of less than 32 bits, which `widen` makes float32.
NARROW = tuple(
  DTYPES[name] for name in ('float16', 'bfloat16', 'float8_e4m3fn', 'float8_e5m2')
)


def open_file(path: pathlib.Path) -> io.BufferedReader:
  """Opens a file for reading, with an answer to what can be wrong about that.

  Raises:
    FileNotFoundError, PermissionError: it does not exist, or may not be read.
    UserError: it is a folder, a pipe or a device.
  """
  if path.exists() and not path.is_file() and not path.is_dir():
    raise UserError(f'{path} is no regular file; give a copy of what comes out of it')
  try:
    return open(path, 'rb')
  except FileNotFoundError as error:
    raise FileNotFoundError(
      f'{path} does not exist. Give the path of a checkpoint file (.pt, .pth, .bin, '
      '.pkl, .safetensors) or of a Hugging Face folder'
    ) from error
  except IsADirectoryError as error:
    raise UserError(f'{path} is a folder; a file was expected there') from error
  except PermissionError as error:
    raise PermissionError(
      f'{path} may not be read by this user; make it readable (chmod u+r) or copy it '
      'to where it is'
    ) from error


@dataclasses.dataclass(frozen=True)
class Bytes:
  """A stretch of a file, of an entry of an archive, or of the memory.

  Attributes:
    source: opens what they are in; anything that `io.BufferedIOBase` can do.
    offset: where in it they begin.
    size: how many they are.
    where: the name of the file, for errors.
  """

  source: Callable[[], contextlib.AbstractContextManager[Any]]
  offset: int
  size: int
  where: str = '(in the pickle)'

  def read(self, start: int = 0, count: int | None = None) -> UInt8[np.ndarray, ' n']:
    """Returns a copy of `count` of them, or all, from `start` on.

    Raises:
      ValueError: the file became shorter since it was looked at.
    """
    # Read rather than mapped: pages of a mapped file count as memory of the process.
    values = np.empty(self.size - start if count is None else count, np.uint8)
    with self.source() as file:
      file.seek(self.offset + start)
      found = file.readinto(values)
    if found != values.size:
      raise UserError(
        f'{self.where} ends within a tensor: {values.size} bytes were expected at '
        f'{self.offset + start}, {found} are there. Was it written anew meanwhile? '
        'Convert again'
      )
    return values


def file_bytes(path: pathlib.Path, offset: int, size: int) -> Bytes:
  """Returns a stretch of a file."""
  return Bytes(functools.partial(open_file, path), offset, size, str(path))


def memory_bytes(data: bytes) -> Bytes:
  """Returns bytes that came along in a pickle."""
  return Bytes(functools.partial(io.BytesIO, data), 0, len(data))


@dataclasses.dataclass
class Storage:
  """Elements one after the other, which tensors are views of.

  Attributes:
    key: its name in the file.
    dtype: of the elements; None where each view says it.
    nbytes: the size that the file declares.
    big: whether elements have the most significant byte first.
    data: where the bytes are; None until that is known.
  """

  key: str
  dtype: np.dtype | None
  nbytes: int
  big: bool = False
  data: Bytes | None = None

  @property
  def itemsize(self) -> int:
    """Returns the bytes of an element; 1 where each view says what elements are."""
    return self.dtype.itemsize if self.dtype else 1


@dataclasses.dataclass(frozen=True)
class Tensor:
  """A view of a storage; strides and offset count elements."""

  storage: Storage
  dtype: np.dtype
  shape: tuple[int, ...]
  strides: tuple[int, ...]
  offset: int

  @property
  def size(self) -> int:
    """Returns the number of elements."""
    return math.prod(self.shape)

  @property
  def _span(self) -> int:
    """Returns the number of elements from the first to the last in the storage."""
    if not self.size:
      return 0
    steps = zip(self.shape, self.strides, strict=True)
    return 1 + sum((length - 1) * stride for length, stride in steps)

  def problem(self) -> str | None:
    """Returns what is wrong with it, or None; tensors with a problem cannot be read."""
    item = self.dtype.itemsize
    if len(self.shape) != len(self.strides) or len(self.shape) > MAX_RANK:
      return f'has {len(self.shape)} sizes and {len(self.strides)} strides'
    if min((*self.shape, *self.strides, self.offset, 0)) < 0:
      return f'has a negative size, stride or offset: {self._layout()}'
    if math.prod(max(length, 1) for length in self.shape) >= 2**48:
      return f'has an impossible shape {self.shape}'
    if self.storage.data is None:
      return f'has its values in storage {self.storage.key!r}, which is missing'
    available = min(self.storage.nbytes, self.storage.data.size)
    if self.storage.nbytes > self.storage.data.size:
      return (
        f'has its values in storage {self.storage.key!r} of {self.storage.nbytes} '
        f'bytes, of which {self.storage.data.size} are there'
      )
    if (self.offset + self._span) * item > available and self.size:
      return (
        f'reaches beyond its storage {self.storage.key!r} of {available} bytes: '
        f'{self._layout()}, {item} bytes an element'
      )
    if self.size * item > max(self._span * item, MAX_EXPANDED):
      return (
        f'repeats {self._span * item} stored bytes to {self.size * item}: '
        f'{self._layout()}'
      )
    return None

  def _layout(self) -> str:
    return f'shape {self.shape}, strides {self.strides}, offset {self.offset}'

  def read(self) -> Shaped[np.ndarray, '...']:
    """Returns the values as a new array in C order and native byte order."""
    item = self.dtype.itemsize
    if not self.size:
      return np.zeros(self.shape, self.dtype)
    raw = self.storage.data.read(self.offset * item, self._span * item)
    if self.storage.big:
      unit = item // 2 if self.dtype.kind == 'c' else item
      raw = raw.view(f'u{unit}').byteswap(inplace=True).view(np.uint8)
    if self.dtype == np.bool_:  # any byte but 0 is true; NumPy takes only 1 for it
      raw = raw != 0
    strides = tuple(stride * item for stride in self.strides)
    view = np.ndarray(self.shape, self.dtype, raw, strides=strides)
    return np.array(view, order='C', copy=None)


def contiguous(shape: tuple[int, ...], *, fortran: bool = False) -> tuple[int, ...]:
  """Returns the strides, in elements, of an array without gaps."""
  order = range(len(shape)) if fortran else reversed(range(len(shape)))
  strides, step = [0] * len(shape), 1
  for axis in order:
    strides[axis] = step
    step *= shape[axis]
  return tuple(strides)


def widen(values: Shaped[np.ndarray, '...']) -> Shaped[np.ndarray, '...']:
  """Returns half-precision values as float32, others as they are."""
  return values.astype(np.float32) if values.dtype in NARROW else values
