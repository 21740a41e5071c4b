"""A save that is killed leaves what was there, and the next one works."""

import os
import pathlib
import signal
import subprocess
import sys
from typing import Any

import killed_saves
import numpy as np
import pytest

from ovs_jax.core import checkpoint, files, run_checkpoints

SIZES = ('size_1', 'size_100000')  # in the first file, and among the numbers


def kill(
  kind: str, directory: str, points: list[str], emulator: Any = None
) -> dict[str, int]:
  """Returns the exit status at each point."""
  child = subprocess.Popen(
    [sys.executable, killed_saves.__file__, kind, directory, *points],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  ended = {}
  for line in child.stdout:
    first, second, *process = line.split()
    if first == 'armed':
      emulator.on_write = Killer(int(process[0]), int(second.partition('_')[2]))
      child.stdin.write('\n')
      child.stdin.flush()
    else:
      ended[first] = int(second)
  _, said = child.communicate(timeout=60)
  assert child.returncode == 0, said
  return ended


class Killer:
  """Kills a process at its N-th request that writes, which then gets nowhere."""

  def __init__(self, process: int, number: int) -> None:
    self._process, self._left = process, number

  def __call__(self, line: str) -> None:
    self._left -= 1
    if self._left == 0:
      os.kill(self._process, signal.SIGKILL)
      raise ConnectionError


def assert_holds(params: Any, value: int) -> None:
  np.testing.assert_array_equal(params['w'], killed_saves.params(value)['w'])


def check_run(directory: files.Place, *, killed: bool) -> int:
  """Returns the step that a resumed run goes on from, after it did."""
  saved = run_checkpoints.RunCheckpoints(directory, keep=2, config={'model': 'clip'})
  step = saved.latest()
  assert step == 2 or killed and step == 1
  like = (killed_saves.params(0), {'step': np.asarray(0)})
  params, optimizer, _ = saved.restore(step, *like)
  assert_holds(params, step)
  assert optimizer['step'] == step
  loaded, config = checkpoint.load_model(directory)
  assert config['value'] == step
  assert_holds(loaded, step)
  saved.save(step + 1, killed_saves.params(step + 1), like[1])
  saved.close()
  # Nothing is left of the killed one.
  names = sorted(path.name for path in directory.iterdir())
  assert names == [str(step), str(step + 1)]
  return step


def check_model(directory: files.Place, *, killed: bool) -> int:
  """Returns the value that is in the model's place."""
  params, config = checkpoint.load_model(directory / 'model')
  assert_holds(params, config['value'])
  assert config['value'] == 2 or killed
  return config['value']


CHECKS = {'run': check_run, 'model': check_model}


def run_points(
  kind: str, directory: Any, points: list[str], emulator: Any = None
) -> list[int]:
  """Kills saves; returns what each left behind."""
  directory = files.place(directory)
  ended = kill(kind, str(directory), points, emulator)
  assert list(ended) == points
  left = []
  for point, status in ended.items():
    ends = -signal.SIGXFSZ if point in SIZES else -signal.SIGKILL
    assert status in (ends, 0), point
    left.append(CHECKS[kind](directory / point, killed=status != 0))
  return left


@pytest.mark.parametrize('kind', CHECKS)
def test_a_killed_save_leaves_the_one_before(kind: str, tmp_path: pathlib.Path) -> None:
  points = [*SIZES, 'change_1', 'change_3', 'change_1000']
  left = run_points(kind, tmp_path, points)
  assert left == [1, 1, 1, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize('kind', CHECKS)
def test_wherever_it_is_killed(kind: str, tmp_path: pathlib.Path) -> None:
  left = run_points(kind, tmp_path, [f'change_{n}' for n in range(1, 60)])
  # Up to the renaming that commits it, and from there on.
  assert left == sorted(left)
  assert left.count(1) > 5 and left.count(2) > 1


@pytest.mark.parametrize('kind', CHECKS)
def test_in_a_bucket(kind: str, bucket: str, emulator: Any) -> None:
  points = ['write_1', 'write_6', 'write_1000']
  assert run_points(kind, bucket, points, emulator) == [1, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize('kind', CHECKS)
def test_wherever_it_is_killed_in_a_bucket(
  kind: str, bucket: str, emulator: Any
) -> None:
  left = run_points(kind, bucket, [f'write_{n}' for n in range(1, 60)], emulator)
  assert left == sorted(left)
  assert left.count(1) > 5 and left.count(2) > 1
