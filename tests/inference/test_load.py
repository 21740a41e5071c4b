"""The one loader: what a checkpoint says of itself, and what a configuration asks."""

import dataclasses
import pathlib
from typing import Any

import jax
import pytest
import tiny_configs
import tiny_ovseg

from configs import scenes
from ovs_jax.core.checkpoint import load_config, save_model
from ovs_jax.inference.assemble import assemble
from ovs_jax.models.clip import ClipConfig, init_clip
from ovs_jax.models.stored import MODELS, check_agreement, load
from ovs_jax.settings import Settings
from ovs_jax.train.recipes import RECIPES

ADAPTING = ('clip_regions', 'clipseg', 'coseg')


@pytest.fixture(scope='module')
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
  """Returns directories of CLIPs that differ in what no shape tells."""
  root = tmp_path_factory.mktemp('clips')
  plain = ClipConfig.from_dict(tiny_configs.pretraining('-').clip)
  params = init_clip(plain, jax.random.key(0))
  found = {}
  for name, changed in {
    'quick_gelu': {},
    'gelu': {'activation': 'gelu', 'vision_epsilon': 1e-6},
    # As they are, in other words.
    'spelt': {'vision_mlp': 4 * plain.vision_width, 'end_token': plain.vocab_size - 1},
  }.items():
    config = dataclasses.replace(plain, **changed)
    stored = {'model': 'clip', 'clip': dataclasses.asdict(config)}
    save_model(root / name, params, stored)
    found[name] = str(root / name)
  return found


def recipe(name: str, clip: str, data_dir: str) -> Any:
  return tiny_configs.of_recipe(name, data_dir, clip, '-', heads=2)


@pytest.mark.parametrize('name', ADAPTING)
def test_another_network_is_not_trained_in_silence(
  name: str, clips: dict[str, str], data_dir: str
) -> None:
  config = recipe(name, clips['gelu'], data_dir)
  said = (
    f'{clips["gelu"]} has another network.*config.clip.activation is '
    "'quick_gelu', there it is 'gelu'; config.clip.vision_epsilon is 1e-05, there it "
    'is 1e-06'
  )
  with pytest.raises(ValueError, match=said):
    RECIPES[name](Settings.of(config)).prepare(jax.random.key(0))


@pytest.mark.parametrize('name', ADAPTING)
def test_the_network_that_is_asked_for_is_stored(
  name: str, clips: dict[str, str], data_dir: str
) -> None:
  config = recipe(name, clips['gelu'], data_dir)
  config.clip.update(activation='gelu', vision_epsilon=1e-6)
  trained = RECIPES[name](Settings.of(config))
  trained.prepare(jax.random.key(0))
  stored = trained.model_config
  assert (stored.get(name) or stored)['clip']['activation'] == 'gelu'


def test_how_to_compute_is_free(clips: dict[str, str], data_dir: str) -> None:
  config = recipe('clip_regions', clips['spelt'], data_dir)
  config.clip.update(dtype='bfloat16', remat=True, prompt_depth=2)
  RECIPES['clip_regions'](Settings.of(config)).prepare(jax.random.key(0))


def test_fields_are_compared_as_deep_as_they_are() -> None:
  asked = tiny_ovseg.CONFIG
  check_agreement(asked, asked, key='config', directory='x')
  proposer = dataclasses.replace(asked.proposer, groups=4, dropout=0.5)
  found = dataclasses.replace(asked, proposer=proposer)
  said = r'config.proposer.groups is 8, there it is 4\. Set what'
  with pytest.raises(ValueError, match=said):
    check_agreement(asked, found, key='config', directory='x')
  check_agreement(asked, found, key='config', directory='x', free=('groups',))


def test_a_loaded_model_is_its_own_description(tmp_path: pathlib.Path) -> None:
  save_model(tmp_path / 'm', tiny_ovseg.draw_params(), tiny_ovseg.STORED)
  found = load(tmp_path / 'm')
  assert found.kind == 'ovseg' and found.config == tiny_ovseg.CONFIG
  assert found.stored['weight'] == 0.7
  with pytest.raises(ValueError, match="'ovseg' model; a 'clip' or 'coseg' model was"):
    load(tmp_path / 'm', kinds=('clip', 'coseg'), what='picture')


def test_every_kind_has_parameters_of_its_own(tmp_path: pathlib.Path) -> None:
  for kind in MODELS:
    save_model(tmp_path / kind, {'a': jax.numpy.ones(1)}, {'model': kind})
    with pytest.raises(ValueError, match=f'not describe its {kind!r} model .KeyError'):
      load(tmp_path / kind)


def test_assembling_keeps_the_prompts_of_a_clip(tmp_path: pathlib.Path) -> None:
  params, model = tiny_ovseg.draw_params(), tiny_ovseg.CONFIG.to_dict()
  save_model(tmp_path / 'whole', params, tiny_ovseg.STORED)
  stored = {'model': 'clip', 'clip': model['clip']}
  save_model(tmp_path / 'clip', params['clip'], stored)
  depths = {}
  for asked in (None, 0, 3):
    config = scenes.assemble(
      str(tmp_path / 'whole'), str(tmp_path / 'clip'), prompt_depth=0
    )
    config.test.prompt_depth = scenes.benchmark('').test.prompt_depth
    if asked is not None:
      config.test.prompt_depth = asked
    assemble(Settings.of(config), tmp_path / f'{asked}')
    depths[asked] = load_config(tmp_path / f'{asked}/model')['clip']['prompt_depth']
  assert depths == {None: 3, 0: 0, 3: 3}
