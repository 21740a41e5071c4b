"""The recipe on real photographs, which it has to learn by heart."""

import json
import os
import pathlib

import jax
import pytest

from configs import proposer_photos
from ovs_jax import main
from ovs_jax.core.checkpoint import save_model
from ovs_jax.data import prepare
from ovs_jax.models.clip import PRESETS, init_clip
from ovs_jax.pipeline import run_pipeline
from ovs_jax.train.state import draw_params

SHARED = pathlib.Path(
  os.environ.get('OVS_SHARED', pathlib.Path(__file__).parents[3] / 'shared')
)


@pytest.mark.samples
@pytest.mark.slow
def test_thirteen_photographs_are_learned_by_heart(tmp_path: pathlib.Path) -> None:
  jax.config.update('jax_disable_most_optimizations', False)
  data, source = tmp_path / 'data', SHARED / 'samples'
  arguments = ['--dataset=coco_stuff_171', '--allow_partial', f'--source={source}']
  assert prepare.main([*arguments, f'--data_dir={data}']) == 0
  # Any names will do that differ: a CLIP that was never trained gives such.
  params = draw_params(init_clip, PRESETS['tiny'], jax.random.key(0))
  stored = {'model': 'clip', 'clip': vars(PRESETS['tiny'])}
  save_model(tmp_path / 'clip', params, stored)
  config = proposer_photos.get_config()
  config.dataset.data_dir = str(data)
  for stage in ('proposer', 'ovseg'):
    config.stages[stage].init.clip = str(tmp_path / 'clip')
  results = run_pipeline(config, tmp_path / 'run', main.run)
  scores = results['evaluate']['result']['methods']['proposer']
  assert scores['pixel_accuracy'] >= 90, json.dumps(scores)
