"""Files that appear whole or not at all, and early answers about where they go.

What a user gives becomes a path here and nowhere else: `place` where addresses such as
gs://bucket/run can be served, `local` where they cannot.
"""

import contextlib
import ctypes
import glob
import hashlib
import json
import math
import os
import pathlib
import shutil
import sys
import uuid
from collections.abc import Iterator
from typing import Any

from etils import epath

from ovs_jax.core import buckets
from ovs_jax.core.errors import UserError

Path = str | os.PathLike[str]  # what is given
Place = pathlib.Path | epath.Path  # where it is: on this machine, or an address
SCHEMES = tuple(buckets.PACKAGES)  # of the addresses that are known
DATA_DIR = '~/.cache/ovs_jax/data'  # of data sets, unless another is named
# What a directory has that was written here: our mark, or that of Orbax's checkpoints,
# of which earlier versions wrote some without ours.
_MARK = '.ovs_jax'
_MARKS = {_MARK, '_CHECKPOINT_METADATA'}


def place(given: Path, *, schemes: tuple[str, ...] = SCHEMES) -> Place:
  """Returns what a user gave as a path of this machine or an address.

  Args:
    given: a path, in which `~` is the home directory, or an address.
    schemes: of the addresses that can be served there.

  Raises:
    ValueError: an address of another kind, a damaged one, or one whose package is not
      installed. Nothing is made or asked before.
  """
  text = os.fspath(given)
  found = buckets.address(text, schemes=schemes)
  return pathlib.Path(text).expanduser() if found is None else found


def local(given: Path) -> pathlib.Path:
  """Returns a path of this machine.

  Raises:
    ValueError: it is an address; there only files of this machine can be served.
  """
  return pathlib.Path(place(given, schemes=()))  # no address is left


def absolute(path: Place) -> Place:
  """Returns the path from the root on; an address is one already."""
  return path.absolute() if isinstance(path, pathlib.Path) else path


def real(path: Place) -> Place:
  """Returns the path with links followed; an address has none."""
  return path.resolve() if isinstance(path, pathlib.Path) else path


def modified(path: Place) -> float:
  """Returns when a file was written, in seconds."""
  if isinstance(path, pathlib.Path):
    return path.stat().st_mtime
  return buckets.client(path).modified(str(path)).timestamp()


def below(directory: Place) -> list[tuple[str, int]]:
  """Lists the files below a directory, in order: their names from there, and sizes.

  Files that another process removes meanwhile are not among them.
  """
  if not isinstance(directory, pathlib.Path):
    return buckets.below(directory)
  found = []
  for folder, _, names in os.walk(directory, onerror=_unless_it_is_gone):
    for path in (pathlib.Path(folder, name) for name in names):
      with contextlib.suppress(FileNotFoundError):
        if path.is_file():
          found.append((path.relative_to(directory), path.stat().st_size))
  return [(path.as_posix(), size) for path, size in sorted(found)]


def _unless_it_is_gone(error: OSError) -> None:
  if not isinstance(error, FileNotFoundError):
    raise error


def remove(path: Place) -> None:
  """Removes a file or a directory with all in it, if it is there."""
  if path.is_dir():
    shutil.rmtree(path) if isinstance(path, pathlib.Path) else path.rmtree()
  else:
    path.unlink(missing_ok=True)


def move(source: Place, target: Place) -> None:
  """Gives a file another name, which it has whole or not at all.

  Args:
    source: the file.
    target: on the same disk or in the same bucket; its folder is made. What is there is
      replaced. A bucket copies the file first, and may be left with both.
  """
  if isinstance(target, pathlib.Path):
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(source, target)
    return
  with buckets.answering(target):
    buckets.client(target).cp_file(str(source), str(target))
    buckets.client(source).rm_file(str(source))


def check_replaceable(path: Path) -> None:
  """Refuses to replace a directory that this package has not written.

  Raises:
    UserError: there is one that is not empty and has no mark of `atomic_path`.
  """
  path = place(path)
  if not isinstance(path, pathlib.Path) or not path.is_dir():
    return
  found = sorted(p.name for p in path.iterdir())
  if found and _MARKS.isdisjoint(found):
    more = f' and {len(found) - 3} more' if len(found) > 3 else ''
    raise UserError(
      f'{path} holds {", ".join(found[:3])}{more}, which this program did not write as '
      'one; it replaces only what it wrote. Give another directory, or empty this one'
    )


@contextlib.contextmanager
def atomic_path(path: Path, *, last: str = '') -> Iterator[pathlib.Path]:
  """Yields a temporary path to write, which becomes `path` when all went well.

  Works for files and for directories; a failure removes what was written. What exists
  is replaced in one step, directories only if they were written in this way. (Where two
  directories cannot change places, an existing one is moved aside first.) At an
  address, files are replaced in one step and directories are not: the file `last` in
  them arrives last, and says that all are there.

  Raises:
    UserError: a directory is to be replaced that something else has written.
  """
  path = place(path)
  if not isinstance(path, pathlib.Path):
    with buckets.staged(path, last=last) as temporary:
      yield temporary
    return
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f'.{path.name}.{uuid.uuid4().hex[:8]}.tmp{path.suffix}')
  try:
    yield temporary
    if temporary.is_dir():
      check_replaceable(path)
      (temporary / _MARK).touch()
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
  path = place(path)
  if isinstance(path, pathlib.Path):  # nothing is temporary at an address
    _remove(path.parent, f'.{glob.escape(path.name)}.*.tmp*')


def clear_temporaries(directory: Place) -> None:
  """Removes what killed writers of a folder's files left; nobody may be writing one."""
  if isinstance(directory, pathlib.Path):
    _remove(directory, '.*.tmp*')


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


def strict_json(value: Any, **options: Any) -> str:
  """Returns JSON that every reader takes: numbers that are not finite are null.

  Args:
    value: of JSON's types; tuples are lists.
    options: of `json.dumps`.
  """
  return json.dumps(_finite(value), allow_nan=False, **options)


def _finite(value: Any) -> Any:
  if isinstance(value, dict):
    return {key: _finite(x) for key, x in value.items()}
  if isinstance(value, list | tuple):
    return [_finite(x) for x in value]
  return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any) -> None:
  """Writes JSON atomically, with sorted keys; see `strict_json`."""
  write_text(path, strict_json(value, indent=2, sort_keys=True) + '\n')


def read_json(path: Path) -> Any:
  """Reads JSON.

  Raises:
    ValueError: the file is not JSON (for example cut off).
  """
  try:
    return json.loads(place(path).read_text(encoding='utf-8'))
  except (ValueError, RecursionError) as error:  # of the text, or of its letters
    raise UserError(
      f'{path} is not valid JSON ({error}); delete it to start again'
    ) from error


def read_mapping(path: Path, **kinds: type | tuple[type, ...] | None) -> dict[str, Any]:
  """Reads JSON that this package wrote: values by name.

  Args:
    path: of the file.
    **kinds: names that must be there, and of what type their values are; None: of any.

  Raises:
    ValueError: the file holds something else.
  """
  found = read_json(path)
  there = isinstance(found, dict)
  wrong = [
    name
    for name, kind in kinds.items()
    if there and (name not in found or (kind and not isinstance(found[name], kind)))
  ]
  if wrong or not there:
    what = f'{", ".join(wrong)} missing or of another type' if there else 'no object'
    raise UserError(f'{path} is damaged ({what}); delete it to start again')
  return found


def fingerprint(value: Any) -> str:
  """Returns a short hash of a JSON-like value, the same in every process."""
  text = json.dumps(value, sort_keys=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_writable(
  directory: Path, *, megabytes: int, option: str = '--workdir='
) -> Place:
  """Makes `directory` and checks that it can take what is to come.

  Args:
    directory: a path or an address.
    megabytes: that are to come.
    option: of the command, that chooses another directory.

  Raises:
    OSError: it cannot be created or written, or the disk has less than `megabytes`
      free (a bucket has no such limit).
  """
  directory = absolute(place(directory))
  name = f'.probe-{uuid.uuid4().hex[:8]}'
  if not isinstance(directory, pathlib.Path):
    with buckets.answering(directory):
      (directory / name).write_bytes(b'0' * 4096)
      (directory / name).unlink()
    return directory
  try:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_bytes(b'0' * 4096)
    (directory / name).unlink()
  except OSError as error:
    raise OSError(
      f'cannot write to {directory} ({error.strerror}); choose another directory, '
      f'for example with {option}'
    ) from error
  free = shutil.disk_usage(directory).free / 2**20
  if free < megabytes:
    raise OSError(
      f'{directory} has {free:.0f} MB free, this needs about {megabytes} MB; free '
      f'some space or choose another directory, for example with {option}'
    )
  return directory
