"""A save that is killed leaves what was there, and the next one works."""

import pathlib
import signal
import subprocess
import sys
from typing import Any

import killed_saves
import numpy as np
import pytest

from ovs_jax.core import checkpoint

SIZES = ('size_1', 'size_100000')  # in the first file, and among the numbers


def kill(kind: str, directory: pathlib.Path, points: list[str]) -> dict[str, int]:
  """Returns the exit status at each point."""
  done = subprocess.run(
    [sys.executable, killed_saves.__file__, kind, directory, *points],
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  lines = (line.split() for line in done.stdout.splitlines())
  return {point: int(status) for point, status in lines}


def assert_holds(params: Any, value: int) -> None:
  np.testing.assert_array_equal(params['w'], killed_saves.params(value)['w'])


def check_run(directory: pathlib.Path, *, killed: bool) -> int:
  """Returns the step that a resumed run goes on from, after it did."""
  saved = checkpoint.RunCheckpoints(directory, keep=2, config={'model': 'clip'})
  step = saved.latest()
  assert step == 2 or killed and step == 1
  like = (killed_saves.params(0), {'step': np.asarray(0)})
  params, optimizer = saved.restore(step, *like)
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


def check_model(directory: pathlib.Path, *, killed: bool) -> int:
  """Returns the value that is in the model's place."""
  params, config = checkpoint.load_model(directory / 'model')
  assert_holds(params, config['value'])
  assert config['value'] == 2 or killed
  return config['value']


CHECKS = {'run': check_run, 'model': check_model}


def run_points(kind: str, directory: pathlib.Path, points: list[str]) -> list[int]:
  """Kills saves; returns what each left behind."""
  ended = kill(kind, directory, points)
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
