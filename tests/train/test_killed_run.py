"""A run that is killed while it saves, again and again, and goes on."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

import killed_run
import numpy as np
import pytest
import tiny_configs

from ovs_jax.core.checkpoint import load_model
from ovs_jax.core.files import Place, place
from ovs_jax.core.tree import flatten
from ovs_jax.data import load_dataset
from ovs_jax.settings import Settings


def start(data_dir: str, directory: Place, **more: str) -> subprocess.Popen[bytes]:
  command = [sys.executable, killed_run.__file__, data_dir, str(directory)]
  return subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | more)


def losses(directory: Place) -> list[tuple[int, float]]:
  lines = (directory / 'metrics.jsonl').read_text().splitlines()
  return [(json.loads(line)['step'], json.loads(line)['loss']) for line in lines]


@pytest.mark.slow
def test_kill_nine_in_a_save_changes_nothing(
  data_dir: str, tmp_path: pathlib.Path
) -> None:
  load_dataset(Settings.of(tiny_configs.pretraining(data_dir)).dataset)  # prepared once
  whole, killed = tmp_path / 'whole', tmp_path / 'killed'
  assert start(data_dir, whole).wait() == 0
  for step in (1, 3, 6):
    process = start(data_dir, killed)
    unfinished = f'checkpoints/{step}.orbax-checkpoint-tmp*'
    while process.poll() is None and not list(killed.glob(unfinished)):
      time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    saved = [int(p.name) for p in killed.glob('checkpoints/*') if p.name.isdigit()]
    # It may have ended between the look and the kill.
    assert max(saved, default=0) in (step - 1, step)
  assert start(data_dir, killed).wait() == 0
  assert_same(killed, whole)


def assert_same(killed: Place, whole: pathlib.Path) -> None:
  assert losses(killed) == losses(whole)
  assert [step for step, _ in losses(whole)] == list(range(1, killed_run.STEPS + 1))
  expected, got = (flatten(load_model(run)[0]) for run in (whole, killed))
  for path in expected:
    np.testing.assert_array_equal(got[path], expected[path], err_msg=path)


@pytest.mark.slow
def test_kill_nine_in_a_save_to_a_bucket_changes_nothing(
  data_dir: str, tmp_path: pathlib.Path, bucket: str, emulator: Any
) -> None:
  """Data, checkpoints and metrics are in the bucket."""
  load_dataset(Settings.of(tiny_configs.pretraining(data_dir)).dataset)
  data = f'{bucket}/data'
  load_dataset(Settings.of(tiny_configs.pretraining(data)).dataset)
  whole, killed = tmp_path / 'whole', place(bucket) / 'killed'
  assert start(data_dir, whole).wait() == 0
  process = start(data, killed, **emulator.tensorflow)

  def kill(line: str) -> None:
    if '%2Fcheckpoints%2F3%2Fparams' in line:
      os.kill(process.pid, signal.SIGKILL)
      raise ConnectionError

  emulator.on_write = kill
  assert process.wait() == -signal.SIGKILL
  emulator.on_write = lambda line: None
  saved = [path.parent.name for path in killed.glob('checkpoints/*/commit_success.txt')]
  assert sorted(saved) == ['1', '2']
  assert start(data, killed, **emulator.tensorflow).wait() == 0
  assert_same(killed, whole)
