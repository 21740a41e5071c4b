"""The real Scenic, which must be on PYTHONPATH, beside our own loop.

PYTHONPATH=~/scenic pytest -m samples tests/integrations/test_real_scenic.py
"""

import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from ovs_jax.core.checkpoint import load_model
from ovs_jax.core.tree import flatten

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = """
import sys
sys.path[:0] = [{tests!r}, {root!r}]
import tiny_configs
from ovs_jax.integrations.scenic.config import wrap
def ours():
  config = tiny_configs.pretraining({data!r})
  config.train.steps = 6
  config.train.save_every = 3
  config.optimizer.gradient_clip = 1.0
  config.optimizer.groups = ((r'^text/', None), (r'^visual/', 0.5), (r'.*', 1.0))
  return config
def get_config():
  return {what}
"""


def run(module: str, directory: pathlib.Path, data: str, *, devices: int) -> str:
  """Runs a command on simulated devices; returns what it says."""
  what = 'wrap(ours())' if module.endswith('scenic') else 'ours()'
  file = directory.parent / f'{directory.name}.py'
  places = {'tests': str(ROOT / 'tests' / 'support'), 'root': str(ROOT), 'data': data}
  file.write_text(CONFIG.format(what=what, **places))
  flags = f'--xla_force_host_platform_device_count={devices}'
  done = subprocess.run(
    [sys.executable, '-m', module, f'--config={file}', f'--workdir={directory}']
    + (['--alsologtostderr'] if module.endswith('scenic') else []),
    cwd=ROOT,
    env={**os.environ, 'XLA_FLAGS': flags},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return done.stderr


def scenic_losses(said: str) -> dict[int, float]:
  """Of the steps that Scenic logs; after the second, means since the last one."""
  found = re.findall(r'\[(\d+)\] .*train_loss=([\d.]+)', said)
  return {int(step): float(loss) for step, loss in found}


@pytest.mark.samples
@pytest.mark.parametrize('devices', [1, 2])
def test_scenics_trainer_learns_what_our_loop_learns(
  devices: int, data_dir: str, tmp_path: pathlib.Path
) -> None:
  run('ovs_jax.main', tmp_path / 'ours', data_dir, devices=devices)
  said = run('ovs_jax.integrations.scenic', tmp_path / 's', data_dir, devices=devices)
  lines = (tmp_path / 'ours/metrics.jsonl').read_text().splitlines()
  losses = [json.loads(line)['loss'] for line in lines]
  seen = scenic_losses(said)
  assert {1, 2, 6} <= set(seen)
  for step, first in ((1, 0), (2, 1), (6, 2)):
    assert seen[step] == pytest.approx(np.mean(losses[first:step]), rel=1e-4)
  whole, part = (load_model(tmp_path / d, kind='clip')[0] for d in ('ours', 's'))
  for path, x in flatten(whole).items():
    np.testing.assert_allclose(flatten(part)[path], x, atol=1e-4, err_msg=path)

  (tmp_path / 's/checkpoint_6').unlink()  # as if killed after the fourth step
  again = run('ovs_jax.integrations.scenic', tmp_path / 's', data_dir, devices=devices)
  assert scenic_losses(again)[6] == pytest.approx(losses[5], rel=1e-4)
