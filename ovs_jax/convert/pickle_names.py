"""The names that a pickled checkpoint may use, and what stands for each of them.

An allow-list: no name is ever imported. Those that rebuild tensors and plain containers
have a function here; classes that only carry settings become a `Holder`, which is data
and nothing else. `unpickle` refuses the rest by name.
"""

import dataclasses
import reprlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ovs_jax.convert.storage import (
  DTYPES,
  Bytes,
  Storage,
  Tensor,
  contiguous,
  memory_bytes,
)
from ovs_jax.core.errors import UserError


@dataclasses.dataclass(frozen=True)
class Name:
  """A class or function that a pickle names.

  Attributes:
    full: its name, with its module.
    call: what is done when it is called; None if it may only be named.
  """

  full: str
  call: Callable[..., Any] | None = None

  def __call__(self, *args: Any) -> Any:
    """Does what stands for a call."""
    if self.call is None:
      raise TypeError(f'{self.full} is called')
    return self.call(*args)


class Table(dict):
  """A dictionary that hashes plain keys alone; others could be costly to hash."""

  def __setitem__(self, key: Any, value: Any) -> None:
    plain = isinstance(key, str | int | float | bytes | None)
    super().__setitem__(key if plain else object(), value)

  @classmethod
  def of(cls, pairs: Iterable[Any]) -> 'Table':
    """Returns the dictionary of keys with values."""
    table = cls()
    for key, value in pairs:
      table[key] = value
    return table


@dataclasses.dataclass(eq=False)
class Holder:
  """An object of a class that is not known or not needed: its state, inert."""

  name: str
  state: dict[str, Any] = dataclasses.field(default_factory=dict)

  def build(self, state: Any) -> None:
    """Keeps what is named of a state, also of one in two parts."""
    for part in state if isinstance(state, tuple) else (state,):
      found = part if isinstance(part, dict) else {}
      self.state.update({k: v for k, v in found.items() if isinstance(k, str)})

  def _ignore(self, *items: Any) -> None:
    """Takes items that are added to it, which are not needed."""

  append = extend = add = __setitem__ = _ignore


@dataclasses.dataclass(eq=False)
class PickledDtype:
  """NumPy's dtype while it is rebuilt."""

  code: str
  big: bool = False

  def build(self, state: Any) -> None:
    """Takes the byte order from the state that NumPy pickles."""
    self.big = state[1] == '>'

  def resolve(self) -> np.dtype | None:
    """Returns the dtype in native byte order; None if it is not one of numbers."""
    if self.code[:1] not in tuple('biufc') or not self.code[1:].isdigit():
      return None
    dtype = np.dtype(self.code)
    return dtype if dtype in DTYPES.values() else None


@dataclasses.dataclass(eq=False)
class PickledArray:
  """NumPy's array while it is rebuilt; `tensor` stays None if it has no numbers."""

  tensor: Tensor | None = None

  def build(self, state: Any) -> None:
    """Takes shape, dtype, order and bytes from the state that NumPy pickles."""
    _, shape, dtype, fortran, data = state
    if not isinstance(data, list):  # of Python objects
      self.tensor = _array(data, dtype, shape, fortran=bool(fortran))


def _array(
  data: Any, dtype: PickledDtype, shape: Any, *, fortran: bool
) -> Tensor | None:
  """Returns an array whose bytes lie in the pickle, or in the file around it."""
  elements = dtype.resolve()
  if elements is None:
    return None
  if isinstance(data, str):  # from Python 2
    data = data.encode('latin1')
  if not isinstance(data, Bytes):
    data = memory_bytes(bytes(memoryview(data)))
  shape = _sizes((shape,) if isinstance(shape, int) else shape)
  storage = Storage('(in the pickle)', None, data.size, dtype.big, data)
  return Tensor(storage, elements, shape, contiguous(shape, fortran=fortran), 0)


def _sizes(values: Any = ()) -> tuple[int, ...]:
  if not isinstance(values, tuple | list) or not all(type(v) is int for v in values):
    raise UserError('sizes and strides are not whole numbers')
  return tuple(values)


def _tensor(
  storage: Any,
  offset: Any,
  size: Any,
  stride: Any,
  requires_grad: Any = False,
  hooks: Any = None,
  metadata: Any = None,
  *,
  dtype: Any = None,
) -> Tensor:
  """A view of a storage, whose elements newer files name beside it."""
  if metadata:
    raise UserError(
      f'a tensor is stored with pending operations: {reprlib.repr(metadata)}'
    )
  if not isinstance(storage, Storage):
    raise UserError('a tensor has no storage')
  if isinstance(dtype, Name):
    dtype = DTYPES[dtype.full.removeprefix('torch.')]
  dtype = dtype or storage.dtype
  if dtype is None:
    raise UserError('a tensor has no element type')
  (offset,) = _sizes((offset,))
  return Tensor(storage, dtype, _sizes(size), _sizes(stride), offset)


def _tensor_v3(*args: Any) -> Tensor:
  *plain, dtype = args[:7]
  return _tensor(*plain, *args[7:], dtype=dtype)


def _parameter(data: Any, *rest: Any) -> Tensor:
  if not isinstance(data, Tensor):
    raise UserError('a parameter has no tensor')
  return data


def _from_type(rebuild: Any, kind: Any, args: Any, state: Any) -> Any:
  """A tensor that carries attributes, or the plain subclass of one."""
  plain = isinstance(kind, Name) and kind.full in TENSOR_CLASSES
  if not plain or not isinstance(rebuild, Name) or rebuild.full not in REBUILDS:
    raise UserError('a tensor is of a class that cannot be read')
  return REBUILDS[rebuild.full](*args)


def _dictionary(*args: Any) -> Table:
  """OrderedDict() of pairs, as PyTorch under Python 2 wrote it."""
  (pairs,) = args or ((),)
  return Table.of(pairs.items() if isinstance(pairs, dict) else pairs)


def _encode(text: Any, encoding: Any = 'utf-8') -> bytes:
  """Bytes as Python 3 pickles them for Python 2."""
  if not isinstance(text, str) or encoding not in ('latin1', 'latin-1'):
    raise UserError('_codecs.encode is read of Latin-1 text only')
  return text.encode('latin1')


def _scalar(dtype: Any, data: Any = b'') -> PickledArray:
  return PickledArray(_array(data, dtype, (), fortran=False))


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any, *rest: Any) -> Any:
  return PickledArray(_array(data, dtype, shape, fortran=order == 'F'))


def _dtype(code: Any, *rest: Any) -> PickledDtype:
  if not isinstance(code, str):
    raise UserError('a dtype is given by something else than its code')
  return PickledDtype(code.lstrip('<>=|'), code.startswith('>'))


def _bytes(data: Any = b'') -> bytes:
  if not isinstance(data, bytes):
    raise UserError('a bytearray is made of something else than bytes')
  return data


REBUILDS: dict[str, Callable[..., Any]] = {
  'torch._utils._rebuild_tensor': _tensor,
  'torch._utils._rebuild_tensor_v2': _tensor,
  'torch._utils._rebuild_tensor_v3': _tensor_v3,
  'torch._utils._rebuild_parameter': _parameter,
  'torch._utils._rebuild_parameter_with_state': _parameter,
}

# What may be called, by full name.
CALLS: dict[str, Callable[..., Any]] = {
  **REBUILDS,
  'torch._tensor._rebuild_from_type_v2': _from_type,
  'torch.Size': _sizes,
  'collections.OrderedDict': _dictionary,
  'collections.Counter': _dictionary,
  'collections.defaultdict': lambda factory=None, *pairs: _dictionary(*pairs),
  '_codecs.encode': _encode,
  'builtins.bytearray': _bytes,
  'numpy.dtype': _dtype,
}
for _name in 'build_intlist build_doublelist build_boollist build_tensorlist'.split():
  CALLS[f'torch.jit._pickle.{_name}'] = lambda values, *rest: values
CALLS['torch.jit._pickle.restore_type_tag'] = lambda value, *rest: value
for _module in ('numpy.core', 'numpy._core'):
  CALLS[f'{_module}.multiarray._reconstruct'] = lambda *args: PickledArray()
  CALLS[f'{_module}.multiarray.scalar'] = _scalar
  CALLS[f'{_module}.numeric._frombuffer'] = _frombuffer

# Classes of storages and their elements; None where the tensor says it.
_ELEMENTS = """
  Bool bool  Byte uint8  Char int8  Short int16  Int int32  Long int64  Half float16
  BFloat16 bfloat16  Float float32  Double float64
  ComplexFloat complex64  ComplexDouble complex128
""".split()
STORAGES: dict[str, np.dtype | None] = {
  f'{module}.{name}Storage': DTYPES[dtype]
  for module in ('torch', 'torch.cuda')
  for name, dtype in zip(_ELEMENTS[::2], _ELEMENTS[1::2], strict=True)
}
for _module in ('torch.', 'torch.storage.', 'torch.cuda.', 'torch.storage._'):
  STORAGES[f'{_module}UntypedStorage'] = None

TENSOR_CLASSES = (
  'torch.Tensor',
  'torch._tensor.Tensor',
  'torch.nn.parameter.Parameter',
  'torch.nn.parameter.Buffer',
)

# What may be named without being called.
REFERENCES = (
  *STORAGES,
  *TENSOR_CLASSES,
  *(f'torch.{name}' for name in DTYPES),
  'torch.storage.TypedStorage',
  'numpy.ndarray',
)

# Classes of plain values and of settings, which nothing here reads: calls and instances
# of them become a `Holder`.
INERT = """
  builtins.int builtins.float builtins.bool builtins.complex builtins.str builtins.bytes
  builtins.set builtins.frozenset builtins.list builtins.tuple builtins.dict
  builtins.slice torch.device argparse.Namespace types.SimpleNamespace
  datetime.datetime datetime.timedelta
  pathlib.Path pathlib.PosixPath pathlib.PurePosixPath pathlib.WindowsPath
  pathlib._local.PosixPath pathlib._local.WindowsPath
  yacs.config.CfgNode fvcore.common.config.CfgNode detectron2.config.config.CfgNode
""".split()


def look_up(full: str, *, script: bool) -> Name | None:
  """Returns what stands for a name, or None if a pickle may not use it.

  Args:
    full: the name, with its module.
    script: whether the file is a TorchScript archive, whose classes may be used.
  """
  if full in INERT or (script and full.startswith('__torch__.')):
    return Name(full, lambda *args: Holder(full))
  if full in CALLS or full in REFERENCES:
    return Name(full, CALLS.get(full))
  return None
