"""The direction of the paper's Table 3, trained from nothing on fewer pictures."""

import pathlib

import pytest

from configs import replicate
from ovs_jax import main
from ovs_jax.settings import Settings
from ovs_jax.train.pipeline import run_pipeline

STAGES = ('data', 'clip', 'proposer', 'ovseg_frozen', 'mine', 'mpt', 'ft')
STAGES += ('evaluate_frozen', 'ovseg_mpt', 'evaluate_mpt', 'ovseg_ft', 'evaluate_ft')
STEPS = {'clip': 800, 'proposer': 300, 'mpt': 200, 'ft': 200}


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
      stage.mining.split = 'train[:1000]'
      stage.eval.split = 'val[:200]'
  results = run_pipeline(Settings.of(config), tmp_path, main.run)
  accuracy = {
    name: results[f'seed_0/evaluate_{name}']['result']['crops']
    for name in ('frozen', 'mpt', 'ft')
  }
  for name in ('mpt', 'ft'):
    for group in ('all', 'unseen'):
      gain = accuracy[name]['true_mask'][group] - accuracy['frozen']['true_mask'][group]
      assert gain > 1, (name, group, accuracy)
