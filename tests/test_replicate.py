"""The order of the paper's Table 3, trained from nothing on fewer pictures."""

import pathlib

import pytest

from configs import replicate
from ovs_jax import main
from ovs_jax.pipeline import run_pipeline

STAGES = ('data', 'clip', 'proposer', 'mine_truth', 'mpt', 'ft') + tuple(
  f'{kind}_{name}' for name in ('frozen', 'mpt', 'ft') for kind in ('ovseg', 'evaluate')
)
STEPS = {'clip': 700, 'proposer': 20, 'mpt': 150, 'ft': 150}


@pytest.mark.slow
def test_adapted_clips_name_crops_better(
  data_dir: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  # Programs that run for minutes pay for being optimized.
  monkeypatch.delenv('JAX_DISABLE_MOST_OPTIMIZATIONS', raising=False)
  config = replicate.get_config()
  with config.unlocked():
    config.dataset.data_dir = data_dir
    chosen = [n for n in config.order if n.removeprefix('seed_0/') in STAGES]
    assert len(chosen) == len(STAGES)
    config.order = tuple(chosen)
    for name in chosen:
      stage = config.stages[name]
      short = name.removeprefix('seed_0/')
      if short in STEPS:
        stage.train.steps = STEPS[short]
      if short in ('mpt', 'ft'):  # true masks: the proposer has seen nothing yet
        stage.init.pairs = '{run}/seed_0/mine_truth/pairs'
      stage.mining.split = 'train[:600]'
      stage.eval.split = 'val[:150]'
  results = run_pipeline(config, tmp_path, main.run)
  accuracy = {
    name: results[f'seed_0/evaluate_{name}']['result']['crops']['true_mask']
    for name in ('frozen', 'mpt', 'ft')
  }
  print(accuracy)
  for name in ('mpt', 'ft'):
    assert accuracy[name]['all'] > accuracy['frozen']['all'] + 2
    assert accuracy[name]['seen'] > accuracy['frozen']['seen']
