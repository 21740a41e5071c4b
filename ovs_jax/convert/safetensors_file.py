"""Files of the safetensors format: a JSON table of tensors, then their values."""

import json
import math
import pathlib
import reprlib
import struct
from typing import Any

from ovs_jax.convert.storage import (
  DTYPES,
  MAX_RANK,
  Storage,
  Tensor,
  contiguous,
  file_bytes,
  open_file,
)
from ovs_jax.core.errors import UserError

# The longest table that the format allows.
MAX_HEADER = 100_000_000

# Codes of element types that are not of the kind of F32 and I64.
NAMES = {
  'BOOL': 'bool',
  'BF16': 'bfloat16',
  'F8_E4M3': 'float8_e4m3fn',
  'F8_E5M2': 'float8_e5m2',
  'C64': 'complex64',
  **{f'F{n}': f'float{n}' for n in (16, 32, 64)},
  **{f'I{n}': f'int{n}' for n in (8, 16, 32, 64)},
  **{f'U{n}': f'uint{n}' for n in (8, 16, 32, 64)},
}


def is_safetensors(head: bytes) -> bool:
  """Returns whether a file begins like one, from its first bytes."""
  if len(head) < 9 or head[8:9] != b'{':
    return False
  return struct.unpack('<Q', head[:8])[0] <= MAX_HEADER


def read_safetensors(
  path: pathlib.Path,
) -> tuple[dict[str, Tensor], dict[str, str]]:
  """Returns the tensors, which stay in the file, and its own metadata.

  Raises:
    ValueError: it is damaged, or cut off.
  """
  size = path.stat().st_size
  with open_file(path) as file:
    length = struct.unpack('<Q', file.read(8).ljust(8, b'\0'))[0]
    if length > min(size - 8, MAX_HEADER):
      raise _error(path, f'its table of {length} bytes is more than the file of {size}')
    text = file.read(length)
  try:
    table = json.loads(text.decode('utf-8'), object_pairs_hook=_unique)
    metadata = table.pop('__metadata__', {})
    notes = {str(key): str(value) for key, value in metadata.items()}
    entries = sorted(table.items(), key=lambda entry: entry[1]['data_offsets'])
    tensors = {name: _tensor(path, name, e, 8 + length) for name, e in entries}
  except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
    raise _error(path, f'its table cannot be read ({error!r})') from error
  starts = [entry['data_offsets'][0] for _, entry in entries]
  ends = [0, *(entry['data_offsets'][1] for _, entry in entries)]
  end = 8 + length + ends[-1]
  if end != size:
    raise _error(path, f'its tensors end at byte {end}, the file at {size}')
  if starts != ends[:-1]:
    raise _error(path, 'its tensors overlap, or have gaps between them')
  return tensors, notes


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  found = dict(pairs)
  if len(found) != len(pairs):
    raise UserError('a name occurs twice')
  return found


def _tensor(path: pathlib.Path, name: str, entry: Any, base: int) -> Tensor:
  shape, (start, end) = tuple(entry['shape']), entry['data_offsets']
  if entry['dtype'] not in NAMES:
    raise UserError(f'{name} has elements of type {entry["dtype"]!r}')
  dtype = DTYPES[NAMES[entry['dtype']]]
  if len(shape) > MAX_RANK:
    raise UserError(f'{name} has {len(shape)} axes, more than {MAX_RANK}')
  whole = all(type(value) is int and value >= 0 for value in (*shape, start, end))
  if not whole or math.prod(shape) * dtype.itemsize != end - start:
    raise UserError(
      f'{name} of shape {reprlib.repr(shape)} and {dtype} has {end - start} bytes'
    )
  data = file_bytes(path, base + start, end - start)
  storage = Storage(name, dtype, end - start, data=data)
  return Tensor(storage, dtype, shape, contiguous(shape), 0)


def _error(path: pathlib.Path, what: str) -> ValueError:
  return UserError(
    f'{path} is not a whole safetensors file: {what}. Download or copy it again'
  )
