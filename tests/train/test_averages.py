"""Averages of the parameters: what they are, who reads them, and resuming."""

import pathlib
from typing import Any

import line
import numpy as np
import pytest

from ovs_jax.core.checkpoint import load_model
from ovs_jax.core.tree import flatten


def stored(directory: pathlib.Path, step: int = 4) -> tuple[Any, Any]:
  """What readers get of a step."""
  params, _ = load_model(directory / 'checkpoints' / str(step))
  return params['line']['scale'], params['still']['scale']


def plain(**changes: Any) -> Any:
  return line.configured(save_every=1, keep=9, **changes)


def test_readers_get_the_average(tmp_path: pathlib.Path) -> None:
  line.run(plain(), tmp_path / 'raw')
  line.run(plain(ema=0.75), tmp_path / 'ema')
  average = line.SLOPES
  for step in range(1, 5):
    now, still = stored(tmp_path / 'raw', step)
    average = 0.75 * average + 0.25 * now
    got, also = stored(tmp_path / 'ema', step)
    np.testing.assert_allclose(got, average, rtol=1e-6)
    np.testing.assert_array_equal(also, still)
  assert not np.allclose(average, now)


def test_evaluations_are_of_it(tmp_path: pathlib.Path) -> None:
  config = plain(ema=0.75)
  config.adapt.evaluate_every = 4
  seen = []

  def note(self: Any, params: Any, constants: Any) -> dict[str, float]:
    seen.append(np.asarray(params['line']['scale']))
    return {'score': float(len(seen))}

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(line.Line, 'evaluate', note)
    line.run(config, tmp_path)
  np.testing.assert_array_equal(seen[0], line.SLOPES)
  np.testing.assert_array_equal(seen[1], stored(tmp_path)[0])
  best, _ = load_model(tmp_path / 'best')
  np.testing.assert_array_equal(best['line']['scale'], seen[1])


def assert_equal(one: pathlib.Path, other: pathlib.Path) -> None:
  got, want = (flatten(load_model(x)[0]) for x in (one, other))
  assert set(got) == set(want)
  for path in want:
    np.testing.assert_array_equal(got[path], want[path], err_msg=path)


@pytest.mark.parametrize('fsdp', [False, True])
def test_two_and_two_steps_are_four(
  fsdp: bool, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr('ovs_jax.core.sharding._FSDP_ELEMENTS', 1)
  config = line.configured(ema=0.75)
  config.mesh.fsdp = fsdp
  line.run(config, tmp_path / 'whole')
  line.run(config, tmp_path / 'killed', steps=3)
  line.run(config, tmp_path / 'killed')
  assert_equal(tmp_path / 'killed', tmp_path / 'whole')


def test_a_run_may_begin_to_average(tmp_path: pathlib.Path) -> None:
  line.run(plain(steps=2), tmp_path)
  before, _ = stored(tmp_path, 2)
  line.run(plain(ema=0.75, steps=3), tmp_path)
  line.run(plain(steps=3), tmp_path / 'raw')
  after, _ = stored(tmp_path / 'raw', 3)
  average, _ = stored(tmp_path, 3)
  np.testing.assert_allclose(average, 0.75 * before + 0.25 * after, rtol=1e-6)


def test_and_to_end_with_what_trains(tmp_path: pathlib.Path) -> None:
  line.run(plain(ema=0.75, steps=2), tmp_path / 'changed')
  line.run(plain(), tmp_path / 'changed')
  line.run(plain(), tmp_path / 'raw')
  assert_equal(tmp_path / 'changed', tmp_path / 'raw')


@pytest.mark.parametrize(('warmup', 'noted'), [(0, False), (3, False), (4, True)])
def test_a_warm_up_that_does_not_end_is_noted(
  warmup: int,
  noted: bool,
  tmp_path: pathlib.Path,
  capsys: pytest.CaptureFixture[str],
) -> None:
  config = plain()
  config.optimizer.warmup = warmup
  line.run(config, tmp_path)
  said = capsys.readouterr().out
  note = f'note: 4 steps end before the {warmup} of config.optimizer.warmup: the learn'
  assert (note in said) == noted
