"""Metrics in other programs' logs: stand-ins keep what clu and W&B would be told."""

import pathlib

import pytest
import tiny_configs
from metric_stand_ins import read

from ovs_jax.core import writers
from ovs_jax.core.runlog import RunLog
from ovs_jax.settings import Settings
from ovs_jax.train.loop import train


def record(directory: pathlib.Path, steps: range, **settings: object) -> None:
  log = RunLog(
    directory,
    title='run',
    start=steps.start - 1,
    steps=9,
    batch_size=4,
    config={'seed': 3},
    **settings,
  )
  for step in steps:
    log.write(step, {'loss': step / 4})
  log.close()


def test_clu_gets_every_metric(metric_programs: None, tmp_path: pathlib.Path) -> None:
  record(tmp_path, range(1, 3), writers=('clu',))
  assert read(tmp_path, 'clu/*') == [[1, {'loss': 0.25}], [2, {'loss': 0.5}]]
  assert not (tmp_path / 'tensorboard').exists()


def test_a_resumed_run_is_the_same_run(
  metric_programs: None, tmp_path: pathlib.Path
) -> None:
  record(tmp_path, range(1, 4), writers=('wandb',))
  record(tmp_path, range(3, 5), writers=('wandb',))  # step 3 was not saved
  start, *lines = read(tmp_path, 'wandb_run_*')
  assert start == ['init', {'name': 'run', 'config': {'seed': 3}}]
  assert lines == [[step, {'loss': step / 4}] for step in (1, 2, 3, 4)]


def test_several_writers_and_one_process(
  metric_programs: None, tmp_path: pathlib.Path
) -> None:
  record(tmp_path, range(1, 2), writers=('clu', 'wandb', 'tensorboard'), silent=True)
  assert list(tmp_path.iterdir()) == []
  record(tmp_path, range(1, 2), writers=('clu', 'wandb', 'tensorboard'))
  assert {p.name for p in tmp_path.iterdir() if p.is_dir()} == {'clu', 'tensorboard'}
  assert read(tmp_path, 'wandb_run_*')[1:] == read(tmp_path, 'clu/*')


def test_what_is_not_installed_is_named_before_training(
  data_dir: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(writers.importlib.util, 'find_spec', lambda name: None)
  config = tiny_configs.pretraining(data_dir)
  config.train.writers = ('wandb',)
  with pytest.raises(ValueError, match="'wandb', which is not installed; pip install"):
    train(Settings.of(config), tmp_path)
  config.train.writers = ('wandbi',)
  with pytest.raises(ValueError, match="Did you mean 'wandb'"):
    train(Settings.of(config), tmp_path)
  assert list(tmp_path.iterdir()) == []
