"""Threads that keep every device of this host busy, and the host's cores beside them.

A task is one image's whole way: decoding, networks, what the host makes of the result.
While a task waits for its device others prepare what comes next, for this device and
for all others.
"""

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import TypeVar

import jax

T, R = TypeVar('T'), TypeVar('R')
# Tasks of a device at the same time: one that it computes, one that waits for it, and
# one that the host works on.
_PER_DEVICE = 3


def own_devices() -> list[jax.Device]:
  """Returns this host's accelerators; of a CPU one, as more are simulated.

  They would share its cores, and each would compile the programs anew.
  """
  devices = jax.local_devices()
  return devices[:1] if devices[0].platform == 'cpu' else devices


class Workers:
  """The devices of this host, which take tasks in turns; a context."""

  def __init__(self) -> None:
    """Starts no thread before the first task."""
    self.devices = own_devices()
    self._pool = futures.ThreadPoolExecutor(_PER_DEVICE * len(self.devices))
    self._turn = 0

  def __enter__(self) -> 'Workers':
    return self

  def __exit__(self, *_: object) -> None:
    """Waits for the tasks that run; those that have not begun are given up."""
    self._pool.shutdown(cancel_futures=True)

  def copies(self, tree: T) -> list[T]:
    """Returns the arrays of a tree, such as parameters, on every device."""
    return [jax.device_put(tree, device) for device in self.devices]

  def submit(self, task: Callable[[int, T], R], item: T) -> 'futures.Future[R]':
    """Runs `task(place, item)` soon; `place` counts the devices round.

    What the task puts on no device in particular goes to that of its place.
    """
    place = self._turn % len(self.devices)
    self._turn += 1

    def run() -> R:
      with jax.default_device(self.devices[place]):
        return task(place, item)

    return self._pool.submit(run)

  def map(self, task: Callable[[int, T], R], items: Iterable[T]) -> Iterator[R]:
    """Yields the results in the order of the items, which are taken as needed."""
    running: collections.deque[futures.Future[R]] = collections.deque()
    for item in items:
      running.append(self.submit(task, item))
      if len(running) > 2 * _PER_DEVICE * len(self.devices):
        yield running.popleft().result()
    while running:
      yield running.popleft().result()
