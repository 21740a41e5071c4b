"""Processes that really work together, started by launch/local_processes.sh."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest
from fake_checkout import ROOT, Checkout

from ovs_jax.core.checkpoint import load_model
from ovs_jax.core.tree import flatten
from ovs_jax.core.types import VOID
from ovs_jax.data import pipeline, scenes
from ovs_jax.evaluate.predictions import save_map
from ovs_jax.text import vocabulary

# The Python of these tests, where launch/setup.sh expects that of .venv.
PYTHON = """#!/bin/bash
case "$*" in *version_info*) echo 3.12 ;; *) exec "{executable}" "$@" ;; esac
"""


@pytest.fixture
def checkout(tmp_path: pathlib.Path) -> Checkout:
  """A checkout with the package itself."""
  made = Checkout(tmp_path)
  made.run('run.sh')
  for name in ('ovs_jax', 'configs'):
    (made.path / name).symlink_to(ROOT / name)
  python = made.path / '.venv/bin/python'
  python.write_text(PYTHON.format(executable=sys.executable))
  return made


def start(checkout: Checkout, *args: str, **env: str) -> subprocess.Popen[str]:
  kept = {k: v for k, v in os.environ.items() if k.startswith(('JAX_', 'TF_', 'HOME'))}
  env['XDG_CACHE_HOME'] = str(checkout.path.parent / 'cache')
  return checkout.start(*args, **kept, **env)


def finish(process: subprocess.Popen[str], status: int = 0) -> str:
  """Waits for the end; returns what was written to stderr."""
  _, err = process.communicate(timeout=2400)
  assert process.returncode == status, err
  return err


def losses(run: pathlib.Path) -> list[Any]:
  lines = (run / 'metrics.jsonl').read_text().splitlines()
  return [(json.loads(line)['step'], json.loads(line)['loss']) for line in lines]


def assert_equal_models(one: pathlib.Path, other: pathlib.Path) -> None:
  expected, got = flatten(load_model(one)[0]), flatten(load_model(other)[0])
  assert set(got) == set(expected)
  for path in expected:
    np.testing.assert_array_equal(got[path], expected[path], err_msg=path)


@pytest.mark.parametrize('model', [1, pytest.param(2, marks=pytest.mark.slow)])
def test_two_processes_train_what_one_with_two_devices_does(
  model: int, checkout: Checkout, data_dir: str, tmp_path: pathlib.Path
) -> None:
  config = ('--config=configs/scenes.py:clip:smoke', f'--config.mesh.model={model}')
  config += (f'--config.dataset.data_dir={data_dir}',)
  together, alone = tmp_path / 'together', tmp_path / 'alone'
  finish(start(checkout, 'local_processes.sh', '2', *config, f'--workdir={together}'))
  devices = '--xla_force_host_platform_device_count=2'
  finish(start(checkout, 'run.sh', *config, f'--workdir={alone}', XLA_FLAGS=devices))
  assert losses(together / 'clip') == losses(alone / 'clip')
  assert [step for step, _ in losses(together / 'clip')] == [1, 2, 3, 4]
  assert_equal_models(alone / 'clip', together / 'clip')


@pytest.mark.slow
def test_two_processes_benchmark_in_a_pipeline(
  checkout: Checkout, data_dir: str, tmp_path: pathlib.Path
) -> None:
  """Its last stage alone, on saved label maps, which need no model."""
  names = vocabulary.load('scenes').names
  for example in pipeline.examples(scenes.prepare(data_dir, 'smoke'), 'val'):
    labels = example['label'].astype(int)
    labels = np.where(labels == VOID, 0, labels)
    save_map(tmp_path / 'maps', example['image_id'].decode(), labels, names)
  run = ('--config=configs/eval_ovseg.py:smoke', f'--workdir={tmp_path}/run')
  stage = ("--config.order=('eval_ovseg',)", '--config.optimize_programs=False')
  maps = f'--config.stages.eval_ovseg.suite.predictions={tmp_path}/maps'
  data = f'--config.dataset.data_dir={data_dir}'
  finish(start(checkout, 'local_processes.sh', '2', *run, *stage, maps, data))
  done = json.loads((tmp_path / 'run/eval_ovseg/done.json').read_text())
  (summary,) = done['result'].values()
  assert summary['images'] == 16


LONG = (
  '--config=configs/scenes.py:clip',
  '--config.dataset.variant=smoke',
  '--config.train.batch_size=8',
  '--config.train.log_every=1',
  '--config.optimize_programs=False',
)


def wait_for_step(run: pathlib.Path, step: int) -> None:
  deadline = time.monotonic() + 300
  while True:
    if (run / 'metrics.jsonl').exists() and len(losses(run)) >= step:
      return
    assert time.monotonic() < deadline
    time.sleep(0.1)


@pytest.mark.slow
def test_a_notice_to_one_stops_all_and_they_go_on(
  checkout: Checkout, tmp_path: pathlib.Path
) -> None:
  config = (*LONG, '--config.train.steps=40', '--config.train.save_every=1000')
  config += (f'--config.dataset.data_dir={tmp_path}/data',)
  stopped, whole = tmp_path / 'stopped', tmp_path / 'whole'
  command = ('local_processes.sh', '2', *config)
  process = start(checkout, *command, f'--workdir={stopped}')
  wait_for_step(stopped, 3)
  process.send_signal(signal.SIGTERM)
  assert 'which is saved; run the same command to go on' in finish(process, 75)
  assert len(losses(stopped)) < 40
  finish(start(checkout, *command, f'--workdir={stopped}'))
  finish(start(checkout, *command, f'--workdir={whole}'))
  assert losses(stopped) == losses(whole)
  assert_equal_models(whole, stopped)


@pytest.mark.slow
def test_when_one_dies_the_others_end(
  checkout: Checkout, tmp_path: pathlib.Path
) -> None:
  config = (*LONG, '--config.train.steps=100000')
  config += (f'--config.dataset.data_dir={tmp_path}/data',)
  run = tmp_path / 'run'
  process = start(checkout, 'local_processes.sh', '2', *config, f'--workdir={run}')
  wait_for_step(run, 3)
  members = subprocess.run(
    ['pgrep', '-f', f'multihost.*{run}'], capture_output=True, text=True, check=True
  )
  os.kill(int(members.stdout.split()[-1]), signal.SIGKILL)
  began = time.monotonic()
  err = finish(process, 128 + signal.SIGKILL)
  assert time.monotonic() - began < 60
  assert 'One process ended with status 137; stopping the others.' in err


def assert_equal_up_to_rounding(run: pathlib.Path, expected: pathlib.Path) -> None:
  """Two processes add up bit for bit what two devices do; four, in another order."""
  for stage, rtol in (('clip', 1e-4), ('proposer', 1e-4), ('mpt', 1e-2)):
    np.testing.assert_allclose(
      losses(run / stage), losses(expected / stage), rtol=rtol, err_msg=stage
    )
  got, want = (json.loads((r / 'report.json').read_text()) for r in (run, expected))
  assert got['crops'] == want['crops']
  for row, other in zip(got['rows'], want['rows'], strict=True):
    assert row == pytest.approx(other, abs=0.1, nan_ok=True)  # percent


@pytest.mark.slow
def test_four_processes_run_the_whole_pipeline(
  checkout: Checkout, tmp_path: pathlib.Path
) -> None:
  config = ('--config=configs/quickstart.py:smoke',)
  config += (f'--config.dataset.data_dir={tmp_path}/data',)
  runs = {count: tmp_path / str(count) for count in (1, 4)}
  devices = '--xla_force_host_platform_device_count=4'
  finish(start(checkout, 'run.sh', *config, f'--workdir={runs[1]}', XLA_FLAGS=devices))
  finish(start(checkout, 'local_processes.sh', '4', *config, f'--workdir={runs[4]}'))
  assert_equal_up_to_rounding(runs[4], runs[1])
