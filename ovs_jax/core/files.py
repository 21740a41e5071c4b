"""Files that appear whole or not at all, and early answers about the disk."""

import contextlib
import ctypes
import glob
import hashlib
import json
import os
import pathlib
import shutil
import sys
import uuid
from collections.abc import Iterator
from typing import Any

Path = str | os.PathLike[str]


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[pathlib.Path]:
  """Yields a temporary sibling to write, which becomes `path` when all went well.

  Works for files and for directories; a failure removes what was written. What exists
  is replaced in one step. (Where two directories cannot change places, an existing one
  is moved aside first.)
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f'.{path.name}.{uuid.uuid4().hex[:8]}.tmp{path.suffix}')
  try:
    yield temporary
    if not (path.is_dir() and temporary.is_dir()):
      os.replace(temporary, path)
    elif not _exchange(temporary, path):
      old = path.with_name(f'.{path.name}.{uuid.uuid4().hex[:8]}.old')
      path.rename(old)
      temporary.rename(path)
      shutil.rmtree(old)
  finally:
    # With what is left of its writer's own temporaries, such as Orbax's.
    _remove(path.parent, f'{glob.escape(temporary.name)}*')


def clear_leftovers(path: Path) -> None:
  """Removes what killed writers of `path` left; nobody may be writing it."""
  path = pathlib.Path(path)
  _remove(path.parent, f'.{glob.escape(path.name)}.*.tmp*')


def _remove(directory: pathlib.Path, pattern: str) -> None:
  for left in directory.glob(pattern):
    if left.is_dir():
      shutil.rmtree(left, ignore_errors=True)
    else:
      left.unlink(missing_ok=True)


def _exchange(one: pathlib.Path, other: pathlib.Path) -> bool:
  """Lets two directories change places at once; False where that is not possible."""
  if sys.platform != 'linux' or not hasattr(libc := ctypes.CDLL(None), 'renameat2'):
    return False
  here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
  names = (os.fsencode(path.absolute()) for path in (one, other))
  return libc.renameat2(here, next(names), here, next(names), exchange) == 0


def write_text(path: Path, text: str) -> None:
  """Writes UTF-8 text atomically."""
  with atomic_path(path) as temporary:
    temporary.write_text(text, encoding='utf-8')


def write_json(path: Path, value: Any) -> None:
  """Writes JSON atomically, with sorted keys."""
  write_text(path, json.dumps(value, indent=2, sort_keys=True) + '\n')


def read_json(path: Path) -> Any:
  """Reads JSON.

  Raises:
    ValueError: the file is not JSON (for example cut off).
  """
  try:
    return json.loads(pathlib.Path(path).read_text(encoding='utf-8'))
  except json.JSONDecodeError as error:
    raise ValueError(
      f'{path} is not valid JSON ({error}); delete it to start again'
    ) from error


def fingerprint(value: Any) -> str:
  """Returns a short hash of a JSON-like value, the same in every process."""
  text = json.dumps(value, sort_keys=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_writable(directory: Path, *, megabytes: int) -> pathlib.Path:
  """Makes `directory` and checks that it can take what is to come.

  Raises:
    OSError: it cannot be created or written, or the disk has less than `megabytes`
      free.
  """
  directory = pathlib.Path(directory).absolute()
  try:
    directory.mkdir(parents=True, exist_ok=True)
    probe = directory / f'.probe-{uuid.uuid4().hex[:8]}'
    probe.write_bytes(b'0' * 4096)
    probe.unlink()
  except OSError as error:
    raise OSError(
      f'cannot write to {directory} ({error.strerror}); choose another directory, '
      'for example with --workdir='
    ) from error
  free = shutil.disk_usage(directory).free / 2**20
  if free < megabytes:
    raise OSError(
      f'{directory} has {free:.0f} MB free, this needs about {megabytes} MB; free '
      'some space or choose another directory, for example with --workdir='
    )
  return directory
