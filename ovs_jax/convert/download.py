"""Files over HTTPS: resumed where they broke off, and checked before they have a name.

While a file comes it is called `NAME.part`; `NAME.part.json` holds what the server said
of its version. A file under its final name is complete, and has its sha256 if that was
published.
"""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import http.client
import json
import os
import pathlib
import shutil
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any, BinaryIO

from tqdm.auto import tqdm

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Path, local, write_json

_CHUNK = 1 << 20
_TIMEOUT = 30  # seconds without a byte
_SLOWEST = 1 << 10  # bytes a second below which a server is as good as silent


class _Interrupted(Exception):
  """The connection ended before the file did."""


class _NoDowngrade(urllib.request.HTTPRedirectHandler):
  """Follows redirections, but not from HTTPS to something else."""

  def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any,
                       newurl: str) -> Any:  # fmt: skip
    """Returns the next request; see the base class."""
    if req.full_url.startswith('https:') and not newurl.startswith('https:'):
      raise UserError(f'{req.full_url} leads to {newurl}, which is not HTTPS; refused')
    return super().redirect_request(req, fp, code, msg, headers, newurl)


@dataclasses.dataclass
class _Part:
  """An incomplete file and the version of the remote file that it is a part of."""

  path: pathlib.Path
  url: str

  @property
  def note(self) -> pathlib.Path:
    """Where the version is written."""
    return self.path.with_name(self.path.name + '.json')

  def resume(self) -> tuple[int, str | None]:
    """Returns the bytes that can be kept and the version that they belong to."""
    try:
      note = json.loads(self.note.read_text(encoding='utf-8'))
      size = self.path.stat().st_size
      return (size, note['version']) if note['url'] == self.url else (0, None)
    except (OSError, ValueError, LookupError, TypeError):  # none, or a damaged one
      return 0, None

  def discard(self) -> None:
    """Forgets it, or what is left of it."""
    self.path.unlink(missing_ok=True)
    self.note.unlink(missing_ok=True)


def cache_directory() -> pathlib.Path:
  """Returns where downloads are kept: below $OVS_JAX_CACHE or ~/.cache/ovs_jax."""
  home = local(os.environ.get('XDG_CACHE_HOME') or '~/.cache') / 'ovs_jax'
  return local(os.environ.get('OVS_JAX_CACHE') or home) / 'downloads'


def fetch(
  url: str,
  target: Path,
  *,
  sha256: str | None,
  attempts: int = 5,
  wait: float = 2.0,
) -> pathlib.Path:
  """Downloads a file unless it is there, and returns its path.

  Two processes that want the same file do not disturb each other: the second one waits.

  Args:
    url: of the file.
    target: its final name.
    sha256: what it must have; None if it is not known.
    attempts: tries before an unreliable connection is given up.
    wait: seconds between them.

  Raises:
    ValueError: what came has another sha256; it is deleted.
    OSError: there is no connection, no such file, or no space. What came so far is
      kept, and the next call goes on from there.
  """
  target = local(target).absolute()
  target.parent.mkdir(parents=True, exist_ok=True)
  with locked(target.with_name(f'.{target.name}.lock')):
    if target.is_file():
      if sha256 is None or file_sha256(target) == sha256:
        return target
      target.unlink()  # damaged since; what is in the cache can be fetched again
    part = _Part(target.with_name(target.name + '.part'), url)
    resumed = part.resume()[0] > 0
    _persist(part, attempts, wait)
    got = file_sha256(part.path)
    if sha256 is not None and got != sha256 and resumed:
      part.discard()  # the two halves were not of one file
      _persist(part, attempts, wait)
      got = file_sha256(part.path)
    if sha256 is not None and got != sha256:
      part.discard()
      raise UserError(
        f'{url} gave a file with sha256 {got} instead of {sha256}; it was deleted. The '
        'file was changed, or something on the way replaces it'
      )
    part.path.replace(target)
    part.discard()
  return target


def file_sha256(path: Path) -> str:
  """Returns the hash of a file's contents."""
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[None]:
  """Lets one process after the other in; `path` is the file of the lock."""
  with open(path, 'w') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      print(f'waiting for another download to {path.parent}', file=sys.stderr)
      fcntl.flock(file, fcntl.LOCK_EX)
    yield


def _persist(part: _Part, attempts: int, wait: float) -> None:
  """Completes the part, over several connections if need be."""
  for attempt in range(1, attempts + 1):
    try:
      return _transfer(part)
    except (_Interrupted, http.client.HTTPException, TimeoutError) as error:
      problem: Exception = error
    except ConnectionError as error:  # reset in the middle
      problem = error
    except urllib.error.HTTPError as error:
      if error.code < 500:
        raise _refused(part, error) from error
      problem = error
    except urllib.error.URLError as error:
      if isinstance(error.reason, ValueError):
        raise error.reason from error
      raise OSError(
        f'cannot reach {part.url} ({error.reason}); is there a network? Or fetch it '
        f'elsewhere and give the file as --input='
      ) from error
    if attempt < attempts:
      time.sleep(wait)
  size = part.path.stat().st_size if part.path.exists() else 0
  raise OSError(
    f'{part.url} broke off {attempts} times ({problem}); {size} bytes are kept, run '
    'the same command again to go on from there'
  )


def _refused(part: _Part, error: urllib.error.HTTPError) -> OSError:
  return OSError(
    f'{part.url} answers {error.code} {error.reason}; the file is not there (any more) '
    'or not public'
  )


def _transfer(part: _Part) -> None:
  """Asks for what is missing and appends it; one connection.

  Raises:
    _Interrupted: less came than was announced.
  """
  start, version = part.resume()
  request = urllib.request.Request(part.url, headers={'Accept-Encoding': 'identity'})
  if start:
    request.add_header('Range', f'bytes={start}-')
    if version:
      request.add_header('If-Range', version)
  opener = urllib.request.build_opener(_NoDowngrade)
  try:
    response = opener.open(request, timeout=_TIMEOUT)
  except urllib.error.HTTPError as error:
    if error.code != 416 or not start:
      raise
    part.discard()  # longer than the file, or just as long: the hash will tell
    raise _Interrupted('the server has no such range') from error
  with response:
    continued = response.status == 206 and _first_byte(response) == start
    if response.status == 206 and not continued:
      part.discard()
      raise _Interrupted('the server sent another range')
    start = start if continued else 0
    length = response.headers.get('Content-Length')
    total = start + int(length) if length else None
    if not continued:
      # The file first: a note must never belong to an older file.
      part.path.write_bytes(b'')
      note = {'url': part.url, 'version': _version(response)}
      write_json(part.note, note)
    _check_space(part, start, total)
    _append(response, part, start, total)


def _append(response: Any, part: _Part, start: int, total: int | None) -> None:
  done = start
  title = part.path.stem
  with (
    open(part.path, 'ab') as file,
    tqdm(
      total=total, initial=start, desc=title, unit='B', unit_scale=True, leave=False
    ) as bar,
  ):
    since, before = time.monotonic(), done
    while chunk := response.read1(_CHUNK):
      write_chunk(file, chunk, part)
      done += len(chunk)
      bar.update(len(chunk))
      if (seconds := time.monotonic() - since) > _TIMEOUT:
        if done - before < seconds * _SLOWEST:
          raise _Interrupted(f'{done - before} bytes in {seconds:.0f} seconds')
        since, before = time.monotonic(), done
    file.flush()
    os.fsync(file.fileno())
  if total is not None and done != total:
    raise _Interrupted(f'{done} of {total} bytes came')


def write_chunk(file: BinaryIO, chunk: bytes, part: _Part) -> None:
  """Appends what came to the part of a download."""
  try:
    file.write(chunk)
    file.flush()
  except OSError as error:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
      raise
    raise OSError(
      error.errno,
      f'no space left for {part.path}; what came is kept. Free some space and run the '
      'same command again',
    ) from error


def _check_space(part: _Part, start: int, total: int | None) -> None:
  free = shutil.disk_usage(part.path.parent).free
  if total is not None and free < total - start:
    raise OSError(
      f'{part.path.parent} has {free / 2**20:.0f} MB free, {part.path.stem} needs '
      f'{(total - start) / 2**20:.0f} MB more; free some space, or set OVS_JAX_CACHE '
      'to another disk'
    )


def _version(response: Any) -> str | None:
  """Returns what `If-Range` may name: a strong ETag, or the date."""
  tag = response.headers.get('ETag')
  if tag and not tag.startswith('W/'):
    return tag
  return response.headers.get('Last-Modified')


def _first_byte(response: Any) -> int | None:
  place = response.headers.get('Content-Range', '')
  unit, _, rest = place.partition(' ')
  first = rest.partition('-')[0]
  return int(first) if unit == 'bytes' and first.isdigit() else None
