"""The pipelines of the paper's tables: their stages, and how these hang together."""

import importlib
import pathlib
import shutil
from typing import Any

import pytest

from ovs_jax.core.files import place
from ovs_jax.settings import Settings
from ovs_jax.train.needs import check_needs
from ovs_jax.train.pipeline import run_pipeline

# The paper's numbers, from its tables.
PUBLISHED = {
  1: [(7.1, 11.0, 24.8, 53.3, 92.6), (9.0, 12.4, 29.6, 55.7, 94.5)],
  2: [
    *((7.3, 21.8, 51.4), (5.3, 23.0, 57.3), (7.9, 24.2, 53.2), (8.8, 28.8, 55.7)),
    (8.8, 28.6, 55.5),
  ],
  3: [(7.3, 21.8, 51.4), (8.4, 26.5, 55.4), (8.8, 28.8, 55.7), (9.0, 29.6, 55.7)],
}
_INPUTS = (
  *(('init', key) for key in ('clip', 'proposer', 'prompts', 'pairs')),
  *(('mining', 'checkpoint'), ('eval', 'checkpoint')),
)


@pytest.fixture(scope='module', params=[1, 2, 3])
def table(request: pytest.FixtureRequest) -> tuple[int, Settings]:
  module = importlib.import_module(f'configs.paper_table{request.param}')
  return request.param, Settings.of(module.get_config())


def test_every_stage_reads_what_an_earlier_one_or_the_user_makes(
  table: tuple[int, Settings],
) -> None:
  _, config = table
  wanted = {str(_of(config, key)) for key, _, _ in config.needs}
  made: list[str] = []
  for name in config.order:
    stage = config.stages[name]
    for section, key in _INPUTS:
      value = getattr(getattr(stage, section), key)
      if value and not (section == 'init' and stage.mode in ('mine', 'benchmark')):
        inside = any(value == m or value.startswith(f'{m}/') for m in made)
        assert inside or value in wanted, (name, section, key, value)
    made.append(stage.place)
  assert config.order[-1] == 'table'


def _of(config: Settings, key: str) -> Any:
  _, stage, *parts = key.split('.')
  value: Any = config.stages[stage]
  for part in parts:
    value = getattr(value, part)
  return value


def test_rows_are_the_papers(table: tuple[int, Settings]) -> None:
  number, config = table
  joined = config.stages['table'].table
  assert [published for _, _, published in joined.rows] == PUBLISHED[number]
  benchmarks = {s.place: s for s in config.stages.values() if s.mode == 'benchmark'}
  for _, run, _ in joined.rows:
    assert set(joined.columns) <= set(benchmarks[run].suite.datasets)


def test_a_stage_is_the_run_of_its_own_configuration(
  table: tuple[int, Settings],
) -> None:
  _, config = table
  for name in ('proposer_swin_b', 'ft_vitl14', 'mpt_vitl14', 'mpt_ft_vitl14'):
    if name in config.stages:
      alone = importlib.import_module(f'configs.{name}').get_config()
      own, other = config.stages[name].to_dict(), Settings.of(alone).to_dict()
      assert own.pop('place') == f'runs/{name}' and not other.pop('place')
      assert own == other


def test_what_tables_share_is_the_same_in_all_of_them() -> None:
  """Else the second table would find the directory of another configuration."""
  found: dict[str, dict[str, Any]] = {}
  shared = set()
  for number in PUBLISHED:
    module = importlib.import_module(f'configs.paper_table{number}')
    for stage in Settings.of(module.get_config()).stages.values():
      if stage.place in found:
        shared.add(stage.place)
        assert found[stage.place] == stage.to_dict(), stage.place
      if stage.place:
        found[stage.place] = stage.to_dict()
  assert 'runs/eval_ovseg_vitl14_mpt_ft' in shared and len(shared) > 8


def test_all_that_is_missing_is_said_at_once(
  table: tuple[int, Settings], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  number, config = table
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('HOME', str(tmp_path))
  with pytest.raises(FileNotFoundError) as caught:
    check_needs(config)
  text = str(caught.value)
  for part in ('coco_stuff_171', 'coco_captions_2017', 'ade20k_847', 'clip_vit_l14'):
    assert part in text
  assert text.count('--download=ViT-L/14') == 1
  assert ('R-103.pkl' in text) == (number == 1)
  assert ('captions_train2017.json' in text) == (number == 2)


def test_a_stage_may_have_a_place_of_its_own(tmp_path: pathlib.Path) -> None:
  config = importlib.import_module('configs.paper_table3').get_config()
  with config.unlocked():
    config.order = ('mpt_vitl14', 'table')
    config.stages.mpt_vitl14.place = str(tmp_path / 'elsewhere')
  seen = []

  def run(mode: str, stage: Settings, directory: Any) -> dict[str, Any]:
    seen.append((mode, directory))
    directory.mkdir(parents=True, exist_ok=True)
    return {}

  run_pipeline(Settings.of(config), place(tmp_path / 'run'), run)
  assert seen == [
    ('train', tmp_path / 'elsewhere'),
    ('table', tmp_path / 'run' / 'table'),
  ]
  assert (tmp_path / 'run/mpt_vitl14/done.json').is_file()
  (tmp_path / 'elsewhere').rename(tmp_path / 'moved')
  with config.unlocked():  # what has finished stays so, wherever it was moved
    config.stages.mpt_vitl14.place = str(tmp_path / 'moved')
  run_pipeline(Settings.of(config), place(tmp_path / 'run'), run)
  assert len(seen) == 2
  shutil.rmtree(tmp_path / 'moved')  # what is gone is made again
  run_pipeline(Settings.of(config), place(tmp_path / 'run'), run)
  assert seen[2:] == [('train', tmp_path / 'moved')]
