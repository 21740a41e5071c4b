"""Stages in order, with stages that only write down that they ran."""

import pathlib
import shutil
from typing import Any

import ml_collections
import pytest

from configs import (
  baseline_vitl14,
  common,
  mpt_vitl14,
  photos_by_heart,
  quickstart,
  replicate,
)
from ovs_jax.core.files import read_json
from ovs_jax.settings import Settings
from ovs_jax.train import pipeline as pipelines
from ovs_jax.train.ownership import claim
from ovs_jax.train.pipeline import check_changes, run_pipeline


@pytest.mark.parametrize('file', [photos_by_heart, quickstart, replicate])
def test_stages_have_the_mesh_of_their_pipeline(file: Any) -> None:
  config = file.get_config('smoke')
  config.mesh.update(model=2, fsdp=True)
  config.dataset.data_dir = 'elsewhere'
  for stage in config.stages.values():
    assert (stage.mesh.model, stage.mesh.fsdp) == (2, True)
    assert stage.dataset.data_dir == 'elsewhere'


@pytest.mark.parametrize('file', [mpt_vitl14, photos_by_heart, quickstart, replicate])
def test_changes_reach_a_stage_or_are_refused(file: Any) -> None:
  config = file.get_config('smoke')
  check_changes(config, ['seed', 'mesh.model', 'dataset.data_dir', 'order', 'name'])
  check_changes(config, [f'stages.{config.order[0]}.train.steps'])
  with pytest.raises(ValueError, match=r'--config\.stages\.\w+\.train\.steps=$'):
    check_changes(config, ['seed', 'train.steps'])


def test_a_shared_section_may_be_changed() -> None:
  config = baseline_vitl14.get_config()
  check_changes(config, ['init.clip', 'dataset.name'])
  with pytest.raises(ValueError, match='eval.save_every changes no stage'):
    check_changes(config, ['eval.save_every'])
  check_changes(mpt_vitl14.get_config(), ['train.steps'])  # has no stages


class Killed(Exception):
  """Stands for the end of a process."""


class Stages:
  """Runs stages by noting them; fails in one of them if asked to."""

  def __init__(self) -> None:
    self.ran: list[tuple[str, str]] = []
    self.fail_in = ''

  def __call__(self, mode: str, config: Any, workdir: pathlib.Path) -> dict[str, Any]:
    self.ran.append((mode, config.init.clip))
    workdir.mkdir(parents=True, exist_ok=True)
    claim(config, workdir)
    (workdir / 'made.txt').write_text(str(config.train.steps))
    if config.name == self.fail_in:
      raise Killed
    return {'name': config.name}


@pytest.fixture
def stages() -> Stages:
  return Stages()


def pipeline(last: str = 'assemble', **changes: Any) -> Settings:
  """Returns two stages, the second of which reads what the first makes."""
  config = common.base('both', 'pipeline')
  stages = {'one': common.base('one', 'prepare'), 'two': common.base('two', last)}
  stages['two'].init.clip = '{run}/one'
  for stage in stages.values():
    stage.seed = config.get_ref('seed')
  config.order = tuple(stages)
  config.stages = ml_collections.ConfigDict(stages)
  config.update_from_flattened_dict(changes)
  return Settings.of(config)


def test_stages_run_in_order_and_know_the_run(
  stages: Stages, tmp_path: pathlib.Path
) -> None:
  results = run_pipeline(pipeline(), tmp_path, stages)
  assert stages.ran == [('prepare', ''), ('assemble', f'{tmp_path}/one')]
  assert results['two']['result'] == {'name': 'two'}
  assert read_json(tmp_path / 'two' / 'done.json') == results['two']


def test_finished_stages_are_skipped(
  stages: Stages, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  first = run_pipeline(pipeline(), tmp_path, stages)
  assert run_pipeline(pipeline(), tmp_path, stages) == first
  assert len(stages.ran) == 2
  assert capsys.readouterr().out.count('finished earlier, skipped') == 2


def test_a_killed_stage_goes_on(stages: Stages, tmp_path: pathlib.Path) -> None:
  stages.fail_in = 'two'
  with pytest.raises(Killed):
    run_pipeline(pipeline(), tmp_path, stages)
  stages.fail_in = ''
  run_pipeline(pipeline(), tmp_path, stages)
  assert [mode for mode, _ in stages.ran] == ['prepare', 'assemble', 'assemble']


@pytest.mark.parametrize(
  ('key', 'value', 'place'),
  [
    ('stages.two.mining.chunk', 2, 'two'),
    ('stages.one.train.steps', 2, 'one'),
    ('seed', 1, 'one'),
  ],
)
def test_another_configuration_is_refused(
  stages: Stages, tmp_path: pathlib.Path, key: str, value: int, place: str
) -> None:
  run_pipeline(pipeline(), tmp_path, stages)
  with pytest.raises(ValueError, match=f'/{place} belongs to a run of another config'):
    run_pipeline(pipeline(**{key: value}), tmp_path, stages)
  assert len(stages.ran) == 2


def test_finished_stages_do_not_depend_on_how_they_were_done(
  stages: Stages, tmp_path: pathlib.Path
) -> None:
  run_pipeline(pipeline(), tmp_path, stages)
  config = pipeline(**{'stages.one.mesh.model': 2, 'stages.two.mesh.model': 2})
  assert run_pipeline(config, tmp_path, stages)['one']['result'] == {'name': 'one'}
  assert len(stages.ran) == 2


def test_a_stage_depends_on_those_before_it(
  stages: Stages, tmp_path: pathlib.Path
) -> None:
  run_pipeline(pipeline(), tmp_path, stages)
  shutil.rmtree(tmp_path / 'one')
  with pytest.raises(ValueError, match='/two was made of what config.init.clip named'):
    run_pipeline(pipeline(**{'stages.one.train.steps': 2}), tmp_path, stages)
  shutil.rmtree(tmp_path / 'one')
  run_pipeline(pipeline(), tmp_path, stages)  # what it was made of is there again


def test_a_report_follows_what_it_is_about(
  stages: Stages, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  run_pipeline(pipeline('report'), tmp_path, stages)
  shutil.rmtree(tmp_path / 'one')
  run_pipeline(pipeline('report', **{'stages.one.train.steps': 2}), tmp_path, stages)
  assert [mode for mode, _ in stages.ran] == ['prepare', 'report'] * 2
  assert 'config.init.clip named before, which has changed' in capsys.readouterr().out


def test_a_moved_run_is_the_same(stages: Stages, tmp_path: pathlib.Path) -> None:
  first = run_pipeline(pipeline(), tmp_path / 'here', stages)
  shutil.move(tmp_path / 'here', tmp_path / 'there')
  assert run_pipeline(pipeline(), tmp_path / 'there', stages) == first
  assert len(stages.ran) == 2


def test_memory_is_given_back_before_stages(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  asked: list[float] = []
  monkeypatch.setattr(pipelines, 'give_back_memory', asked.append)
  config = mpt_vitl14.get_config('smoke')
  with config.unlocked():
    config.mode, config.order = 'pipeline', ('first', 'second')
    stages = {name: config.copy_and_resolve_references() for name in config.order}
    for name, stage in stages.items():
      stage.update(name=name, mode='train', stages={}, order=(), place='')
    config.stages = stages

  def run(mode: str, stage: Any, directory: Any) -> dict[str, int]:
    directory.mkdir()
    return {'asked': len(asked)}

  done = run_pipeline(Settings.of(config), tmp_path, run)
  assert [done[name]['result']['asked'] for name in config.order] == [1, 2]
  assert asked == [1 / 3, 1 / 3]
