"""Embeddings of names on disk, so that no name is embedded twice on one machine.

A store is a folder of shards: whole files, never changed after their atomic rename, so
that processes need no lock; few and large, so that 10,000 names are a handful of reads.
A shard is an uncompressed .npz with the names (UTF-8 JSON) and their rows, each with
the CRC-32 of the zip format. Only shards that hold a wanted name are read whole.
"""

import contextlib
import json
import os
import pathlib
import struct
import time
import uuid
import warnings
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Path, atomic_path, local

VARIABLE = 'OVS_JAX_TEXT_CACHE'
OFF = 'off'

_MANY = 16  # shards below `_SMALL` that are merged into one
_SMALL = 4 * 2**20  # bytes; 1,300 names of ViT-L/14
_STALE = 3600  # seconds after which a temporary file has no writer any more
# What NumPy and zipfile raise for files that are damaged or of another kind.
_DAMAGE = (
  ValueError,
  LookupError,
  EOFError,
  TypeError,
  AttributeError,
  RuntimeError,
  MemoryError,
  struct.error,
  zipfile.BadZipFile,
)

Rows = dict[str, Float[np.ndarray, 'd']]
_warned: set[str] = set()


def cache_root(given: Path | None = None) -> pathlib.Path | None:
  """Returns the folder of all stores, or None where the cache is off.

  Args:
    given: a folder, or 'off'; None takes $OVS_JAX_TEXT_CACHE (again a folder or
      'off'), and without that $XDG_CACHE_HOME/ovs_jax/text or ~/.cache/ovs_jax/text.
  """
  if given is None:
    given = os.environ.get(VARIABLE) or None
  if given is not None:
    text = os.fspath(given)
    if not text:
      raise UserError(f'the text cache is blank; give a directory, or {OFF!r}')
    return None if text == OFF else local(text).absolute()
  home = os.environ.get('XDG_CACHE_HOME', '')
  # The XDG specification says that a relative path is to be ignored.
  if not os.path.isabs(home):
    home = '~/.cache'
  return local(home) / 'ovs_jax' / 'text'


class Store:
  """Names and rows of one text tower with one set of templates.

  Nothing here raises because of the disk: what cannot be read is missing, what cannot
  be written stays in memory, and a warning names the file or directory.
  """

  def __init__(self, directory: Path, *, width: int) -> None:
    """Opens a folder, which need not exist; `width` is the length of every row."""
    self.directory = local(directory)
    self.width = width

  def read(self, names: Sequence[str]) -> Rows:
    """Returns the rows of those names that the store has, L2-normalised."""
    for _ in range(3):
      found: Rows = {}
      wanted = set(names)
      try:
        for path in self._shards():
          if not wanted:
            break
          rows = self._read(path, wanted)
          found.update(rows)
          wanted -= set(rows)
        return found
      except FileNotFoundError:
        continue  # merged by another process in between: look again
    return found

  def add(self, rows: Mapping[str, Float[np.ndarray, 'd']]) -> None:
    """Writes a shard with these rows, and merges shards when there are many."""
    if not rows:
      return
    try:
      self.write(rows)
      self._merge()
    except OSError as error:
      _warn_once(
        f'cannot write the text cache {self.directory} ({error.strerror or error}); '
        f'names are embedded anew each time. Set {VARIABLE} to another directory, or '
        f'to {OFF!r}.'
      )

  def _shards(self) -> list[pathlib.Path]:
    """All shards, oldest name first; temporary files start with a dot."""
    try:
      files = sorted(os.listdir(self.directory))
    except FileNotFoundError:
      return []
    except OSError as error:
      _warn_once(
        f'cannot read the text cache {self.directory} ({error.strerror}); names are '
        f'embedded anew. Set {VARIABLE} to another directory, or to {OFF!r}.'
      )
      return []
    return [self.directory / f for f in files if f.endswith('.npz') and f[0] != '.']

  def _read(self, path: pathlib.Path, wanted: set[str] | None) -> Rows:
    """Rows of a shard, only the wanted ones; None wants all.

    Raises:
      FileNotFoundError: it was merged with others.
    """
    try:
      with np.load(path, allow_pickle=False) as shard:
        names = json.loads(bytes(shard['names']))
        if not isinstance(names, list):
          raise UserError('it has no list of names')
        use = [i for i, n in enumerate(names) if wanted is None or n in wanted]
        if not use:
          return {}
        rows = shard['rows']
      self._check(names, rows)
    except FileNotFoundError:
      raise
    except OSError as error:
      _warn_once(
        f'cannot read {path} of the text cache ({error.strerror or error}); its names '
        'are embedded anew'
      )
      return {}
    except _DAMAGE as error:
      reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
      warnings.warn(
        f'{path} of the text cache is damaged ({reason}); it is removed, and its names '
        'are embedded anew',
        RuntimeWarning,
        stacklevel=4,
      )
      _remove(path)
      return {}
    return {names[i]: rows[i] for i in use}

  def _check(self, names: list[str], rows: np.ndarray) -> None:
    """Raises ValueError unless the shard is one that `write` made."""
    expected = (len(names), self.width)
    if rows.shape != expected or rows.dtype != np.float32:
      raise UserError(
        f'it holds {rows.dtype} {rows.shape}, expected float32 {expected}'
      )
    if not np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-3):
      raise UserError('its rows are not of length 1')

  def write(self, rows: Mapping[str, Float[np.ndarray, 'd']]) -> None:
    """Adds a shard with these rows, by its final name at once."""
    names = np.frombuffer(json.dumps(list(rows)).encode(), np.uint8)
    with atomic_path(self.directory / f'{uuid.uuid4().hex}.npz') as temporary:
      np.savez(temporary, names=names, rows=np.stack(list(rows.values())))

  def _merge(self) -> None:
    """Writes the content of many small shards as one, and then removes them."""
    try:
      small = [p for p in self._shards() if p.stat().st_size < _SMALL]
      if len(small) < _MANY:
        return
      rows: Rows = {}
      for path in small:
        rows.update(self._read(path, None))
    except FileNotFoundError:
      return  # another process is merging
    if rows:
      self.write(rows)
    for path in [*small, *self._leftovers()]:
      _remove(path)

  def _leftovers(self) -> list[pathlib.Path]:
    """Temporary files of processes that were killed."""
    old, found = time.time() - _STALE, []
    for path in self.directory.glob('.*'):
      with contextlib.suppress(FileNotFoundError):  # its writer has just renamed it
        if path.stat().st_mtime < old:
          found.append(path)
    return found


def _remove(path: pathlib.Path) -> None:
  try:
    path.unlink(missing_ok=True)
  except OSError:
    pass  # a cache that is read only; its reader has warned


def _warn_once(message: str) -> None:
  if message not in _warned:
    _warned.add(message)
    warnings.warn(message, RuntimeWarning, stacklevel=4)
