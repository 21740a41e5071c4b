"""Addresses of object stores, such as gs://bucket/run, as paths.

`etils.epath` gives them the methods of `pathlib`. An object appears whole when it is
closed; a folder cannot be renamed in one step. So folders are made on this machine and
sent, with the file that marks them as whole last.
"""

import concurrent.futures
import contextlib
import importlib.util
import os
import pathlib
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator

# One client whatever is installed: with TensorFlow, epath would take its file systems,
# which take seconds to import, know no s3:// and raise errors of their own.
os.environ.setdefault('EPATH_USE_TF', 'false')
# gcsfs otherwise asks for the kind of the bucket, for which it needs one more right.
os.environ.setdefault('GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT', 'false')

import fsspec.config  # noqa: E402
from etils import epath  # noqa: E402

from ovs_jax.core.errors import UserError

# What an address begins with, and the package that serves it.
PACKAGES = {'gs': 'gcsfs', 's3': 's3fs'}
_AT_ONCE = 16  # files that are on their way

# Others write there too: Orbax's own client, and other hosts.
for _protocol in ('gcs', 's3'):
  fsspec.config.conf.setdefault(_protocol, {}).setdefault('use_listings_cache', False)


def address(text: str, *, schemes: tuple[str, ...]) -> epath.Path | None:
  """Returns the path of an address; None for a path of this machine.

  Args:
    text: what the user gave.
    schemes: keys of `PACKAGES` that can be served where it was given.

  Raises:
    ValueError: an address that cannot be served, or a damaged one.
  """
  found = re.match(r'([A-Za-z][A-Za-z0-9+.-]+):(.*)', text, re.DOTALL)
  if not found:
    return None
  scheme, rest = found[1].lower(), found[2]
  # A file may have a colon in its name, but "gs:bucket" is one with slashes forgotten.
  if scheme not in PACKAGES and not rest.startswith('/'):
    return None
  taken = ', '.join(f'{name}://' for name in schemes)
  if scheme not in schemes:
    also = f'addresses of {taken} and paths' if taken else 'paths'
    raise UserError(f'{text}: only {also} of this machine can be given here')
  if not re.match(r'//[^/]', rest) or '..' in rest.split('/'):
    raise UserError(
      f'{text} is no address; write it as {scheme}://bucket/folder, without ".."'
    )
  package = PACKAGES[scheme]
  if importlib.util.find_spec(package) is None:
    raise UserError(
      f'{text}: {scheme}:// needs the package {package}; install it with: pip install '
      f'{package}'
    )
  return epath.Path(f'{scheme}:{rest}')


@contextlib.contextmanager
def answering(path: pathlib.Path | epath.Path) -> Iterator[None]:
  """Turns what the client of an address raises into one line.

  Raises:
    OSError: names the address.
  """
  if isinstance(path, pathlib.Path):
    yield
    return
  try:
    yield
  except Exception as error:  # each client and its HTTP library have their own kinds
    reason = ' '.join(str(error).split())[:200] or type(error).__name__
    raise OSError(
      f'{path} cannot be reached or used ({reason}); check the name of the bucket, '
      'your credentials and the network'
    ) from error


@contextlib.contextmanager
def staged(path: epath.Path, *, last: str) -> Iterator[pathlib.Path]:
  """Yields a path of this machine, whose file or folder then becomes `path`.

  A folder that exists is emptied first, the file `last` before the others; `last` is
  also the last to arrive.
  """
  folder = tempfile.mkdtemp(prefix='ovs_jax_')
  try:
    temporary = pathlib.Path(folder) / path.name
    yield temporary
    with answering(path):
      if temporary.is_dir():
        _send(temporary, path, last)
      else:
        client(path).put_file(str(temporary), str(path))
  finally:
    shutil.rmtree(folder, ignore_errors=True)


def _send(source: pathlib.Path, target: epath.Path, last: str) -> None:
  if last:
    (target / last).unlink(missing_ok=True)
  if target.is_dir():
    target.rmtree()
  files = [path for path in source.rglob('*') if path.is_file()]
  names = [str(path.relative_to(source)) for path in files]
  upload(source, target, [name for name in names if name != last])
  upload(source, target, [name for name in names if name == last])


def upload(source: pathlib.Path, target: epath.Path, names: list[str]) -> None:
  """Writes files below one folder to below another, several at once."""
  put = client(target).put_file
  with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
    list(pool.map(lambda name: put(str(source / name), str(target / name)), names))


def below(path: epath.Path) -> list[tuple[str, int]]:
  """Lists the objects below an address, in order: their names from there, and sizes.

  The name of an object at the address itself is '.'.
  """
  system = client(path)
  root = system._strip_protocol(str(path))
  names = {
    name.removeprefix(root).lstrip('/'): found['size']
    for name, found in system.find(str(path), detail=True).items()
  }
  # Some tools write an empty object to stand for a folder.
  return sorted((n or '.', size) for n, size in names.items() if not n.endswith('/'))


class Copy:
  """What lies at an address, as files of this machine as long as this object lives.

  Attributes:
    path: the file or folder; of this machine's own, itself.
  """

  def __init__(self, path: pathlib.Path | epath.Path) -> None:
    """Reads it all, if it is an address.

    Raises:
      FileNotFoundError, OSError: it is not there, or cannot be read.
    """
    self.path: pathlib.Path
    if isinstance(path, pathlib.Path):
      self.path = path
      return
    folder = tempfile.mkdtemp(prefix='ovs_jax_')
    weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
    self.path = pathlib.Path(folder) / path.name
    with answering(path):
      names = [name for name, _ in below(path)]
      for name in names:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
      get = client(path).get_file
      with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda n: get(str(path / n), str(self.path / n)), names))
    if not self.path.exists():
      raise FileNotFoundError(f'{path} does not exist')


def client(path: epath.Path) -> fsspec.AbstractFileSystem:
  """Returns the file system that serves an address."""
  return fsspec.url_to_fs(str(path))[0]


class Mirror:
  """A folder that files are written to bit by bit, which objects cannot be.

  Attributes:
    path: a folder of this machine; for an address a temporary one, of which `send`
      copies what is new.
  """

  def __init__(self, path: pathlib.Path | epath.Path) -> None:
    """Takes the place that the files belong to."""
    self._target = path
    self._sent: dict[str, tuple[int, int]] = {}
    if isinstance(path, pathlib.Path):
      self.path = path
    else:
      self.path = pathlib.Path(tempfile.mkdtemp(prefix='ovs_jax_'))
      weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

  def fetch(self, name: str) -> None:
    """Copies a file of the address, if it is there, to go on with it."""
    if self.path != self._target and (self._target / name).is_file():
      (self.path / name).write_bytes((self._target / name).read_bytes())

  def send(self) -> None:
    """Copies what was written since the last time.

    Raises:
      OSError: it cannot be written.
    """
    if self.path == self._target:
      return
    found = {}
    for file in self.path.rglob('*'):
      if file.is_file():
        status = file.stat()
        name = str(file.relative_to(self.path))
        found[name] = (status.st_size, status.st_mtime_ns)
    with answering(self._target):
      new = [name for name, state in found.items() if self._sent.get(name) != state]
      upload(self.path, self._target, new)
    self._sent = found
