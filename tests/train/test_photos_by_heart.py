"""The recipe on real photographs, which it has to learn by heart."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from ovs_jax.core.checkpoint import save_model
from ovs_jax.data import prepare
from ovs_jax.models.clip import PRESETS, init_clip
from ovs_jax.train.state import draw_params

ROOT = pathlib.Path(__file__).parents[2]
SHARED = pathlib.Path(os.environ.get('OVS_SHARED', ROOT.parent / 'shared'))
# What makes these tests compile sooner and run slower, on eight devices.
OWN = ('XLA_FLAGS', 'JAX_DISABLE_MOST_OPTIMIZATIONS')


@pytest.mark.samples
@pytest.mark.slow
def test_thirteen_photographs_are_learned_by_heart(tmp_path: pathlib.Path) -> None:
  data, source = tmp_path / 'data', SHARED / 'samples'
  arguments = ['--dataset=coco_stuff_171', '--allow_partial', f'--source={source}']
  assert prepare.main([*arguments, f'--data_dir={data}']) == 0
  # Any names will do that differ: a CLIP that was never trained gives such.
  params = draw_params(init_clip, PRESETS['tiny'], jax.random.key(0))
  stored = {'model': 'clip', 'clip': vars(PRESETS['tiny'])}
  save_model(tmp_path / 'clip', params, stored)
  clip = [
    f'--config.stages.{stage}.init.clip={tmp_path / "clip"}'
    for stage in ('proposer', 'ovseg')
  ]
  command = [
    sys.executable,
    '-m',
    'ovs_jax.main',
    '--config=configs/photos_by_heart.py',
  ]
  command += [*clip, f'--config.dataset.data_dir={data}', f'--workdir={tmp_path}/run']
  environment = {k: v for k, v in os.environ.items() if k not in OWN}
  subprocess.run(command, cwd=ROOT, env=environment, check=True)
  report = json.loads((tmp_path / 'run' / 'evaluate' / 'report.json').read_text())
  found = report['datasets']['coco_stuff_171/partial:train']['methods']['proposer']
  assert found['pixel_accuracy'] >= 90, json.dumps(found)
