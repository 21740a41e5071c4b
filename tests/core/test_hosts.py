"""Processes that work together: what they are told, and what they must agree on."""

import socket
import time

import jax
import pytest

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
