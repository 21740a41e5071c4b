"""Every workload runs as its command does, at its smallest."""

import pathlib
from typing import Any

import pytest
import tiny_ovseg
from exported import unchecked, use_merges

from ovs_jax.bench import WORKLOADS, __main__
from ovs_jax.core.checkpoint import save_model
from ovs_jax.export.artefact import write

STEPS = {
  'clip_adapt_step': ('preset=tiny', 'batch=2', 'mesh=1,1'),
  'coseg_step': ('small=true', 'batch=1', 'mesh=1,1'),
  'proposer_step': ('preset=tiny', 'side=32', 'targets=4', 'alternatives=false'),
}
# Settings with which the others compile and run in seconds.
OTHERS = {
  'clip_crops': ('preset=tiny', 'batch=2'),
  'clipseg': ('preset=tiny', 'prompts=2', 'size=16'),
  'exports': (
    *('checkpoint={run}/model', 'exported={run}/exported'),
    *('variant=smoke', 'data_dir={run}', 'images=1'),
  ),
  'fusion': ('proposals=4', 'classes=9', 'height=30', 'width=40', 'network=20'),
  'input_pipeline': ('size=16', 'batch=2', 'batches=1', 'images=4'),
  'metrics': ('classes=9', 'height=30', 'width=40'),
  'mining': (
    *('preset=tiny', 'proposer=tiny', 'shortest=64', 'height=64', 'width=96'),
    *('queries=5', 'images=3', 'chunk=2'),
  ),
  'modes': ('checkpoint={run}/model', 'variant=smoke', 'data_dir={run}', 'images=1'),
  'ovseg_inference': (
    *('preset=tiny', 'proposer=tiny', 'shortest=64', 'height=64', 'width=96'),
    *('queries=20', 'valid=7', 'names=5', 'many=9'),
  ),
  'pooled_masks': ('preset=tiny_convnext', 'side=64', 'masks=4'),
  'pair_crops': ('preset=tiny', 'shortest=60'),
  'proposer_forward': ('preset=tiny', 'side=32'),
}


def run(name: str, settings: tuple[str, ...], **places: Any) -> dict[str, Any]:
  given = [f'--set={setting.format(**places)}' for setting in settings]
  command = [f'--workload={name}', '--repeats=1', '--warmup=1', *given]
  return __main__.run(__main__.parser().parse_args(command))


def test_none_is_forgotten() -> None:
  assert set(STEPS) | set(OTHERS) == set(WORKLOADS) - {'gpu_check'}


@pytest.mark.parametrize('name', [*STEPS, *OTHERS])
def test_it_runs(
  name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  if name in ('modes', 'exports'):
    save_model(tmp_path / 'model', tiny_ovseg.draw_params(), tiny_ovseg.STORED)
  if name == 'exports':
    use_merges(tmp_path, monkeypatch)
    with unchecked():
      write(tmp_path / 'model', tmp_path / 'exported', formats=['stablehlo'])
  report = run(name, {**STEPS, **OTHERS}[name], run=tmp_path)
  assert report['variants'] and report['items'] > 0
  assert all(row['seconds'] > 0 for row in report['variants'])
