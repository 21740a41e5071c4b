"""The settings as a whole: every configuration has them, and every value is checked."""

import dataclasses
import functools
import importlib
import json
import math
import operator
import pathlib
import typing
from typing import Any

import pytest

from configs import common, scenes
from ovs_jax.core.errors import UserError
from ovs_jax.core.limits import hints, plain, read
from ovs_jax.core.tree import flatten
from ovs_jax.data import DATASETS
from ovs_jax.main import MODES
from ovs_jax.mining.assign import SCORES
from ovs_jax.mining.nouns import ADJECTIVES, BACKENDS, READINGS
from ovs_jax.settings import DatasetName, Mining, Mode, RecipeName, Settings
from ovs_jax.train.recipes import RECIPES

SHARED = ('__init__', 'adaptation', 'coco_stuff', 'common', 'paper', 'scenes_coseg')
SHARED += ('towers',)
FILES = sorted(p.stem for p in pathlib.Path(common.__file__).parent.glob('*.py'))
FILES = [x for x in FILES if x not in SHARED]
NAMES = [f'{file}:{arg}' for file in FILES for arg in ('', 'smoke') if file != 'scenes']
NAMES += [f'scenes:{stage}{arg}' for stage in scenes.ALONE for arg in ('', ':smoke')]
NAMES += ['mpt_vitl14:script', 'mine_coco_captions:truth']


def as_json(config: Any) -> Any:
  return json.loads(json.dumps(config.to_dict(), default=str))


@pytest.mark.parametrize('name', NAMES)
def test_every_configuration_has_settings(name: str) -> None:
  file, _, argument = name.partition(':')
  config = importlib.import_module(f'configs.{file}').get_config(argument)
  settings = Settings.of(config)
  assert as_json(settings) == as_json(config)  # what directories of runs hold
  again = settings.to_config()
  assert as_json(again) == as_json(config) and Settings.of(again) == settings


def test_names_of_tables_above_are_theirs() -> None:
  """The sections are below what they choose from, and say its names once more."""
  choices = {name: typing.get_args(kind) for name, kind in hints(Mining).items()}
  for given, table in (
    (typing.get_args(DatasetName), DATASETS),
    (typing.get_args(Mode), MODES),
    (typing.get_args(RecipeName), RECIPES),
    (choices['score'], SCORES),
    (choices['backend'], BACKENDS),
    (choices['adjectives'], ADJECTIVES),
    (choices['nouns_as'], READINGS),
  ):
    assert set(given) == set(table) and len(given) == len(table)


def problems(**changes: Any) -> list[str]:
  """Returns what is wrong with the changes of keys, a line each."""
  tree = Settings('x', 'train').to_dict()
  for path, value in changes.items():
    *sections, key = path.split('.')
    section = tree
    for name in sections:
      section = section[name]
    section[key] = value
  try:
    Settings.of(tree)
  except UserError as error:
    first, *rest = str(error).splitlines()
    if rest:
      assert first == f'{len(rest)} settings are wrong:'
    return [line.strip() for line in rest] or [first]
  return []


@pytest.mark.parametrize(
  ('key', 'right', 'wrong'),
  [
    ('name', ('a',), ('', 3)),
    ('mode', ('mine',), ('', 'trian')),
    ('recipe', ('', 'coseg'), ('clip',)),
    ('seed', (0, 2**32 - 1), (-1, 2**32, 0.5)),
    ('mesh.data', (-1, 1, 8), (0, -2)),
    ('mesh.model', (1,), (0,)),
    ('mesh.rules', ((('x$', ('model', None)),),), ((('x$', 'model'),), (('(', ()),))),
    ('dataset.name', ('folder', 'voc_20b'), ('voc', '')),
    ('region.threshold', (0.0, 1.0), (-0.1, 1.1)),
    ('region.expand', (0.5,), (0.0,)),
    ('text.templates', ('vild',), ('clip', '')),
    ('eval.templates', ('', 'single'), ('clip',)),
    ('clip.prompt_depth', (0, 3), (-1,)),
    ('clip.dtype', ('bfloat16',), ('float8',)),
    ('clip.patch', (16,), (7, 0)),
    ('clip.vision_width', (1664, 2**15), (2**15 + 8, 10**9)),
    ('proposer.layers', (6,), (10**9,)),
    ('coseg.language.decoder_layers', (0,), (10**9,)),
    ('proposer.backbone', ('swin_base',), ('swin', 3)),
    ('proposer.dropout', (0.0, 0.5), (1.0,)),
    ('coseg.decoder.extract', ((0, 1, 3),), ((3, 1), (-1, 0, 1))),
    ('train.steps', (0, 1), (-1, '3')),
    ('train.epochs', (0.0, 2.5), (-1.0,)),
    ('train.min_crop', (1.0, 0.1), (0.0, 1.1)),
    ('train.ema', (0.0, 0.999), (1.0, -0.1)),
    ('train.skip_not_finite', (0, 3), (-1,)),
    ('train.keep', (1,), (0,)),
    ('train.profile', (0,), (-1,)),
    ('train.log_every', (1,), (0,)),
    ('train.save_every', (1,), (0, -2)),
    ('train.writers', ((), ('clu', 'wandb')), (('clue',), 'clu')),
    ('train.set_weights.ce', (0.0, 7.0), (-1.0, math.inf)),
    ('adapt.crop_area', ((), (0.5, 1.0)), ((0.5,), (1.0, 0.5), (0.0, 1.0))),
    ('adapt.prior', ('box',), ('none',)),
    ('adapt.evaluate_every', (0,), (-1,)),
    ('slots.duplicates', ('dedup',), ('ignored',)),
    ('adapt.duplicates', ('ignored',), ('dedup',)),
    ('slots.template', ('{}',), ('', 'a photo')),
    ('slots.match_costs', ((0.0, 1.0, 2.0),), ((1.0, 1.0), (1.0, 1.0, -1.0))),
    ('phrases.templates', (('{}',),), ((), ('x',))),
    ('optimizer.learning_rate', (1e-9,), (0.0, -1.0)),
    ('optimizer.b2', (0.0, 0.999), (1.0,)),
    ('optimizer.gradient_clip', (None, 0.1), (0.0,)),
    ('optimizer.groups', ((('x', None), ('', 0.0)),), ((), (('x', -1.0),), (('x',),))),
    ('optimizer.muon', ((('x', -1), ('y', None)),), ((('x', 1.5),),)),
    ('mining.captions', (1,), (0,)),
    ('mining.chunk', (1,), (0,)),
    ('mining.shortest', (0, 640), (-1, 10**9)),
    ('test.longest', (2560,), (0, 10**9)),
    ('eval.refine', (0, 8), (-1, 10**9)),
    ('train.shortest', ((), (320, 1280)), ((0,), (10**9,))),
    ('mining.min_score', (-1.0, 1.0), (-2.0,)),
    ('mining.dtype', ('', 'float32'), ('float16',)),
    ('test.prompt_depth', (-1, 0), (-2,)),
    ('test.weight', (0.0, 1.0), (1.5,)),
    ('eval.save_every', (1,), (0,)),
    ('eval.methods', ((),), (({'classifier': 'clip', 'weight': 2.0},), ('clip',))),
    ('suite.datasets', (('a', 'b/c:d'),), ((), ('',))),
    ('suite.near', (0.9, 2.0), (-1.0,)),
    ('suite.tuned', ((('a', 0.5),),), ((('a', 5),),)),
    ('suite.training', ('scenes',), ('coco',)),
    ('systems.rules', (('A', 'D'), ()), (('E',), ('A', 3))),
    ('systems.protocols', (('paper',),), ((), ('papers',))),
    ('systems.tau', (0.1,), (0.0,)),
    ('report.seeds', (('seed_0',),), ((), ('',))),
    ('needs', ((('a.b', 'what', 'how'),),), ((('a', 'b'),),)),
  ],
)
def test_ranges(key: str, right: tuple[Any, ...], wrong: tuple[Any, ...]) -> None:
  for value in right:
    assert problems(**{key: value}) == []
  for value in wrong:
    (line,) = problems(**{key: value})
    section = key.rpartition('.')[0]
    assert line.startswith((f'config.{key}', f'config.{section}: ')), line


LEAVES = flatten(Settings('x', 'train').to_dict())
STRANGE = (0, -1, 1e9, 10**9, '', 'x', math.nan, None, ())


@pytest.mark.parametrize('path', LEAVES)
def test_any_value_of_any_key_is_taken_or_named(path: str) -> None:
  key = path.replace('/', '.')
  section = key.rpartition('.')[0]
  first, *rest = path.split('/')
  taken = 0
  for value in STRANGE:
    given = plain(getattr(Settings('x', 'train'), first))
    if rest:
      functools.reduce(operator.getitem, rest[:-1], given)[rest[-1]] = value
    whole = given if rest else value
    _, found = read(hints(Settings)[first], whole, f'config.{first}')
    taken += not found
    if found:  # of some keys their section says that they do not fit each other
      assert len(found) == 1
      assert found[0].startswith((f'config.{key} is ', f'config.{section}: ')), found
    if value != value:
      assert found[0].startswith(f'config.{key} is nan, expected ')
  assert taken < len(STRANGE) - 1


def test_all_mistakes_are_told_at_once() -> None:
  assert problems(**{'train.keep': 0, 'train.split': '', 'region.fill': 'meen'}) == [
    "config.region.fill is 'meen', expected one of 'mean', 'zero', 'none'. Did you "
    "mean 'mean'?",
    "config.train.split is '', expected a text, not empty",
    'config.train.keep is 0, expected an integer, at least 1',
  ]


def test_the_stages_of_a_pipeline_are_checked() -> None:
  config = scenes.get_config('mpt:smoke')
  config.stages.mine.mining.chunk = 0
  config.stages.mpt.optimizer.learning_rate = -1.0
  with pytest.raises(UserError) as caught:
    Settings.of(config)
  assert str(caught.value) == (
    '2 settings are wrong:\n'
    '  config.stages.mine.mining.chunk is 0, expected an integer, at least 1\n'
    '  config.stages.mpt.optimizer.learning_rate is -1.0, expected a number, above 0'
  )


def test_a_mistake_that_stages_share_is_one() -> None:
  config = scenes.get_config('proposer:smoke')
  config.dataset.name = 'scene'
  with pytest.raises(UserError) as caught:
    Settings.of(config)
  assert str(caught.value).count('scene') == 3  # given, expected, and meant
  assert str(caught.value).startswith("config.dataset.name is 'scene', expected one of")


def test_an_order_has_its_stages() -> None:
  config = scenes.get_config('proposer:smoke')
  with config.unlocked():
    config.order = ('data', 'nothing')
  with pytest.raises(UserError, match='^config: order names .* not there: nothing$'):
    Settings.of(config)


def test_settings_cannot_be_changed() -> None:
  settings = Settings('x', 'train')
  with pytest.raises(dataclasses.FrozenInstanceError):
    settings.train.steps = 3  # type: ignore[misc]
