"""SIGTERM, as schedulers send it before they take the machine away.

Three kinds of work can be stopped, with one process or several:

- Steps that all processes take together (training) ask after each of them:

      with Preemption() as preemption:
        for step in steps:
          ...
          if preemption.reached():  # the same answer for all
            save, raise Stopped

- Units that each process works off at its own pace (chunks, images) are inside `apart`;
  before a unit `pause` ends the work if there was a notice, whichever process got it:

      with apart('mining'):
        for i in mine:
          pause(f'{i} of {count} chunks are mined')
          ...  # leaves something that the next start finds
      # here all have finished; else all were left by Stopped, within a unit's time

  No collective between `apart` and its end, where a process may be waiting for others.

- A function deep inside such a unit that takes long calls `pause` too.

`ovs_jax.main` runs every mode inside `apart` and turns `Stopped` into the status 75.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from jax.experimental import multihost_utils

from ovs_jax.core import hosts

# The exit status of a run that was asked to stop and has saved: sysexits' EX_TEMPFAIL,
# "try again later".
STOPPED_STATUS = 75
_LOOK_EVERY = 1.0  # seconds between questions to the coordinator

_told = False  # one process: SIGTERM came while someone listened
_looked = 0.0  # several: when the coordinator was asked last
_together = 0  # several: steps taken together, over all loops of this process


class Stopped(Exception):
  """A run ended early on request, with everything saved."""


class Preemption:
  """Listens for SIGTERM; a context, outside of which signals are as before.

  With several processes JAX listens from the start, and its coordination service
  spreads the notice. Contexts may be nested; they share what was heard.
  """

  def __init__(self) -> None:
    """Changes nothing before the context is entered."""
    self._before: Any = None
    self._listens = False

  def __enter__(self) -> 'Preemption':
    """Listens for SIGTERM."""
    global _told
    # Only the main thread may, and with several processes JAX listens itself.
    if (
      not hosts.several()
      and threading.current_thread() is threading.main_thread()
      and signal.getsignal(signal.SIGTERM) is not _note
    ):
      self._listens, _told = True, False
      self._before = signal.signal(signal.SIGTERM, _note)
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    """Gives SIGTERM back to whoever had it."""
    global _told
    if self._listens:
      # None stands for a handler that is not Python's, and cannot be put back.
      signal.signal(signal.SIGTERM, self._before or signal.SIG_DFL)
      self._listens, _told = False, False

  def reached(self) -> bool:
    """Whether to stop after this step; every process asks after every step.

    All of them stop after the same one, whichever was told.
    """
    global _together
    if not hosts.several():
      return _told
    # JAX looks for one number and no other: it must not begin anew in the next loop.
    _together += 1
    return multihost_utils.reached_preemption_sync_point(_together)


def _note(number: int, frame: FrameType | None) -> None:
  global _told
  _told = True


def asked() -> bool:
  """Whether any process was asked to stop; others may hear of it a second later."""
  global _told, _looked
  if not _told and hosts.several():
    now = time.monotonic()
    if now - _looked >= _LOOK_EVERY:
      _looked, _told = now, hosts.told_to_stop()
  return _told


def pause(done: str) -> None:
  """Ends the work here if any process was asked to stop; for use inside `apart`.

  Args:
    done: what is finished, and will not be done again.

  Raises:
    Stopped: it was.
  """
  if asked():
    raise Stopped(f'stopped: {done}')


@contextlib.contextmanager
def apart(name: str) -> Iterator[None]:
  """Work that each process does at its own pace; they meet at its end.

  Args:
    name: of the work.

  Raises:
    Stopped: in all processes, if one was asked to stop before the work or in it.
    OSError: another process failed.
  """
  with Preemption():
    _meet(f'before {name}', asked())
    own = None
    try:
      yield
    except Stopped as stopped:
      own = stopped
    except BaseException:
      hosts.give_up()
      raise
    _meet(f'in {name}', own is not None, own)


def _meet(place: str, stop: bool, own: Stopped | None = None) -> None:
  if any(hosts.exchange(place, 'stop' if stop else '')):
    raise own or Stopped(f'stopped {place}')
