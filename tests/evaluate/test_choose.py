"""Settings that are chosen on seen classes alone."""

import pathlib

import pytest

from configs import common, scenes_strict
from ovs_jax.core.files import read_json, write_json
from ovs_jax.data import load_names
from ovs_jax.evaluate.choose import choose, harmonic
from ovs_jax.settings import Dataset, Settings
from ovs_jax.text import vocabulary


def run(path: pathlib.Path, **methods: tuple[float, float, float]) -> str:
  """Writes scores as mode evaluate does: of all, seen and unseen classes."""
  keys = ('miou', 'miou_seen', 'miou_unseen')
  found = {k: dict(zip(keys, x, strict=True)) for k, x in methods.items()}
  path.mkdir()
  write_json(path / 'scores.json', {'methods': {'clip': {'miou': 9.0}, **found}})
  return str(path)


def configured(tmp_path: pathlib.Path) -> tuple[Settings, pathlib.Path]:
  # The rule's means: 30 and 36 of 0.10 (33), 40 and 24 of 0.20 (32); of the other
  # setting 0.20 is the best, 40 and 30 (35).
  folds = (
    run(tmp_path / 'a0', ensemble_0_10=(1, 60.0, 20.0), ensemble_0_20=(1, 40.0, 40.0)),
    run(tmp_path / 'a1', ensemble_0_10=(1, 36.0, 36.0), ensemble_0_20=(1, 24.0, 24.0)),
  )
  final = run(
    tmp_path / 'a', ensemble_0_10=(45.0, 50.0, 40.0), ensemble_0_20=(46.0, 52.0, 41.0)
  )
  others = (
    run(tmp_path / 'b0', ensemble_0_20=(1, 40.0, 40.0)),
    run(tmp_path / 'b1', ensemble_0_20=(1, 60.0, 20.0)),
  )
  other = run(tmp_path / 'b', ensemble_0_20=(44.0, 49.0, 39.0))
  config = common.base('choice', 'choose')
  config.choose.settings = (('first', folds, final), ('second', others, other))
  config.choose.usual = ('first', 'ensemble_0_10')
  return Settings.of(config), tmp_path / 'out'


def test_the_best_of_all_folds_is_chosen(tmp_path: pathlib.Path) -> None:
  config, out = configured(tmp_path)
  found = choose(config, out)
  expected = {'setting': 'second', 'method': 'ensemble_0_20', 'score': 35.0}
  expected |= {'miou': 44.0, 'miou_seen': 49.0, 'miou_unseen': 39.0}
  assert found['chosen'] == pytest.approx(expected)
  assert found['usual']['score'] == pytest.approx(33.0)
  assert found['usual']['miou_unseen'] == 40.0
  written = read_json(out / 'choice.json')
  assert [x['score'] for x in written['tried']] == pytest.approx([33.0, 32.0, 35.0])
  lines = (out / 'choice.md').read_text('utf-8').splitlines()
  row = '| second | ensemble_0_20 | 40.0 / 40.0 | 60.0 / 20.0 | 35.0 | 44.0 | 49.0 |'
  assert lines[-1] == f'{row} 39.0 | chosen |'
  assert lines[-3].endswith('| 40.0 | usual |') and lines[-2].endswith('| 41.0 |  |')


def test_a_fold_without_a_class_of_a_kind_says_nothing(tmp_path: pathlib.Path) -> None:
  config, out = configured(tmp_path)
  methods = {'ensemble_0_20': {'miou': 1, 'miou_seen': 9.0, 'miou_unseen': None}}
  write_json(tmp_path / 'b1' / 'scores.json', {'methods': methods})
  assert choose(config, out)['chosen']['score'] == pytest.approx(40.0)
  assert '| 9.0 / - |' in (out / 'choice.md').read_text('utf-8')


def test_without_held_out_classes_nothing_is_chosen(tmp_path: pathlib.Path) -> None:
  config, out = configured(tmp_path)
  for name in ('a0', 'a1', 'b0', 'b1'):
    methods = {'miou': 1, 'miou_seen': 9.0, 'miou_unseen': None}
    scores = {'methods': {'ensemble_0_10': methods, 'ensemble_0_20': methods}}
    write_json(tmp_path / name / 'scores.json', scores)
  with pytest.raises(ValueError, match='both seen and held-out classes: these are'):
    choose(config, out)
  assert not (out / 'choice.json').exists()


def test_stages_of_a_fold_hold_its_classes_out() -> None:
  stages = scenes_strict.get_config('').stages
  smoke = scenes_strict.get_config('smoke').stages
  for name, stage in stages.items():
    number = name.rpartition('_')[2]
    fold = f'{number}/2' if number in ('0', '1') else ''
    for one in (stage, smoke[name]):
      assert Settings.of(one).dataset.fold == fold, name


def test_the_harmonic_mean() -> None:
  assert harmonic(60.0, 20.0) == 30
  assert harmonic(0.0, 50.0) == 0 and harmonic(0.0, 0.0) == 0


def test_what_is_missing_is_said(tmp_path: pathlib.Path) -> None:
  config, out = configured(tmp_path)
  (tmp_path / 'b1' / 'scores.json').unlink()
  with pytest.raises(FileNotFoundError, match='b1/scores.json not found'):
    choose(config, out)
  write_json(tmp_path / 'b1' / 'scores.json', {'methods': {'ensemble_0_20': {}}})
  with pytest.raises(ValueError, match='does not tell seen classes from unseen'):
    choose(config, out)
  empty = common.base('choice', 'choose')
  with pytest.raises(ValueError, match='settings is empty'):
    choose(Settings.of(empty), out)
  empty.choose.usual = ('first', 'ensemble_9')
  empty.choose.settings = config.choose.settings[:1]
  with pytest.raises(ValueError, match='not tried; there are first / ensemble_0_10'):
    choose(Settings.of(empty), out)


def test_a_part_of_the_seen_classes_plays_unseen() -> None:
  whole = load_names(Dataset())
  seen = [k for k, x in enumerate(whole.splits) if x == 'seen']
  parts = [load_names(Dataset(fold=f'{i}/3')) for i in range(3)]
  held = [[k for k in seen if part.splits[k] == 'unseen'] for part in parts]
  assert held == [seen[0::3], seen[1::3], seen[2::3]]
  for part in parts:
    assert part.names == whole.names and part.sha256 != whole.sha256
    others = [k for k, x in enumerate(whole.splits) if x != 'seen']
    assert all(part.splits[k] == whole.splits[k] for k in others)
  own = vocabulary.own('mine', ('cat', 'dog'), (0, 1))
  with pytest.raises(ValueError, match='has 0 seen classes, which config.dataset.fold'):
    own.held_out('0/2')


@pytest.mark.parametrize('fold', ['3/3', '1', '0/1', '-1/2', 'a/b', '1/2/3'])
def test_parts_that_are_none(fold: str) -> None:
  config = common.base('x', 'prepare')
  config.dataset.fold = fold
  with pytest.raises(ValueError, match="expected '' or a part such as '0/3'"):
    Settings.of(config)
