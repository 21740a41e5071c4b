"""Every configuration, from its file to its result, at the size `smoke`."""

import importlib
import json
import pathlib
from typing import Any

import numpy as np
import pytest
from PIL import Image
from reuse import Reuse

from configs import scenes
from ovs_jax import Segmenter, main
from ovs_jax.bench import drawn, modes
from ovs_jax.bench.measure import measure
from ovs_jax.inference import encode as encoding
from ovs_jax.settings import Settings
from ovs_jax.train.pipeline import run_pipeline

ROOT = pathlib.Path(__file__).parents[1]
SHARED = (
  '__init__',
  'common',
  'scenes',
  'coco_stuff',
  'adaptation',
  'paper',
  'scenes_coseg',
  'towers',
)
FILES = sorted(p.stem for p in (ROOT / 'configs').glob('*.py') if p.stem not in SHARED)
NAMES = [*FILES, *(f'scenes:{stage}' for stage in scenes.ALONE)]
# At the size `smoke` these run what another configuration or test runs, too.
ALIKE = {
  'baseline_vitb16',
  'baseline_vitl14',
  'clipseg_finetune',
  'coseg_cross_vitb16',
  'coseg_no_training',
  'coseg_prefix_vitb16',
  'eval_ovseg',
  'ft_vitb16',
  'ft_vitl14',
  'gt_classes_vitl14',
  'mpt_ft_vitb16',
  'mpt_ft_vitl14',
  'mpt_vitb16',
  # These take a minute; their parts are tested in tests/models.
  'ovseg_convnext_l',
  'ovseg_siglip2_l16',
  'ovseg_vitb16',
  'paper_coseg',
  'paper_table1',
  'paper_table2',
  'paper_table3',
  'photos_adapt',
  'photos_by_heart',
  'photos_clipseg',
  'photos_evaluate',
  'proposer_agnostic',
  'proposer_r101c',
  'proposer_swin_b',
  'rehearsal',
  'scenes_pairs',
  'scenes_strict',
  'scenes_towers',
  'scenes:clipseg',  # the tutorial's, as the next but one
  'scenes:coseg_cross',
  'scenes:coseg_prefix',
  'scenes:evaluate_coseg',
}
IGNORED = {'.venv', 'build', '.git', 'runs'}


def load(name: str, arg: str = '') -> Any:
  return drawn.configuration(name, arg)


def smoke(name: str, data_dir: str) -> Any:
  config = load(name, 'smoke')
  config.dataset.data_dir = data_dir
  return config


@pytest.fixture(scope='module')
def quickstart(
  data_dir: str, reuse: Reuse, tmp_path_factory: pytest.TempPathFactory
) -> pathlib.Path:
  """Returns the directory of a finished quickstart."""
  directory = tmp_path_factory.mktemp('quickstart')
  run_pipeline(Settings.of(smoke('quickstart', data_dir)), directory, reuse)
  return directory


@pytest.mark.parametrize('name', NAMES)
def test_a_config_loads_and_says_what_it_is(name: str) -> None:
  module = importlib.import_module(f'configs.{name.split(":")[0]}')
  for part in ('Expected:', 'Hardware:', 'Command:'):
    assert part in (module.__doc__ or ''), part
  config = load(name)
  alone = name.removeprefix('scenes:')
  assert config.name == (name if alone == name else f'{alone}_scenes')
  assert config.is_locked
  assert config.mode in main.MODES
  with pytest.raises(ValueError, match='unknown (word|stage)'):
    load(name, 'large')


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=pytest.mark.slow) if name in ALIKE else name
    for name in NAMES
  ],
)
def test_a_config_runs_as_smoke(
  name: str,
  data_dir: str,
  reuse: Reuse,
  quickstart: pathlib.Path,
  tmp_path: pathlib.Path,
) -> None:
  del quickstart  # most stages were run by it
  config = smoke(name, data_dir)
  assert config.mode == 'pipeline'
  results = run_pipeline(Settings.of(config), tmp_path, reuse)
  assert list(results) == list(config.order)
  for stage in config.order:
    assert (tmp_path / stage / 'done.json').is_file()


def test_the_quickstart_leaves_a_report(quickstart: pathlib.Path) -> None:
  summary = json.loads((quickstart / 'report.json').read_text())
  text = (quickstart / 'report.md').read_text()
  assert summary['rows'] and summary['mining']['pairs'] > 0
  assert set(summary['stages']) >= {'data', 'clip', 'proposer', 'mine', 'mpt'}
  for row in summary['rows']:
    assert row['method'] in text
    assert 0 <= row['miou'] <= 100
  pictures = sorted(quickstart.glob('picture_*.png'))
  assert pictures
  for path in [*pictures, quickstart / 'losses.png']:
    with Image.open(path) as picture:
      picture.load()
    assert path.name in text


def test_what_a_run_writes_is_json(quickstart: pathlib.Path) -> None:
  def refuse(name: str) -> None:
    raise AssertionError(f'{name} is no JSON')

  found = [*quickstart.rglob('*.json'), *quickstart.rglob('*.jsonl')]
  assert len(found) > 20
  for path in found:
    text = path.read_text()
    for part in text.splitlines() if path.suffix == '.jsonl' else [text]:
      json.loads(part, parse_constant=refuse)


def test_a_second_quickstart_skips_everything(
  quickstart: pathlib.Path, data_dir: str, reuse: Reuse
) -> None:
  before = list(reuse.ran)
  run_pipeline(Settings.of(smoke('quickstart', data_dir)), quickstart, reuse)
  assert reuse.ran == before


@pytest.mark.parametrize('stage', ['ovseg_frozen', 'ovseg_mpt'])
def test_the_checkpoint_segments(quickstart: pathlib.Path, stage: str) -> None:
  segmenter = Segmenter.load(quickstart / stage / 'model')
  image = np.random.default_rng(0).integers(0, 256, (90, 128, 3)).astype(np.uint8)
  result = segmenter.segment(segmenter.encode(image), 'red circle, grass')
  assert result.labels.shape == (90, 128)
  assert np.isfinite(result.scores).all()


@pytest.mark.slow
def test_the_modes_of_the_checkpoint_are_compared(
  quickstart: pathlib.Path, data_dir: str
) -> None:
  options = modes.Options(
    checkpoint=str(quickstart / 'ovseg_mpt' / 'model'),
    variant='smoke',
    data_dir=data_dir,
    images=3,
  )
  workload = modes.build(options)
  measure(workload, warmup=0, repeats=1)
  facts = workload.facts
  assert [v.name for v in workload.variants] == [*encoding.MODES, 'bfloat16']
  assert facts['labels equal: exact'] == 1
  for variant in workload.variants:
    assert 0 <= facts[f'mIoU: {variant.name}'] <= 100
    assert 0 <= facts[f'labels equal: {variant.name}'] <= 1
    assert 0 <= facts[f'crops skipped: {variant.name}'] <= 1


def test_all_python_files_compile() -> None:
  files = [p for p in ROOT.rglob('*.py') if not IGNORED & set(p.parts)]
  assert len(files) > 50
  for path in files:
    compile(path.read_text(encoding='utf-8'), str(path), 'exec')
