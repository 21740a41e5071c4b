"""The class list of training: from the recipe to the report."""

import pathlib
from typing import Any

import pytest
import tiny_configs
import tiny_ovseg

from configs import scenes
from ovs_jax.core.checkpoint import load_config, save_model
from ovs_jax.evaluate.suite_report import markdown
from ovs_jax.evaluate.training_names import check_training, training_list
from ovs_jax.inference.assemble import assemble
from ovs_jax.settings import Eval, Settings, Suite
from ovs_jax.text import vocabulary
from ovs_jax.train.recipes.proposer import Proposer

COCO, STUFF = (vocabulary.load(f'coco_stuff_{x}') for x in ('171', '156_15'))
SAID = 'The groups of classes take them to be those of coco_stuff_171.'


def check(trained: dict[str, str] | None, *evaluated: str) -> str | None:
  """Checks a checkpoint that was trained with a list, with the default settings."""
  settings = Settings('x', 'benchmark', eval=Eval(checkpoint='runs/x'))
  return check_training(settings, trained, [vocabulary.load(x) for x in evaluated])


def test_the_same_list_is_no_word_worth() -> None:
  assert check(COCO.identity(), 'voc_20', 'scenes') is None


def test_another_list_is_one_clear_message() -> None:
  with pytest.raises(ValueError) as caught:
    check(STUFF.identity(), 'scenes', 'voc_20')
  said = str(caught.value)
  assert f'config.suite.training is coco_stuff_171 (sha256 {COCO.sha256})' in said
  assert f'runs/x was trained with coco_stuff_156_15 (sha256 {STUFF.sha256})' in said
  assert 'Set --config.suite.training=coco_stuff_156_15;' in said


def test_another_version_of_the_list_is_refused() -> None:
  with pytest.raises(ValueError, match='the list has changed since'):
    check({'name': 'coco_stuff_171', 'sha256': '0' * 64}, 'voc_20')


def test_lists_that_say_what_is_seen_need_no_other() -> None:
  assert check(STUFF.identity(), 'scenes', 'coco_stuff_156_15') is None
  assert check(None, 'scenes') is None


def test_what_cannot_be_compared_is_reported() -> None:
  old = check(None, 'voc_20')
  assert old == f'The checkpoint does not say with which names it was trained. {SAID}'
  own = check({'name': 'folder', 'sha256': 'abc'}, 'voc_20')
  assert own is not None
  assert own.endswith(f'with names of its own, folder (sha256 abc). {SAID}')
  what: dict[str, Any] = {'checkpoint': 'x', 'settings': {}, 'searched_on_test': False}
  assert own in markdown({**what, 'training_note': own}, {})
  assert 'names of its own' not in markdown({**what, 'training_note': None}, {})


def test_a_proposer_and_its_ovseg_keep_the_list(
  data_dir: str, tmp_path: pathlib.Path
) -> None:
  recipe = Proposer(Settings.of(tiny_configs.proposer(data_dir, 'nowhere')))
  expected = vocabulary.load('scenes').identity()
  assert recipe.model_config['training_names'] == expected
  model, params = tiny_ovseg.CONFIG.to_dict(), tiny_ovseg.draw_params()
  clip = {'model': 'clip', 'clip': model['clip']}
  proposer = {'model': 'proposer', 'proposer': model['proposer']}
  save_model(tmp_path / 'clip', params['clip'], clip)
  for name, more in (('new', {'training_names': expected}), ('old', {})):
    save_model(tmp_path / name, params['proposer'], {**proposer, **more})
    config = scenes.assemble(
      str(tmp_path / name), str(tmp_path / 'clip'), prompt_depth=3
    )
    assemble(Settings.of(config), tmp_path / f'{name}_whole')
    stored = load_config(tmp_path / f'{name}_whole' / 'model')
    assert stored.get('training_names') == more.get('training_names')


def test_a_list_of_one_s_own_can_be_seen(tmp_path: pathlib.Path) -> None:
  path = tmp_path / 'names.txt'
  path.write_text('red circle\nmoon\n')
  settings = Settings('x', 'benchmark', suite=Suite(training=str(path)))
  assert training_list(str(path)).names == ('red circle', 'moon')
  folder = vocabulary.own('folder', ('red circle', 'moon'))
  assert check_training(settings, folder.identity(), [COCO]) is None
  said = check_training(settings, COCO.identity(), [COCO])
  assert said is not None and f'take them to be those of {path}' in said
  with pytest.raises(FileNotFoundError, match=r'no/such\.txt is no file of names'):
    training_list('no/such.txt')
