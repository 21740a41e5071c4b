"""Several processes, one to a host, that run the same program together."""

import contextlib
import os
import re
import socket
import time
from typing import Any

import jax
import numpy as np

# The coordination service has no public name yet; Orbax takes it from here too.
from jax._src import distributed
from jax.experimental import multihost_utils

from ovs_jax.core.errors import UserError

# Where `launch/local_processes.sh` puts what a cluster's scheduler tells JAX elsewhere.
_PLACE = ('OVS_COORDINATOR', 'OVS_PROCESSES', 'OVS_PROCESS')
_FOREVER = 10**9  # milliseconds to wait for others, who may work for days
_FAILED = 'failed'
# Where JAX's coordination service notes that a process got SIGTERM (XLA's
# preemption_sync_manager.cc); nothing public tells that without taking a step.
_NOTICE = 'RECEIVED_PREEMPTION_NOTICE'
_turn = 0  # number of exchanges so far, which all processes make in the same order


def join(*, timeout: int = 300) -> None:
  """Joins the other processes; before anything else asks JAX for its devices.

  Cloud TPU, Slurm, Open MPI and Kubernetes tell JAX the coordinator's address and the
  numbers of the processes; anywhere else the environment does: `OVS_COORDINATOR`
  (host:port), `OVS_PROCESSES` and `OVS_PROCESS` (from 0).

  Args:
    timeout: seconds to wait for the others.

  Raises:
    ValueError: only some of the variables are set, they are not what they should, or
      JAX does not use the GPUs that Slurm gave this task.
    OSError: the coordinator cannot be reached. (Where a process does not come, JAX ends
      the others with a message of its own.)
  """
  # Ignored by accelerators; without it several CPU processes cannot add up anything.
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  place = {name: os.environ[name] for name in _PLACE if os.environ.get(name)}
  if place and len(place) < len(_PLACE):
    missing = ', '.join(name for name in _PLACE if name not in place)
    raise UserError(f'{missing} not set, but {", ".join(place)}; set all or none')
  settings: dict[str, Any] = {}
  if place:
    try:
      count, index = (int(place[name]) for name in _PLACE[1:])
    except ValueError:
      raise UserError(f'OVS_PROCESSES and OVS_PROCESS are numbers: {place}') from None
    if not 0 <= index < count:
      raise UserError(f'OVS_PROCESS is {index}, expected 0 to {count - 1}')
    settings = {
      'coordinator_address': place[_PLACE[0]],
      'num_processes': count,
      'process_id': index,
    }
    if index:
      _wait_for(place[_PLACE[0]], timeout)
  gpus = [] if place else _gpus_of_task()
  if gpus and not os.environ.get('JAX_LOCAL_DEVICE_IDS'):
    # Else JAX gives a task of Slurm one GPU, that of its number on the node.
    settings['local_device_ids'] = gpus
  try:
    jax.distributed.initialize(
      **settings,
      initialization_timeout=timeout,
      heartbeat_timeout_seconds=30,
      shutdown_timeout_seconds=60,
    )
  except ValueError as error:
    raise UserError(
      f'--multihost found no cluster ({error}); start with a script of launch/, or set '
      f'{", ".join(_PLACE)}'
    ) from error
  _check_gpus(gpus)


def _check_gpus(gpus: list[int]) -> None:
  """Raises ValueError if JAX does not use these GPUs of this task, if there are any."""
  if gpus and jax.local_device_count() != len(gpus):
    give_up()
    kind = jax.local_devices()[0].platform
    raise UserError(
      f'Slurm gave this task {len(gpus)} GPUs, and JAX uses '
      f'{jax.local_device_count()} {kind} device(s): check CUDA_VISIBLE_DEVICES, '
      "JAX_LOCAL_DEVICE_IDS, --gpu-bind, and that JAX's CUDA plugin is installed "
      '(requirements/cuda12.txt)'
    )


def _gpus_of_task() -> list[int]:
  """The GPUs that Slurm gave this task, as CUDA numbers the visible ones.

  Returns:
    Nothing outside of Slurm's tasks, where it gave none, and where JAX_PLATFORMS asks
    for other devices.

  Raises:
    ValueError: the GPUs of the node are not shared out evenly over its tasks.
  """
  gpus = int(os.environ.get('SLURM_GPUS_ON_NODE') or 0)
  given = os.environ.get('SLURM_STEP_TASKS_PER_NODE')  # such as 8(x2),4
  platforms = os.environ.get('JAX_PLATFORMS')
  unwanted = platforms and not {'cuda', 'gpu', 'rocm'} & set(platforms.split(','))
  if not gpus or not given or unwanted:
    return []
  tasks = [
    int(number)
    for number, times in re.findall(r'(\d+)(?:\(x(\d+)\))?', given)
    for _ in range(int(times or 1))
  ][int(os.environ.get('SLURM_NODEID', 0))]
  count, rest = divmod(gpus, tasks)
  if rest:
    raise UserError(
      f'Slurm started {tasks} tasks on this node for its {gpus} GPUs: start one for '
      'all of them (--ntasks-per-node=1), or one for each'
    )
  # With --gpus-per-task each task sees its own only.
  visible = os.environ.get('CUDA_VISIBLE_DEVICES')
  own = visible is not None and len(visible.split(',')) == count
  first = 0 if own else count * int(os.environ.get('SLURM_LOCALID', 0))
  return list(range(first, first + count))


def _wait_for(address: str, timeout: int) -> None:
  """Tries to connect until it works: JAX's own attempt would abort the process."""
  host, colon, port = address.rpartition(':')
  if not colon or not port.isdigit():
    raise UserError(f'OVS_COORDINATOR is {address!r}, expected host:port')
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


def several() -> bool:
  """Whether there are other processes; no devices are asked for if none joined."""
  return jax.distributed.is_initialized() and jax.process_count() > 1


def primary() -> bool:
  """Whether this process is the one that writes what all of them share."""
  return jax.process_index() == 0


def exchange(what: str, text: str = '') -> list[str]:
  """Returns the texts of all processes, in their order, once each has given its own.

  It goes over the coordinator, not the devices, and waits however long others work.
  All processes make their exchanges in the same order.

  Args:
    what: names this exchange.
    text: of this process.

  Raises:
    OSError: another process failed.
  """
  global _turn
  if not several():
    return [text]
  service, turn = distributed.global_state.client, _turn
  _turn += 1
  service.key_value_set(_key(turn, jax.process_index()), f'{what}\n{text}')
  texts = []
  for index in range(jax.process_count()):
    given = service.blocking_key_value_get(_key(turn, index), _FOREVER)
    if given == _FAILED:
      raise OSError(f'process {index} failed; see what it says, then start again')
    theirs, _, value = given.partition('\n')
    assert theirs == what, f'process {index} is at {theirs!r}, this one at {what!r}'
    texts.append(value)
  return texts


def _key(turn: int, index: int) -> str:
  return f'ovs_jax/{turn}/{index}'


def give_up() -> None:
  """Tells processes that wait in an exchange, or will, that this one never comes."""
  service = distributed.global_state.client
  if service is not None:
    # Without a coordinator the others end by themselves.
    with contextlib.suppress(jax.errors.JaxRuntimeError):
      key = _key(_turn, distributed.global_state.process_id)
      service.key_value_set(key, _FAILED, allow_overwrite=True)


def told_to_stop() -> bool:
  """Whether any of several processes got SIGTERM; asks the coordinator."""
  try:
    distributed.global_state.client.key_value_try_get(_NOTICE)
  except jax.errors.JaxRuntimeError as error:
    if 'NOT_FOUND' not in str(error):
      raise
    return False
  return True


def barrier(name: str) -> None:
  """Waits until every process is here.

  Raises:
    OSError: another process failed.
  """
  exchange(name)


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
  texts = exchange(what, value)
  if len(set(texts)) > 1:
    listed = '; '.join(f'process {i}: {x}' for i, x in enumerate(texts))
    raise UserError(f'the processes differ in {what}: {listed}. Make them the same')
