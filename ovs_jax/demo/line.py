"""One task at a time on the model, in the order in which they were asked for."""

import dataclasses
import threading
import time
from collections.abc import Callable, Generator
from concurrent import futures
from typing import Any, TypeVar

from ovs_jax.core.errors import UserError

T = TypeVar('T')

_LOOK = 0.1  # seconds between two looks at a task


@dataclasses.dataclass
class Task:
  """Some work of the model.

  Attributes:
    future: which has its result.
    began: when the model turned to it, in seconds; None while it waits.
  """

  future: 'futures.Future[Any]'
  began: float | None = None


class Line:
  """Tasks that wait for the model."""

  def __init__(self, *, seconds: float | int, waiting: int) -> None:
    """Starts no thread before the first task.

    Args:
      seconds: that a task may take once it has begun.
      waiting: tasks that may wait.
    """
    self._seconds, self._most = seconds, waiting
    self._pool = futures.ThreadPoolExecutor(1)
    self._tasks: list[Task] = []
    self._lock = threading.Lock()

  def ahead(self, task: Task) -> int:
    """Returns how many tasks come before another."""
    with self._lock:
      return self._tasks.index(task) if task in self._tasks else 0

  def run(self, work: Callable[[], T]) -> Generator[int, None, T]:
    """Yields how many tasks come before, again and again; returns the result.

    Whoever leaves the loop gives the task up: it is dropped if it waits. What has begun
    goes on to its end, as a program on a device cannot be stopped, and others wait.

    Args:
      work: is done in a thread.

    Raises:
      ValueError: too many wait, or it took too long; and what the work raises.
    """
    task = self._enter(work)
    try:
      while not task.future.done():
        yield self.ahead(task)
        futures.wait([task.future], timeout=_LOOK)
        began = task.began
        if began is not None and time.monotonic() - began > self._seconds:
          raise UserError(
            f'this took longer than {self._seconds:g} s and was given up; take a '
            'smaller picture or fewer names'
          )
      return task.future.result()
    finally:
      if task.future.cancel():
        self._leave(task)

  def _enter(self, work: Callable[[], Any]) -> Task:
    with self._lock:
      if len(self._tasks) > self._most:
        raise UserError(
          f'{len(self._tasks) - 1} others are waiting already; try again in a minute'
        )

      def run() -> Any:
        task.began = time.monotonic()
        try:
          return work()
        finally:
          self._leave(task)

      task = Task(futures.Future())
      self._tasks.append(task)
      # The thread cannot look for its task before it is in the list.
      task.future = self._pool.submit(run)
    return task

  def _leave(self, task: Task) -> None:
    with self._lock:
      self._tasks.remove(task)
