"""Several processes, one to a host, that run the same program together."""

import os
import socket
import time
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

# Where `launch/local_processes.sh` puts what a cluster's scheduler tells JAX elsewhere.
_PLACE = ('OVS_COORDINATOR', 'OVS_PROCESSES', 'OVS_PROCESS')
_LENGTH = 256  # bytes of a text that hosts compare


def join(*, timeout: int = 300) -> None:
  """Joins the other processes; before anything else asks JAX for its devices.

  Cloud TPU, Slurm, Open MPI and Kubernetes tell JAX the coordinator's address and the
  numbers of the processes; anywhere else the environment does: `OVS_COORDINATOR`
  (host:port), `OVS_PROCESSES` and `OVS_PROCESS` (from 0).

  Args:
    timeout: seconds to wait for the others.

  Raises:
    ValueError: only some of the variables are set, or they are not what they should.
    OSError: the coordinator cannot be reached. (Where a process does not come, JAX ends
      the others with a message of its own.)
  """
  # Ignored by accelerators; without it several CPU processes cannot add up anything.
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  place = {name: os.environ[name] for name in _PLACE if os.environ.get(name)}
  if place and len(place) < len(_PLACE):
    missing = ', '.join(name for name in _PLACE if name not in place)
    raise ValueError(f'{missing} not set, but {", ".join(place)}; set all or none')
  settings: dict[str, Any] = {}
  if place:
    try:
      count, index = (int(place[name]) for name in _PLACE[1:])
    except ValueError:
      raise ValueError(f'OVS_PROCESSES and OVS_PROCESS are numbers: {place}') from None
    if not 0 <= index < count:
      raise ValueError(f'OVS_PROCESS is {index}, expected 0 to {count - 1}')
    settings = {
      'coordinator_address': place[_PLACE[0]],
      'num_processes': count,
      'process_id': index,
    }
    if index:
      _wait_for(place[_PLACE[0]], timeout)
  try:
    jax.distributed.initialize(
      **settings, initialization_timeout=timeout, heartbeat_timeout_seconds=30
    )
  except ValueError as error:
    raise ValueError(
      f'--multihost found no cluster ({error}); start with a script of launch/, or set '
      f'{", ".join(_PLACE)}'
    ) from error


def _wait_for(address: str, timeout: int) -> None:
  """Tries to connect until it works: JAX's own attempt would abort the process."""
  host, colon, port = address.rpartition(':')
  if not colon or not port.isdigit():
    raise ValueError(f'OVS_COORDINATOR is {address!r}, expected host:port')
  end = time.monotonic() + timeout
  while True:
    try:
      socket.create_connection((host, int(port)), timeout=5).close()
      return
    except OSError as error:
      if time.monotonic() > end:
        raise OSError(
          f'the coordinator {address} cannot be reached after {timeout} s '
          f'({error}). Check the address, the port, and that process 0 runs'
        ) from error
    time.sleep(0.2)


def primary() -> bool:
  """Whether this process is the one that writes what all of them share."""
  return jax.process_index() == 0


def barrier(name: str) -> None:
  """Waits until every process is here."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def gather(value: np.ndarray) -> np.ndarray:
  """Returns the arrays of all processes, of equal shapes, along a new first axis."""
  if jax.process_count() == 1:
    return np.asarray(value)[None]
  return np.asarray(multihost_utils.process_allgather(np.asarray(value)))


def whole(tree: Any) -> Any:
  """Returns a tree's arrays as NumPy ones, each with what other processes hold of it.

  All processes call this together, because those that hold a part send it.
  """

  def read(x: Any) -> np.ndarray:
    apart = isinstance(x, jax.Array) and not (
      x.is_fully_addressable or x.is_fully_replicated
    )
    if apart:
      x = multihost_utils.process_allgather(x, tiled=True)
    return np.asarray(x)

  return jax.tree.map(read, tree)


def check_same(what: str, value: str) -> None:
  """Checks that all processes have the same text.

  Raises:
    ValueError: they differ; lists which process has what.
  """
  line = np.zeros(_LENGTH, np.uint8)
  text = value.encode()[:_LENGTH]
  line[: len(text)] = np.frombuffer(text, np.uint8)
  texts = [bytes(x).rstrip(b'\0').decode(errors='replace') for x in gather(line)]
  if len(set(texts)) > 1:
    listed = '; '.join(f'process {i}: {x}' for i, x in enumerate(texts))
    raise ValueError(f'the processes differ in {what}: {listed}. Make them the same')
