"""What a frozen network makes of each picture, kept on disk for the next epochs.

A file per picture, named by a digest of its pixels, in a folder named by a digest of
the network. Files appear whole or not at all; a damaged one is computed again.
"""

import concurrent.futures
import hashlib
import pathlib
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Path, atomic_path, fingerprint, local
from ovs_jax.core.tree import flatten
from ovs_jax.core.types import Params, UInt8

Arrays = dict[str, np.ndarray]
_READERS = 8  # files read at the same time
# What NumPy and zipfile raise for files that are damaged or of another kind.
_DAMAGE = (
  OSError,
  ValueError,
  LookupError,
  EOFError,
  TypeError,
  RuntimeError,
  MemoryError,
  struct.error,
  zipfile.BadZipFile,
)


class ActivationCache:
  """Activations of pictures, from disk where they were computed before."""

  def __init__(
    self,
    directory: Path,
    *,
    identity: str,
    encode: Callable[[UInt8[np.ndarray, 'b h w 3']], Mapping[str, Any]],
    examples: int,
    shape: tuple[int, int, int, int],
  ) -> None:
    """Looks whether the disk has room for all pictures.

    Args:
      directory: of all caches; this one is a folder in it.
      identity: of the network, see `network_digest`.
      encode: from a batch of pictures to named arrays, a row per picture.
      examples: number of pictures that will come.
      shape: of the batches that `encode` is called with, always the same, so that a
        picture's numbers do not depend on how many others are missing.

    Raises:
      OSError: the disk has less room than the missing pictures take.
    """
    self._folder = local(directory) / identity
    self._encode = encode
    self._batch = shape[0]
    images = jax.ShapeDtypeStruct(shape, np.uint8)
    self._expected = {
      name: (x.shape[1:], np.dtype(x.dtype))
      for name, x in jax.eval_shape(encode, images).items()
    }
    size = sum(np.prod(s) * d.itemsize for s, d in self._expected.values())
    self._folder.mkdir(parents=True, exist_ok=True)
    missing = max(examples - sum(1 for _ in self._folder.glob('*/*.npz')), 0)
    free = shutil.disk_usage(self._folder).free
    if free < missing * size:
      raise OSError(
        f'{self._folder} has {free / 1e9:.1f} GB free, the activations of {missing} '
        f'pictures take {missing * size / 1e9:.1f} GB; set config.slots.cache to '
        "another directory, or to '' to compute them anew each time"
      )

  def __call__(self, images: UInt8[np.ndarray, 'b h w 3']) -> Arrays:
    """Returns the arrays of a batch; reads, or computes and writes, each picture."""
    paths = [self._path(image) for image in images]
    with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
      rows = list(pool.map(self._read, paths))
    missing = [i for i, row in enumerate(rows) if row is None]
    for start in range(0, len(missing), self._batch):
      part = missing[start : start + self._batch]
      filled = (part * self._batch)[: self._batch]
      found = {k: np.asarray(x) for k, x in self._encode(images[filled]).items()}
      for place, i in enumerate(part):
        rows[i] = {name: x[place] for name, x in found.items()}
        self._write(paths[i], rows[i])
    return {name: np.stack([row[name] for row in rows]) for name in self._expected}

  def _path(self, image: UInt8[np.ndarray, 'h w 3']) -> pathlib.Path:
    digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image))
    name = digest.hexdigest()
    return self._folder / name[:2] / f'{name[2:]}.npz'

  def _read(self, path: pathlib.Path) -> Arrays | None:
    """Returns the arrays of a file, or None if it has to be made (again)."""
    if not path.is_file():
      return None
    try:
      with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in self._expected}
      return {name: self._typed(name, x) for name, x in arrays.items()}
    except _DAMAGE as error:
      reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
      warnings.warn(
        f'{path} of the activation cache is damaged ({reason}); it is computed again',
        RuntimeWarning,
        stacklevel=2,
      )
      return None

  def _typed(self, name: str, raw: np.ndarray) -> np.ndarray:
    """Bytes as what they were; NumPy's files know no bfloat16."""
    shape, dtype = self._expected[name]
    if raw.dtype != np.uint8 or raw.size != np.prod(shape) * dtype.itemsize:
      raise UserError(f'{name} is {raw.dtype} {raw.shape}')
    return raw.view(dtype).reshape(shape)

  def _write(self, path: pathlib.Path, arrays: Arrays) -> None:
    raw = {
      k: np.ascontiguousarray(x).reshape(-1).view(np.uint8) for k, x in arrays.items()
    }
    with atomic_path(path) as temporary:
      np.savez(temporary, **raw)


def network_digest(params: Params, settings: Any) -> str:
  """Returns a digest of parameters, JSON-like settings and the arithmetic."""
  arithmetic = [jax.default_backend(), str(jax.config.jax_default_matmul_precision)]
  digest = hashlib.sha256(fingerprint([settings, arithmetic]).encode())
  leaves = flatten(params)
  for path in sorted(leaves):
    value = np.ascontiguousarray(leaves[path])
    digest.update(f'{path} {value.dtype} {value.shape}'.encode())
    digest.update(value.reshape(-1).view(np.uint8))
  return digest.hexdigest()[:16]
