"""Prompts apart from their CLIP: what fits goes in, what does not says why."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest
import tiny_configs
import tiny_ovseg

from configs import scenes
from ovs_jax import Segmenter
from ovs_jax.core.checkpoint import load_model, save_model
from ovs_jax.core.tree import flatten
from ovs_jax.inference.assemble import assemble
from ovs_jax.models import mask_prompts
from ovs_jax.models.clip import PRESETS, ClipConfig, init_clip
from ovs_jax.settings import Settings

CONFIG = dataclasses.replace(PRESETS['tiny'], **tiny_configs.CLIP_SIZES)


@pytest.fixture(scope='module')
def params() -> dict:
  """Returns a CLIP without prompts, whose arrays hold zeros."""
  shapes = jax.eval_shape(lambda key: init_clip(CONFIG, key), jax.random.key(0))
  return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)


def save(
  path: pathlib.Path, shape: tuple[int, ...], config: ClipConfig = CONFIG
) -> str:
  prompts = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
  tree = {'visual': {'mask_prompt': prompts}}
  save_model(path, tree, {'model': 'prompts', 'clip': dataclasses.asdict(config)})
  return str(path)


def test_prompts_come_and_the_rest_stays(params: dict, tmp_path: pathlib.Path) -> None:
  directory = save(tmp_path / 'prompts', (3, 4, 16))
  config, whole = mask_prompts.add_prompts(CONFIG, params, directory)
  assert config == dataclasses.replace(CONFIG, prompt_depth=3)
  before, after = flatten(params), flatten(whole)
  assert set(after) - set(before) == {'visual/mask_prompt'}
  assert after['visual/mask_prompt'].shape == (3, 4, 16)
  assert all(after[path] is value for path, value in before.items())
  assert 'mask_prompt' not in params['visual']


@pytest.mark.parametrize(
  ('shape', 'message'),
  [
    ((3, 9, 16), 'a grid of 3x3 patches and a width of 16, the CLIP has 2x2 and 16'),
    ((3, 4, 8), 'a width of 8, the CLIP has 2x2 and 16'),
    ((4, 4, 16), 'they follow 3 blocks, the CLIP has 2. Take the CLIP'),
  ],
)
def test_prompts_of_another_size_are_refused(
  params: dict, tmp_path: pathlib.Path, shape: tuple[int, ...], message: str
) -> None:
  directory = save(tmp_path / 'prompts', shape)
  with pytest.raises(ValueError, match=message):
    mask_prompts.add_prompts(CONFIG, params, directory)


def test_another_checkpoint_is_refused(params: dict, tmp_path: pathlib.Path) -> None:
  save_model(tmp_path / 'clip', {'x': np.ones(1)}, {'model': 'clip'})
  with pytest.raises(ValueError, match='holds a whole CLIP and not prompts alone'):
    mask_prompts.add_prompts(CONFIG, params, tmp_path / 'clip')
  save_model(tmp_path / 'other', {'x': np.ones(1)}, {'model': 'coseg'})
  with pytest.raises(ValueError, match="holds a 'coseg' model; a 'prompts' model"):
    mask_prompts.add_prompts(CONFIG, params, tmp_path / 'other')
  with pytest.raises(FileNotFoundError, match='prompts .*/no not found'):
    mask_prompts.add_prompts(CONFIG, params, tmp_path / 'no')


def test_a_segmenter_takes_prompts(tmp_path: pathlib.Path) -> None:
  model = tiny_ovseg.CONFIG
  clip = dataclasses.replace(model.clip, prompt_depth=0)
  plain = dataclasses.replace(model, clip=clip)
  params = tiny_ovseg.draw_params()
  params['clip']['visual'].pop('mask_prompt', None)
  stored = {**tiny_ovseg.STORED, **plain.to_dict()}
  save_model(tmp_path / 'model', params, stored)
  count = (clip.image_size // clip.patch) ** 2
  directory = save(tmp_path / 'prompts', (2, count, clip.vision_width), clip)
  segmenter = Segmenter.load(tmp_path / 'model', prompts=directory)
  assert segmenter.system.config.clip.prompt_depth == 2
  got = segmenter.system.params['clip']['visual']['mask_prompt']
  assert got.shape == (2, count, clip.vision_width) and float(got.ravel()[1]) == 1
  assert Segmenter.load(tmp_path / 'model').system.config.clip.prompt_depth == 0


def test_parts_are_assembled_with_prompts(tmp_path: pathlib.Path) -> None:
  params = tiny_ovseg.draw_params()
  params['clip']['visual'].pop('mask_prompt', None)
  clip = dataclasses.replace(tiny_ovseg.CONFIG.clip, prompt_depth=0)
  whole = dataclasses.replace(tiny_ovseg.CONFIG, clip=clip)
  # The proposer comes out of an OVSeg.
  save_model(tmp_path / 'other', params, {**tiny_ovseg.STORED, **whole.to_dict()})
  stored = {'model': 'clip', 'clip': dataclasses.asdict(clip)}
  save_model(tmp_path / 'clip', params['clip'], stored)
  count = (clip.image_size // clip.patch) ** 2
  directory = save(tmp_path / 'prompts', (2, count, clip.vision_width), clip)
  config = scenes.assemble(
    str(tmp_path / 'other'), str(tmp_path / 'clip'), prompt_depth=2
  )
  config.init.prompts = directory
  assemble(Settings.of(config), tmp_path / 'run')
  got, described = load_model(tmp_path / 'run' / 'model', kind='ovseg')
  assert described['clip']['prompt_depth'] == 2
  before = flatten(params)
  after = flatten(got)
  assert set(after) - set(before) == {'clip/visual/mask_prompt'}
  for path, value in before.items():
    np.testing.assert_array_equal(after[path], value, err_msg=path)
