"""What the loop offers beside training: turns, stopping, tracing, telling times."""

import json
import os
import pathlib
import signal
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_configs
from metric_stand_ins import read

from ovs_jax.core.checkpoint import load_model
from ovs_jax.core.devices import least_seconds
from ovs_jax.core.preemption import Stopped
from ovs_jax.core.tree import flatten
from ovs_jax.core.types import Array, Batch
from ovs_jax.settings import Settings
from ovs_jax.train import loop
from ovs_jax.train.recipes import RECIPES


def squared(params: dict[str, Array], batch: Batch, key: Array) -> tuple[Array, Any]:
  """A loss that is a mean over examples."""
  loss = jnp.mean((batch['x'] @ params['w'] - batch['y']) ** 2)
  return loss, {'largest': jnp.max(batch['y'])}


@pytest.mark.parametrize('turns', [1, 2, 4])
def test_turns_give_the_gradient_of_the_whole_batch(turns: int) -> None:
  draw = np.random.default_rng(0)
  batch = {'x': draw.normal(size=(8, 3)), 'y': np.arange(8.0)}
  batch = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), batch)
  params = {'w': jnp.array([0.5, -1.0, 2.0])}
  gradient = jax.value_and_grad(squared, has_aux=True)
  key = jax.random.key(0)
  (loss, metrics), grads = loop.accumulate(gradient, params, batch, key, turns)
  (whole, _), expected = gradient(params, batch, key)
  np.testing.assert_allclose(loss, whole, rtol=1e-6)
  np.testing.assert_allclose(grads['w'], expected['w'], rtol=1e-5)
  # Parts are interleaved: the largest of 0, 2, 4, 6 and of 1, 3, 5, 7 are 6 and 7.
  assert metrics['largest'] == {1: 7.0, 2: 6.5, 4: 5.5}[turns]


def test_each_turn_has_its_own_randomness() -> None:
  def drawn(params: Any, batch: Batch, key: Array) -> tuple[tuple[Array, Any], Any]:
    return (jax.random.uniform(key), {}), params

  key = jax.random.key(1)
  (mean, _), _ = loop.accumulate(drawn, {}, {'x': jnp.zeros((4, 1))}, key, 2)
  draws = [jax.random.uniform(jax.random.fold_in(key, i)) for i in range(2)]
  np.testing.assert_allclose(mean, np.mean(draws), rtol=1e-6)
  assert draws[0] != draws[1]


@pytest.mark.slow
def test_turns_train(data_dir: str, tmp_path: pathlib.Path) -> None:
  config = tiny_configs.pretraining(data_dir)
  config.train.update(accumulate=2, steps=2, batch_size=16)
  assert np.isfinite(loop.train(Settings.of(config), tmp_path)['loss'])
  for value, message in ((0, 'accumulate is 0'), (3, 'batch_size 16 is not')):
    config.train.accumulate = value
    with pytest.raises(ValueError, match=message):
      loop.train(Settings.of(config), tmp_path)


def notice_at(monkeypatch: pytest.MonkeyPatch, recipe: str, step: int) -> None:
  """Sends SIGTERM to this process while the batch of a step is read."""
  original = RECIPES[recipe]

  def build(config: Any) -> Any:
    built = original(config)
    batches = built.batches

    def read(start: int, rows: Any) -> Iterator[Batch]:
      for number, batch in enumerate(batches(start, rows), start=start + 1):
        if number == step:
          os.kill(os.getpid(), signal.SIGTERM)
        yield batch

    built.batches = read
    return built

  monkeypatch.setitem(RECIPES, recipe, build)


def test_a_notice_saves_the_step_and_the_run_goes_on(
  data_dir: str, tmp_path: pathlib.Path
) -> None:
  config = tiny_configs.pretraining(data_dir)
  config.train.save_every = 1000
  before = signal.getsignal(signal.SIGTERM)
  with pytest.MonkeyPatch.context() as patch:
    notice_at(patch, config.recipe, 3)
    with pytest.raises(Stopped, match='after step 3 of 4, which is saved'):
      loop.train(Settings.of(config), tmp_path / 'stopped')
  assert signal.getsignal(signal.SIGTERM) is before
  assert (tmp_path / 'stopped/checkpoints/3').is_dir()
  loop.train(Settings.of(config), tmp_path / 'stopped')
  loop.train(Settings.of(config), tmp_path / 'whole')
  whole, stopped = (
    flatten(load_model(tmp_path / name)[0]) for name in ('whole', 'stopped')
  )
  for path in whole:
    np.testing.assert_array_equal(stopped[path], whole[path], err_msg=path)


@pytest.mark.slow
def test_a_notice_at_the_last_step_changes_nothing(
  data_dir: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  config = tiny_configs.pretraining(data_dir)
  notice_at(monkeypatch, config.recipe, 4)
  assert np.isfinite(loop.train(Settings.of(config), tmp_path)['loss'])


def test_lines_say_where_time_and_memory_went(
  data_dir: str,
  tmp_path: pathlib.Path,
  capsys: pytest.CaptureFixture,
  monkeypatch: pytest.MonkeyPatch,
  metric_programs: None,
) -> None:
  config = tiny_configs.pretraining(data_dir)
  config.train.update(profile=1, steps=5, writers=('wandb',))
  config.clip.update(dtype='bfloat16', remat=True)
  counted = []

  def seconds(flops: dict[str, int]) -> float:
    counted.append(flops)
    return least_seconds(flops)

  monkeypatch.setattr(loop, 'least_seconds', seconds)
  loop.train(Settings.of(config), tmp_path)
  lines = [
    json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()
  ]
  assert all(0 < line['data_share'] < 1 for line in lines[1:])
  # A line's own save is told by the next one.
  assert 0 < lines[2]['checkpoint_share'] < 1 and 'checkpoint_share' not in lines[3]
  assert all(0 < line['utilisation'] < 1 for line in lines)
  # Against the peak of what the towers compute in, and that of the logits.
  assert set(counted[0]) == {'bfloat16', 'float32'}
  assert all(line['memory_bytes'] > 50e6 for line in lines)
  assert list((tmp_path / 'profile').rglob('*.xplane.pb'))
  assert list((tmp_path / 'profile').rglob('perfetto_trace.json.gz'))
  start, *told = read(tmp_path, 'wandb_run_*')
  assert start[1]['config']['train']['steps'] == 5
  assert [(step, round(x['loss'], 6)) for step, x in told] == [
    (line['step'], line['loss']) for line in lines
  ]
  said = capsys.readouterr().out
  assert 'parameters train' in said and 'on 8 cpu as 8x1 (data x model)' in said


@pytest.mark.slow
def test_fsdp_trains_the_same(data_dir: str, tmp_path: pathlib.Path) -> None:
  results = []
  for fsdp in (False, True):
    config = tiny_configs.pretraining(data_dir)
    config.train.steps = 2
    config.mesh.fsdp = fsdp
    results.append(loop.train(Settings.of(config), tmp_path / str(fsdp))['loss'])
  np.testing.assert_allclose(results[0], results[1], rtol=1e-5)


def test_the_host_does_not_run_ahead_of_the_devices(
  tmp_path: pathlib.Path, data_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
  """While a step runs, two batches wait; more would fill a device's memory."""
  config = tiny_configs.pretraining(data_dir)
  config.train.update(steps=8, log_every=8, save_every=8)
  asked: list[int] = []
  done: list[int] = []
  original = RECIPES[config.recipe]

  def end(_: Any) -> None:
    time.sleep(0.1)
    done.append(len(asked))

  def build(config: Any) -> Any:
    built = original(config)
    batches, loss = built.batches, built.loss

    def counted(start: int, rows: Any) -> Iterator[Batch]:
      for batch in batches(start, rows):
        asked.append(len(done))
        yield batch

    def slow(
      params: Any, constants: Any, batch: Batch, key: Array
    ) -> tuple[Array, Any]:
      value, metrics = loss(params, constants, batch, key)
      jax.debug.callback(end, value)
      return value, metrics

    built.batches, built.loss = counted, slow
    return built

  monkeypatch.setitem(RECIPES, config.recipe, build)
  loop.train(Settings.of(config), tmp_path)
  assert len(done) == 8
  # The step that runs is not done either.
  ahead = [i + 1 - finished for i, finished in enumerate(asked[:8])]
  assert 2 <= max(ahead) <= 3  # as far as the host comes meanwhile
