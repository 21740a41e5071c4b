"""All devices of a host at work together, and results in order."""

import threading
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from ovs_jax.core import workers
from ovs_jax.core.workers import Workers


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(workers, 'own_devices', jax.local_devices)


def test_all_devices_are_busy_before_anybody_waits_for_one(eight: None) -> None:
  together = threading.Barrier(8, timeout=60)

  def task(place: int, item: int) -> tuple[int, int, Any]:
    there = jnp.full(3, item) * 2  # on no device in particular
    together.wait()
    return item, place, there

  with Workers() as crew:
    found = list(crew.map(task, range(24)))
  assert [item for item, *_ in found] == list(range(24))
  for item, place, there in found:
    assert place == item % 8 and there.tolist() == [2 * item] * 3
    assert there.devices() == {jax.local_devices()[place]}


def test_parameters_lie_on_every_device(eight: None) -> None:
  with Workers() as crew:
    copies = crew.copies({'a': {'b': jnp.arange(3)}})
  assert [x['a']['b'].devices() for x in copies] == [{d} for d in jax.local_devices()]


def test_items_are_taken_as_they_are_needed() -> None:
  taken = []

  def items() -> Any:
    for i in range(1000):
      taken.append(i)
      yield i

  with Workers() as crew:
    results = crew.map(lambda place, item: item, items())
    assert [next(results) for _ in range(5)] == list(range(5))
    assert len(taken) < 20


def test_a_failure_gives_up_what_has_not_begun() -> None:
  begun = []

  def task(place: int, item: int) -> None:
    begun.append(item)
    if item == 2:
      raise ValueError('two')

  with pytest.raises(ValueError, match='two'), Workers() as crew:
    list(crew.map(task, range(1000)))
  assert len(begun) < 20


def test_simulated_devices_of_a_cpu_are_left_alone() -> None:
  assert len(jax.local_devices()) == 8
  assert workers.own_devices() == jax.local_devices()[:1]
