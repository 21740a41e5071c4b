"""What files hold: a seal that shows damage, and an identity that shows a change.

A sealed directory has a file that lists the sizes and hashes of the others. It is made
when the last of them is written and compared before the first is read, so that a bit
that a disk or a copy has flipped is an error and not another weight. What is sent to a
bucket takes its seal along, which is compared once its files are on this machine. What
is written there directly, as steps of a training, has none: buckets check by themselves
what they keep.
"""

import concurrent.futures
import hashlib
import json
import mmap
import os
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import xxhash

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Place, below, local, read_json

SEAL = 'contents.json'
_AT_ONCE = 8  # files that are read at the same time
_WHOLE = 1 << 16  # bytes up to which an identity reads all of a file
_SAMPLE = 1 << 14  # bytes of each sample of a larger one


def seal(directory: Place) -> None:
  """Writes down what the files below a directory of this machine hold."""
  if isinstance(directory := _local(directory), pathlib.Path):
    files = _files(directory)
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
      hashes = pool.map(lambda file: _hash(directory / file[0]), files)
      found = {n: [size, x] for (n, size), x in zip(files, hashes, strict=True)}
    (directory / SEAL).write_text(json.dumps(found, indent=0, sort_keys=True))


def check_seal(directory: Place, *, named: Place | None = None) -> bool:
  """Compares the files below a directory with its seal.

  Args:
    directory: of this machine; of one at an address nothing is said.
    named: what it is a copy of, for errors.

  Returns:
    Whether there is one; without, nothing can be said.

  Raises:
    UserError: a file is missing, or holds something else; names it.
  """
  directory = _local(directory)
  named = directory if named is None else named
  if not isinstance(directory, pathlib.Path) or not (directory / SEAL).is_file():
    return False
  try:
    sealed = {n: (int(s), str(h)) for n, (s, h) in read_json(directory / SEAL).items()}
  except (ValueError, AttributeError, TypeError) as error:
    raise UserError(f'{named / SEAL} is damaged ({error})') from error
  sizes = dict(_files(directory))
  for name, (size, _) in sealed.items():
    if sizes.get(name) != size:
      found = f'{sizes[name]:,} bytes' if name in sizes else 'not there'
      raise UserError(f'{named / name} is {found}; {size:,} bytes were written')
  with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
    hashes = pool.map(lambda name: _hash(directory / name), sealed)
    for (name, (_, written)), now in zip(sealed.items(), hashes, strict=True):
      if now != written:
        raise UserError(f'{named / name} holds other bytes than were written')
  return True


def identity(path: Place, *, without: Collection[str] = ()) -> str:
  """Returns a short hash of a file or of all files below a directory.

  It tells names, sizes and contents apart, not where they are and when they were
  written. Of files over 64 kB it reads the beginning, the middle and the end, which
  differ where compressed data, or data with checksums, do; at an address, nothing.

  Args:
    path: of the file or the directory.
    without: names of files that do not count, wherever they are.
  """
  path = _local(path)
  names = [('.', path.stat().st_size)] if path.is_file() else below(path)
  names = [(n, size) for n, size in names if n.split('/')[-1] not in without]
  total = hashlib.sha256(json.dumps(names).encode())
  if isinstance(path, pathlib.Path):
    files = [path if name == '.' else path / name for name, _ in names]
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
      for digest in pool.map(_sampled, files):
        total.update(digest)
  return total.hexdigest()[:16]


def of_arrays(arrays: Mapping[str, np.ndarray], more: Any = None) -> str:
  """Returns a short hash of arrays (of any shapes) with their names, and of JSON."""
  total = hashlib.sha256(json.dumps(more, sort_keys=True, default=str).encode())
  for name, x in sorted(arrays.items()):
    total.update(f'{name} {x.dtype} {x.shape}'.encode())
    total.update(xxhash.xxh3_128_digest(x.tobytes()))
  return total.hexdigest()[:16]


def is_finite(x: np.ndarray) -> bool:
  """Whether an array (of any shape) has neither NaN nor infinity."""
  if x.dtype == 'bfloat16':  # as NumPy does not know it: an exponent of ones
    return not (x.view(np.uint16) & 0x7F80 == 0x7F80).any()
  if x.dtype.kind != 'f':
    return True
  # A sum that is finite, at the speed of memory, needs no second look.
  with np.errstate(over='ignore', invalid='ignore'):
    return bool(np.isfinite(x.sum()) or np.isfinite(x).all())


def _local(path: Place) -> Place:
  """Orbax gives paths of this machine as those of etils."""
  text = os.fspath(path)
  return path if '://' in text else local(text)


def _files(directory: pathlib.Path) -> list[tuple[str, int]]:
  return [found for found in below(directory) if found[0] != SEAL]


def _hash(path: pathlib.Path) -> str:
  with path.open('rb') as file:
    if not path.stat().st_size:
      return xxhash.xxh3_128_hexdigest(b'')
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
      return xxhash.xxh3_128_hexdigest(view)


def _sampled(path: pathlib.Path) -> bytes:
  size = path.stat().st_size
  with path.open('rb') as file:
    if size <= _WHOLE:
      return xxhash.xxh3_128_digest(file.read())
    total = xxhash.xxh3_128()
    for begin in (0, (size - _SAMPLE) // 2, size - _SAMPLE):
      file.seek(begin)
      total.update(file.read(_SAMPLE))
    return total.digest()
