"""SIGTERM, as schedulers send it before they take the machine away."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

import jax
from jax.experimental import multihost_utils

# The exit status of a run that was asked to stop and has saved: sysexits' EX_TEMPFAIL,
# "try again later".
STOPPED_STATUS = 75


class Stopped(Exception):
  """A run ended early on request, with everything saved."""


class Preemption:
  """Tells whether to save and stop; a context, outside of which signals are as before.

  With several processes JAX's coordination service spreads the notice, and all of them
  stop after the same step, whichever was told.
  """

  def __init__(self) -> None:
    """Changes nothing before the context is entered."""
    self._asked = False
    self._before: Any = None

  def __enter__(self) -> 'Preemption':
    """Listens for SIGTERM."""
    # Only the main thread may, and with several processes JAX listens itself.
    if (
      jax.process_count() == 1 and threading.current_thread() is threading.main_thread()
    ):
      self._before = signal.signal(signal.SIGTERM, self._ask)
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    """Gives SIGTERM back to whoever had it."""
    if self._before is not None:
      signal.signal(signal.SIGTERM, self._before)

  def _ask(self, number: int, frame: FrameType | None) -> None:
    self._asked = True

  def reached(self, step: int) -> bool:
    """Whether to stop after this step; every process asks after every step."""
    if jax.process_count() > 1:
      return multihost_utils.reached_preemption_sync_point(step)
    return self._asked
