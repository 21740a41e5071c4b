"""Counts that are kept, on every device and over every stop."""

import pathlib
from typing import Any

import jax
import numpy as np
import pytest

from ovs_jax.core import workers
from ovs_jax.core.checkpoint import save_model
from ovs_jax.core.preemption import Stopped
from ovs_jax.core.workers import Workers
from ovs_jax.evaluate import counted
from ovs_jax.evaluate.counted import Counted
from ovs_jax.evaluate.tally import Tally

TOTAL = 23


def count(
  directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch, *, stop_at: int = TOTAL
) -> tuple[Counted, list[int]]:
  """Counts numbered images until SIGTERM comes at one; returns those looked at."""
  mine = Counted(directory)
  tallies: dict[str, Tally] = {'a': Tally(2)}
  sums, notes, seen = {'errors': np.zeros(2, np.int64)}, {}, []
  mine.fill(tallies, sums, notes)

  def work(place: int, item: int) -> int:
    label = np.array([[item % 2, 1]])
    tallies['a'].add(f'{item}', np.zeros_like(label), label, boundary=False)
    notes.setdefault('odd', []).append(f'{item}')
    seen.append(item)
    return item

  def add(item: int) -> None:
    sums['errors'] += [item, 1]

  monkeypatch.setattr(counted, 'asked', lambda: len(seen) >= stop_at)
  monkeypatch.setattr('ovs_jax.core.preemption.asked', lambda: len(seen) >= stop_at)
  items = range(mine.steps, TOTAL)
  with Workers() as crew:
    mine.run(work, items, add, total=TOTAL, every=5, workers=crew, title='x')
  return mine, seen


def same(one: Any, other: Any) -> None:
  for name, x in one.tallies['a'].arrays().items():
    np.testing.assert_array_equal(other.tallies['a'].arrays()[name], x)
  np.testing.assert_array_equal(one.sums['errors'], other.sums['errors'])
  assert sorted(one.notes['odd']) == sorted(other.notes['odd'])


@pytest.mark.parametrize('devices', [1, 8])
@pytest.mark.parametrize('stop_at', [1, 7, 15])
def test_a_stopped_count_goes_on(
  devices: int, stop_at: int, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  here = jax.local_devices()[:devices]
  monkeypatch.setattr(workers, 'own_devices', lambda: here)
  whole, all_of_them = count(tmp_path / 'whole', monkeypatch, stop_at=10**6)
  assert sorted(all_of_them) == list(range(TOTAL)) and whole.steps == TOTAL
  with pytest.raises(Stopped, match=f'of {TOTAL} steps are counted'):
    count(tmp_path / 'broken', monkeypatch, stop_at=stop_at)
  assert stop_at <= Counted(tmp_path / 'broken').steps < TOTAL
  mine, rest = count(tmp_path / 'broken', monkeypatch, stop_at=10**6)
  assert min(rest) >= stop_at and max(rest) == TOTAL - 1
  same(whole, mine)
  tallies, sums = mine.merged()
  assert set(sums) == {'errors'} and len(tallies['a'].images) == TOTAL
  (tmp_path / 'broken' / 'counted_1_of_2.npz').touch()  # of an earlier start
  mine.clear()
  assert list((tmp_path / 'broken').iterdir()) == []


def test_a_killed_count_goes_on_where_it_was_kept(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  class Killed(Exception):
    """Stands for the end of a process."""

  def add(item: int) -> None:
    if item == 13:
      raise Killed

  mine = Counted(tmp_path)
  with pytest.raises(Killed), Workers() as crew:
    work = lambda place, item: item  # noqa: E731
    mine.run(work, range(TOTAL), add, total=TOTAL, every=5, workers=crew, title='x')
  assert Counted(tmp_path).steps == 10
  # Another number of processes has other images.
  assert Counted(tmp_path, index=0, count=2).steps == 0


def test_a_model_that_was_written_anew_is_refused(tmp_path: pathlib.Path) -> None:
  model = tmp_path / 'model'
  save_model(model, {'x': np.ones(1)}, {'model': 'x'})
  mine = Counted(tmp_path, models=(model, ''))
  with Workers() as crew:
    work = lambda place, item: item  # noqa: E731
    mine.run(work, range(5), print, total=TOTAL, every=5, workers=crew, title='x')
  kept = Counted(tmp_path, models=(model, '')).steps
  assert kept >= 5
  save_model(model, {'x': np.zeros(1)}, {'model': 'x'})
  with pytest.raises(ValueError, match='now the checkpoints are .*delete it to count'):
    Counted(tmp_path, models=(model, ''))


def test_a_damaged_file_is_named(tmp_path: pathlib.Path) -> None:
  (tmp_path / 'counted_0_of_1.npz').write_bytes(b'PK')
  with pytest.raises(ValueError, match=r'counted_0_of_1.npz is damaged .*delete it'):
    Counted(tmp_path)
