"""Processes that work together: what they are told, and what they must agree on."""

import socket
import time

import jax
import pytest
from jax._src import distributed

from ovs_jax.core import hosts


@pytest.fixture
def initialized(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
  """What JAX is told, in place of doing it."""
  for name in ('OVS_COORDINATOR', 'OVS_PROCESSES', 'OVS_PROCESS'):
    monkeypatch.delenv(name, raising=False)
  calls: list[dict[str, object]] = []
  monkeypatch.setattr(
    jax.distributed, 'initialize', lambda **given: calls.append(given)
  )
  return calls


def place(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
  for name, value in values.items():
    monkeypatch.setenv(f'OVS_{name.upper()}', value)


class TestJoin:
  def test_the_environment_says_where(
    self, initialized: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
  ) -> None:
    with socket.socket() as server:
      server.bind(('127.0.0.1', 0))
      server.listen()
      address = f'127.0.0.1:{server.getsockname()[1]}'
      place(monkeypatch, coordinator=address, processes='3', process='1')
      hosts.join(timeout=2)
    (given,) = initialized
    assert given['coordinator_address'] == address
    assert (given['num_processes'], given['process_id']) == (3, 1)
    assert given['initialization_timeout'] == 2

  def test_a_cluster_needs_no_environment(
    self, initialized: list[dict[str, object]]
  ) -> None:
    hosts.join()
    assert 'coordinator_address' not in initialized[0]

  @pytest.mark.parametrize(
    ('values', 'message'),
    [
      ({'process': '0'}, 'OVS_COORDINATOR, OVS_PROCESSES not set, but OVS_PROCESS'),
      ({'coordinator': 'a:1', 'processes': '2', 'process': 'x'}, 'are numbers'),
      ({'coordinator': 'a:1', 'processes': '2', 'process': '2'}, 'expected 0 to 1'),
      ({'coordinator': 'a', 'processes': '2', 'process': '1'}, 'expected host:port'),
    ],
  )
  def test_mistakes_are_explained(
    self,
    values: dict[str, str],
    message: str,
    initialized: list[dict[str, object]],
    monkeypatch: pytest.MonkeyPatch,
  ) -> None:
    place(monkeypatch, **values)
    with pytest.raises(ValueError, match=message):
      hosts.join()
    assert not initialized

  def test_nobody_at_the_address(
    self, initialized: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
  ) -> None:
    with socket.socket() as unused:
      unused.bind(('127.0.0.1', 0))
      address = f'127.0.0.1:{unused.getsockname()[1]}'  # nobody listens
      place(monkeypatch, coordinator=address, processes='2', process='1')
      began = time.monotonic()
      with pytest.raises(OSError, match=f'coordinator {address} cannot be reached'):
        hosts.join(timeout=1)
    assert time.monotonic() - began < 10

  def test_no_cluster_names_the_ways(self, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**given: object) -> None:
      raise ValueError('coordinator_address should be defined.')

    monkeypatch.setattr(jax.distributed, 'initialize', refuse)
    with pytest.raises(ValueError, match='found no cluster .*OVS_COORDINATOR'):
      hosts.join()


SLURM = {
  'SLURM_JOB_ID': '7',
  'SLURM_STEP_NODELIST': 'n[1-2]',
  'SLURM_STEP_NUM_NODES': '2',
  'SLURM_NTASKS': '2',
  'SLURM_PROCID': '0',
  'SLURM_NODEID': '0',
  'SLURM_LOCALID': '0',
  'SLURM_STEP_TASKS_PER_NODE': '1(x2)',
  'SLURM_GPUS_ON_NODE': '8',
  'CUDA_VISIBLE_DEVICES': '0,1,2,3,4,5,6,7',
}


class TestSlurm:
  @pytest.fixture(autouse=True)
  def slurm(self, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SLURM.items():
      monkeypatch.setenv(name, value)
    for name in ('JAX_LOCAL_DEVICE_IDS', 'JAX_PLATFORMS'):
      monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(jax, 'local_device_count', lambda: 8)

  def test_a_task_uses_all_gpus_of_its_node(
    self, initialized: list[dict[str, object]]
  ) -> None:
    hosts.join()
    assert initialized[0]['local_device_ids'] == [0, 1, 2, 3, 4, 5, 6, 7]

  def test_jax_makes_them_visible(self, monkeypatch: pytest.MonkeyPatch) -> None:
    """What JAX itself makes of it, short of connecting to anybody."""

    class Reached(Exception):
      """JAX has chosen its devices and starts its service."""

    def start(*args: object, **given: object) -> None:
      raise Reached

    monkeypatch.setattr(distributed._jax, 'get_distributed_runtime_service', start)
    monkeypatch.setattr(distributed.xla_bridge, 'backends_are_initialized', bool)
    before = jax.config.values['jax_cuda_visible_devices']
    try:
      with pytest.raises(Reached):
        hosts.join()
      assert jax.config.values['jax_cuda_visible_devices'] == '0,1,2,3,4,5,6,7'
    finally:
      for name in ('jax_cuda_visible_devices', 'jax_rocm_visible_devices'):
        jax.config.update(name, before)

  @pytest.mark.parametrize(
    ('tasks', 'local', 'node', 'visible', 'ids'),
    [
      ('8(x2)', '3', '1', '0,1,2,3,4,5,6,7', [3]),
      ('8(x2)', '3', '1', '3', [0]),  # --gpus-per-task=1
      ('8(x2)', '3', '1', None, [3]),
      ('2,4(x2)', '1', '0', '0,1,2,3,4,5,6,7', [4, 5, 6, 7]),
      ('2,4(x2)', '1', '2', '0,1,2,3,4,5,6,7', [2, 3]),
    ],
  )
  def test_several_tasks_share_them(
    self,
    tasks: str,
    local: str,
    node: str,
    visible: str | None,
    ids: list[int],
    initialized: list[dict[str, object]],
    monkeypatch: pytest.MonkeyPatch,
  ) -> None:
    monkeypatch.setenv('SLURM_STEP_TASKS_PER_NODE', tasks)
    monkeypatch.setenv('SLURM_LOCALID', local)
    monkeypatch.setenv('SLURM_NODEID', node)
    if visible is None:
      monkeypatch.delenv('CUDA_VISIBLE_DEVICES')
    else:
      monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)
    monkeypatch.setattr(jax, 'local_device_count', lambda: len(ids))
    hosts.join()
    assert initialized[0]['local_device_ids'] == ids

  def test_the_user_may_choose(
    self, initialized: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
  ) -> None:
    monkeypatch.setenv('JAX_LOCAL_DEVICE_IDS', '0,1,2,3,4,5,6,7')
    hosts.join()
    assert 'local_device_ids' not in initialized[0]

  def test_unused_gpus_are_refused(
    self, initialized: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
  ) -> None:
    monkeypatch.setattr(jax, 'local_device_count', lambda: 1)
    with pytest.raises(ValueError, match='gave this task 8 GPUs, and JAX uses 1 cpu'):
      hosts.join()
    monkeypatch.setenv('SLURM_STEP_TASKS_PER_NODE', '3(x2)')
    with pytest.raises(ValueError, match='3 tasks on this node for its 8 GPUs'):
      hosts.join()

  @pytest.mark.parametrize(
    ('name', 'value'), [('SLURM_GPUS_ON_NODE', ''), ('JAX_PLATFORMS', 'cpu')]
  )
  def test_where_no_gpus_are_expected(
    self,
    name: str,
    value: str,
    initialized: list[dict[str, object]],
    monkeypatch: pytest.MonkeyPatch,
  ) -> None:
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(jax, 'local_device_count', lambda: 1)
    hosts.join()
    assert 'local_device_ids' not in initialized[0]


class TestExchange:
  def test_one_process_agrees_with_itself(self) -> None:
    hosts.check_same('versions', 'jax 1')
    hosts.barrier('here')
    assert hosts.exchange('numbers', '3') == ['3']
    assert hosts.primary() and not hosts.several()

  def test_others_are_listed(self, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, 'exchange', lambda what, text: [text, 'jax 2'])
    with pytest.raises(ValueError) as error:
      hosts.check_same('versions', 'jax 1')
    assert 'differ in versions: process 0: jax 1; process 1: jax 2' in str(error.value)
