"""Numbers that are not finite: steps left out, and good checkpoints kept."""

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import line
import numpy as np
import pytest
import tiny_configs

from ovs_jax.core import content
from ovs_jax.core.checkpoint import load_model
from ovs_jax.settings import Settings
from ovs_jax.train import guard, loop


def lines(directory: pathlib.Path) -> list[dict[str, Any]]:
  text = (directory / 'metrics.jsonl').read_text()
  return [json.loads(x) for x in text.splitlines()]


def slope(directory: pathlib.Path) -> Any:
  return load_model(directory)[0]['line']['scale']


def test_devices_and_this_machine_find_the_same() -> None:
  values = [1.0, np.nan, np.inf, -np.inf, 3e38]
  arrays = [jnp.full((2, 3), 2.0).at[1, 2].set(x) for x in values]
  arrays += [x.astype(jnp.bfloat16) for x in arrays[:4]] + [jnp.float32(np.nan)]
  expected = [True, False, False, False, True, True, False, False, False, False]
  assert jax.jit(guard.are_finite)(arrays).tolist() == expected
  assert [content.is_finite(np.asarray(x)) for x in arrays] == expected


class TestStopping:
  def test_a_good_checkpoint_is_not_replaced(self, tmp_path: pathlib.Path) -> None:
    config = line.configured(steps=20, log_every=20, save_every=3)
    for _ in range(2):  # the same command comes to the same
      with pytest.raises(FloatingPointError) as error:
        line.run(config, tmp_path, spoiled=(8,), command=True)
      said = str(error.value)
      assert said.startswith('the loss is nan at step 9.')
      assert 'the newest checkpoint is that of step 6, and finite' in said
      assert 'go on with a higher config.train.skip_not_finite' in said
      assert 'in another --workdir= with a lower config.optimizer.lea' in said
      assert '\n' not in said
      assert line.steps_of(tmp_path) == [3, 6]
    assert np.isfinite(slope(tmp_path)).all()
    config.train.skip_not_finite = 1  # what the message says helps
    done = line.run(config, tmp_path, spoiled=(8,), command=True)
    assert np.isfinite(done['loss'])
    assert line.steps_of(tmp_path) == [18, 20]
    assert lines(tmp_path)[-1]['skipped'] == 1
    config.optimizer.learning_rate = 0.01
    with pytest.raises(ValueError, match='different: optimizer.learning_rate'):
      line.run(config, tmp_path, command=True)

  def test_parameters_are_looked_at_too(self, tmp_path: pathlib.Path) -> None:
    config = line.configured(save_every=1)
    # The loss before is finite, and the step beyond all numbers.
    config.optimizer.update(
      learning_rate=1e38, groups=((r'^line/', 100.0), (r'.*', None))
    )
    with pytest.raises(FloatingPointError) as error:
      line.run(config, tmp_path)
    assert str(error.value).startswith(
      '1 of 4 arrays are not finite, such as params/line/scale, after step 1. Nothing '
      'of it was saved; there is no checkpoint yet'
    )
    assert line.steps_of(tmp_path) == []

  def test_the_best_is_not_replaced_either(self, tmp_path: pathlib.Path) -> None:
    config = line.configured(steps=4, save_every=4, log_every=4)
    config.adapt.evaluate_every = 1
    with pytest.raises(FloatingPointError, match='the loss is nan at step 3'):
      line.run(config, tmp_path, spoiled=(3,))
    assert np.isfinite(slope(tmp_path / 'best')).all()

  def test_a_bad_checkpoint_is_named(self, tmp_path: pathlib.Path) -> None:
    config = line.configured(steps=2)
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(loop.Guard, 'check', lambda *args, **kwargs: None)
      line.run(config, tmp_path, spoiled=(2,))
    config.train.steps = 4
    with pytest.raises(ValueError, match='arrays are not finite.*/2; delete this dir'):
      line.run(config, tmp_path)


class TestSkipping:
  def test_a_step_is_left_out_and_counted(self, tmp_path: pathlib.Path) -> None:
    config = line.configured(skip_not_finite=2, ema=0.5)
    line.run(config, tmp_path / 'spoiled', spoiled=(2, 3))
    assert [x['skipped'] for x in lines(tmp_path / 'spoiled')] == [0, 1, 2, 2]
    rates = [x['learning_rate'] for x in lines(tmp_path / 'spoiled')]
    assert rates == [rates[0]] * 4
    # The first and the fourth step alone, whose order no average changes: two steps.
    config.train.steps = 1
    line.run(config, tmp_path / 'one')
    raw = (tmp_path / x / 'checkpoints' for x in ('spoiled', 'one'))
    assert line.steps_of(tmp_path / 'spoiled') == [2, 4]
    one, two = (load_model(x / y)[0] for x, y in zip(raw, ('2', '1'), strict=True))
    # After the second step, which was left out, everything is as after the first.
    for name in ('line', 'still'):
      np.testing.assert_array_equal(one[name]['scale'], two[name]['scale'])

  def test_counts_survive_a_kill(self, tmp_path: pathlib.Path) -> None:
    config = line.configured(skip_not_finite=2)
    bad = (1, 2, 4)
    line.run(config, tmp_path / 'whole', spoiled=bad)
    line.run(config, tmp_path / 'killed', spoiled=bad, steps=3)
    line.run(config, tmp_path / 'killed', spoiled=bad)
    assert [x['skipped'] for x in lines(tmp_path / 'killed')] == [1, 2, 2, 3]
    np.testing.assert_array_equal(slope(tmp_path / 'killed'), slope(tmp_path / 'whole'))

  @pytest.mark.parametrize('killed', [False, True])
  def test_too_many_in_a_row_end_the_run(
    self, killed: bool, tmp_path: pathlib.Path
  ) -> None:
    config = line.configured(skip_not_finite=2, steps=8)
    if killed:  # in the middle of the row
      line.run(config, tmp_path, spoiled=(2, 3, 4, 5), steps=3)
    with pytest.raises(FloatingPointError, match='3 steps in a row until step 4 were'):
      line.run(config, tmp_path, spoiled=(2, 3, 4, 5))
    assert line.steps_of(tmp_path) == [2]
    assert np.isfinite(slope(tmp_path)).all()


@pytest.mark.slow
def test_a_divergent_run_keeps_its_good_checkpoints(
  data_dir: str, tmp_path: pathlib.Path
) -> None:
  config = tiny_configs.pretraining(data_dir)
  config.train.update(steps=20, log_every=20, save_every=3)
  loop.train(Settings.of(config.copy_and_resolve_references()), tmp_path / 'good')
  config.optimizer.learning_rate = 1e18
  with pytest.raises(FloatingPointError, match='Nothing of it was saved'):
    loop.train(Settings.of(config), tmp_path / 'bad')
  for step in line.steps_of(tmp_path / 'bad'):
    params, _ = load_model(tmp_path / 'bad/checkpoints' / str(step))
    assert all(np.isfinite(x).all() for x in loop.flatten(params).values())
