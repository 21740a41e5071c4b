"""One process at a time in a directory.

The system lets go of a lock when its process ends, however it ends, so that none is
stale. Where a file system has no locks, and in buckets, nothing is kept apart.
"""

import contextlib
import os
import pathlib
import socket
import time
from collections.abc import Iterator

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Place

_NAME = '.lock'


@contextlib.contextmanager
def alone(directory: Place) -> Iterator[None]:
  """Keeps other processes out of a directory that is there.

  Raises:
    UserError: one is in it; says which.
  """
  if not isinstance(directory, pathlib.Path) or os.name != 'posix':
    yield
    return
  import fcntl

  with (directory / _NAME).open('a+') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      file.seek(0)
      raise UserError(
        f'{directory} is in use by {file.read() or "another process"}; wait until that '
        'has ended, or give another --workdir='
      ) from error
    except OSError:
      pass  # no locks here
    else:
      file.truncate(0)
      file.write(f'process {os.getpid()} on {socket.gethostname()}, since {_now()}')
      file.flush()
    yield


def _now() -> str:
  return time.strftime('%Y-%m-%d %H:%M:%S')
