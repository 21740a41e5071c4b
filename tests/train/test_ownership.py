"""Work directories belong to one configuration, and to what it was given."""

import json
import os
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest
from PIL import Image

from configs import common
from ovs_jax.core import checkpoint
from ovs_jax.core.files import read_json
from ovs_jax.data import load_dataset
from ovs_jax.settings import Settings
from ovs_jax.train import ownership
from ovs_jax.train.ownership import sources

CONFIG = {'model': 'clip'}


def settings(mode: str = 'assemble', **changes: Any) -> Settings:
  config = common.base('a', mode)
  config.update_from_flattened_dict(changes)
  return Settings.of(config)


def claim(config: Settings, workdir: pathlib.Path) -> bool:
  """Claims a directory, and leaves a result there."""
  workdir.mkdir(exist_ok=True)
  same = ownership.claim(config, workdir)
  (workdir / 'result.txt').touch()
  return same


def save(path: pathlib.Path, value: float) -> str:
  weights = np.full((8, 8), value, np.float32)
  checkpoint.save_model(path, {'visual': {'kernel': weights}}, CONFIG)
  return str(path)


def folder(path: pathlib.Path, label: int) -> str:
  """A folder data set of one picture of one label."""
  for kind in ('images', 'masks'):
    (path / kind / 'val').mkdir(parents=True, exist_ok=True)
  (path / 'names.txt').write_text('cat\ndog\n')
  Image.new('RGB', (16, 16)).save(path / 'images' / 'val' / 'one.png')
  Image.new('L', (16, 16), label).save(path / 'masks' / 'val' / 'one.png')
  return str(path)


class TestConfiguration:
  def test_the_same_may_come_back(self, tmp_path: pathlib.Path) -> None:
    for _ in range(2):
      claim(settings(), tmp_path)
    assert read_json(tmp_path / 'config.json') == settings().to_json()

  def test_another_one_is_told_what_differs(self, tmp_path: pathlib.Path) -> None:
    claim(settings(), tmp_path)
    with pytest.raises(ValueError) as error:
      claim(settings(**{'train.steps': 7, 'seed': 3}), tmp_path)
    assert f'train.steps ({settings().train.steps} there, 7 now)' in str(error.value)
    assert 'seed (0 there, 3 now)' in str(error.value)
    assert 'split' not in str(error.value)
    assert '--workdir=' in str(error.value)

  def test_how_a_run_is_done_may_change(self, tmp_path: pathlib.Path) -> None:
    claim(settings(), tmp_path)
    now = settings(**{'mesh.model': 2, 'train.keep': 9, 'train.writers': ('clu',)})
    claim(now, tmp_path)
    assert read_json(tmp_path / 'config.json') == now.to_json()

  def test_long_lists_are_cut(self, tmp_path: pathlib.Path) -> None:
    claim(settings(), tmp_path)
    other = {f'test.{k}': 7 for k in ('chunk', 'shortest', 'longest', 'clip_side')}
    other |= {f'train.{k}': 7 for k in ('steps', 'batch_size')} | {'region.expand': 7.0}
    other |= {'seed': 7}
    with pytest.raises(ValueError, match='and 2 more'):
      claim(settings(**other), tmp_path)

  def test_keys_that_are_new_are_as_they_were(self, tmp_path: pathlib.Path) -> None:
    claim(settings(), tmp_path)
    path = tmp_path / 'config.json'
    earlier = read_json(path)
    del earlier['train']['epochs'], earlier['eval']
    path.write_text(json.dumps(earlier))
    with pytest.raises(ValueError, match=r'train\.epochs \(None there, 2\.0 now\)'):
      claim(settings(**{'train.epochs': 2.0}), tmp_path)
    claim(settings(), tmp_path)
    assert read_json(path) == settings().to_json()

  def test_a_directory_without_results_is_free(self, tmp_path: pathlib.Path) -> None:
    ownership.claim(settings(), tmp_path)
    ownership.claim(settings(**{'train.batch_size': 7}), tmp_path)
    assert read_json(tmp_path / 'config.json')['train']['batch_size'] == 7
    (tmp_path / 'metrics.jsonl').touch()
    with pytest.raises(ValueError, match='another configuration'):
      ownership.claim(settings(), tmp_path)


class TestSources:
  def test_another_checkpoint_at_the_same_path(self, tmp_path: pathlib.Path) -> None:
    model = save(tmp_path / 'model', 1.0)
    claim(settings(**{'init.clip': model}), tmp_path / 'run')
    save(tmp_path / 'model', 1.0)  # the same one, written again
    claim(settings(**{'init.clip': model}), tmp_path / 'run')
    save(tmp_path / 'model', 1.5)
    with pytest.raises(ValueError, match=r'config\.init\.clip named before, which has'):
      claim(settings(**{'init.clip': model}), tmp_path / 'run')

  def test_the_same_checkpoint_elsewhere(self, tmp_path: pathlib.Path) -> None:
    claim(settings(**{'init.clip': save(tmp_path / 'a', 1.0)}), tmp_path / 'run')
    shutil.move(tmp_path / 'a', tmp_path / 'b')
    claim(settings(**{'init.clip': str(tmp_path / 'b')}), tmp_path / 'run')
    with pytest.raises(ValueError, match='belongs to a run of another configuration'):
      claim(settings(), tmp_path / 'run')  # without any

  def test_a_checkpoint_is_read_again_only_if_it_was_written_again(
    self, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
  ) -> None:
    config = settings(**{'init.clip': save(tmp_path / 'model', 1.0)})
    read: list[str] = []
    identity = checkpoint.identity

    def counting(path: pathlib.Path) -> str:
      read.append(path.name)
      return identity(path)

    monkeypatch.setattr(checkpoint, 'identity', counting)
    for times, change in (
      (1, None),
      (1, lambda: shutil.move(tmp_path / 'run', tmp_path / 'moved')),
      (1, lambda: shutil.move(tmp_path / 'moved', tmp_path / 'run')),
      (2, lambda: save(tmp_path / 'model', 1.0)),
      (2, lambda: None),
      (3, lambda: (tmp_path / 'run' / '.hashes.json').write_text('{')),
    ):
      if change is not None:
        change()
      where = 'moved' if (tmp_path / 'moved').exists() else 'run'
      claim(config, tmp_path / where)
      assert len(read) == times
    one = next(p for p in (tmp_path / 'model').rglob('*') if p.is_file())
    time = one.stat().st_mtime_ns
    os.utime(one, ns=(time, time + 1))
    claim(config, tmp_path / 'run')
    assert len(read) == 4

  def test_label_maps_that_were_replaced(
    self, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
  ) -> None:
    saved = tmp_path / 'saved'
    saved.mkdir()
    Image.new('L', (64, 48), 1).save(saved / 'one.png')
    config = settings('evaluate_systems', **{'suite.predictions': str(saved)})
    assert claim(config, tmp_path / 'run')
    assert claim(config, tmp_path / 'run')
    (tmp_path / 'run' / 'scenes').mkdir()
    for name in ('scenes/done.json', 'scenes/counted_0_of_1.npz', 'mine.txt'):
      (tmp_path / 'run' / name).touch()
    assert not capsys.readouterr().out
    Image.new('L', (64, 48), 2).save(saved / 'one.png')
    assert not claim(config, tmp_path / 'run')
    assert 'config.suite.predictions named before, which has' in capsys.readouterr().out
    left = [p.name for p in (tmp_path / 'run').rglob('*') if p.is_file()]
    assert set(left) == {'config.json', 'sources.json', 'mine.txt', 'result.txt'}
    assert claim(config, tmp_path / 'run')

  @pytest.mark.parametrize('mode', ['evaluate', 'benchmark', 'mine', 'train'])
  def test_data_that_changed(
    self, tmp_path: pathlib.Path, mode: str, capsys: pytest.CaptureFixture[str]
  ) -> None:
    root = folder(tmp_path / 'mine', 0)
    dataset = {'dataset.name': 'folder', 'dataset.variant': root}
    dataset |= {'dataset.data_dir': str(tmp_path / 'data')}
    config = settings(mode, **dataset, **{'suite.datasets': (f'folder/{root}',)})
    assert len(sources(config)) == 1
    claim(config, tmp_path / 'run')
    claim(config, tmp_path / 'run')
    folder(tmp_path / 'mine', 1)
    if mode in ('evaluate', 'benchmark'):
      assert not claim(config, tmp_path / 'run')
      said = capsys.readouterr().out
    else:
      with pytest.raises(ValueError, match='delete that directory') as error:
        claim(config, tmp_path / 'run')
      said = str(error.value)
    key = 'suite.datasets' if mode == 'benchmark' else 'dataset'
    assert f'config.{key}: folder/{root} named before, which has changed since' in said

  def test_mixed_pairs_and_tables(self, tmp_path: pathlib.Path) -> None:
    for name in ('one', 'two'):
      (tmp_path / name).mkdir()
      (tmp_path / name / 'pairs.tfrecord').write_bytes(name.encode())
    pairs = tuple((str(tmp_path / name), 1.0) for name in ('one', 'two'))
    rows = (('ours', str(tmp_path / 'one'), ()),)
    config = settings(**{'init.more_pairs': pairs, 'table.rows': rows})
    found = sources(config)
    assert list(found) == [
      'init.more_pairs.0.0',
      'init.more_pairs.1.0',
      'table.rows.0.1',
    ]
    assert found['init.more_pairs.0.0'] == found['table.rows.0.1']
    assert len(set(found.values())) == 2
    claim(config, tmp_path / 'run')
    other = settings(**{'init.more_pairs': (*pairs[:1], (pairs[1][0], 0.5))})
    with pytest.raises(ValueError, match=r'init\.more_pairs'):
      claim(other, tmp_path / 'run')

  def test_drawn_data_are_not_drawn_for_the_comparison(
    self, tmp_path: pathlib.Path
  ) -> None:
    dataset = {'dataset.name': 'scenes', 'dataset.variant': 'smoke'}
    config = settings(
      'train', **dataset, **{'dataset.data_dir': str(tmp_path / 'data')}
    )
    assert sources(config) == {}
    assert not (tmp_path / 'data').exists()
    load_dataset(config.dataset)
    assert list(sources(config)) == ['dataset: scenes/smoke']
