"""Every data set that a configuration names exists."""

import pathlib

import pytest

from configs import coco_stuff, common, eval_ovseg, scenes
from ovs_jax.bench import drawn
from ovs_jax.data import DATASETS
from ovs_jax.evaluate.sources import Target
from ovs_jax.text import vocabulary

ROOT = pathlib.Path(__file__).parents[2]
SHARED = ('__init__', 'adaptation', 'common', 'scenes', 'coco_stuff', 'paper')
SHARED = (*SHARED, 'scenes_coseg', 'towers')
FILES = sorted(p.stem for p in (ROOT / 'configs').glob('*.py') if p.stem not in SHARED)
NAMES = [*FILES, *(f'scenes:{stage}' for stage in scenes.ALONE)]


@pytest.mark.parametrize('name', NAMES)
def test_data_sets_are_known(name: str) -> None:
  config = drawn.configuration(name)
  stages = config.stages.values() if 'stages' in config else [config]
  for stage in stages:
    assert stage.dataset.name in DATASETS
    for text in stage.suite.datasets:
      assert Target.parse(text).name in DATASETS
    assert {name for name, _ in stage.suite.tuned} <= set(DATASETS)
    vocabulary.load(stage.suite.training)


def test_proposers_can_be_trained_on_156_classes() -> None:
  config = coco_stuff.proposer_training('x', 'r101c_b16', 'vitb16')
  assert config.dataset.name == 'coco_stuff_171' and config.train.classes == 'all'
  split = vocabulary.load(DATASETS['coco_stuff_156_15'].vocabulary)
  hidden = [n for n, s in zip(split.names, split.splits, strict=True) if s == 'unseen']
  assert len(hidden) == 15 and split.splits.count('seen') == 156
  assert {'cow', 'giraffe', 'frisbee', 'grass', 'wall-concrete'} <= set(hidden)
  assert split.names == vocabulary.load('coco_stuff_171').names


def test_the_papers_lambdas() -> None:
  config = eval_ovseg.get_config()
  assert dict(config.suite.tuned) == {
    'ade20k_847': 0.7,
    'ade20k_150': 0.7,
    'pascal_context_459': 0.6,
    'pascal_context_59': 0.6,
    'voc_20': 0.45,
  }
  assert config.suite.search == () and not config.suite.i_know
  assert common.base('x', 'benchmark').suite.predictions == ''


def test_both_names_of_the_checkpoint_are_one() -> None:
  for section in ('', 'eval'):
    config = eval_ovseg.get_config()
    (config[section] if section else config).checkpoint = 'some/where'
    assert config.checkpoint == config.eval.checkpoint == 'some/where'
    assert config.to_dict()['eval']['checkpoint'] == 'some/where'
