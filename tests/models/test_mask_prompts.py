"""Prompts apart from their CLIP: what fits goes in, what does not says why."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest
import tiny_configs

from ovs_jax.core.checkpoint import save_model
from ovs_jax.core.tree import flatten
from ovs_jax.models import mask_prompts
from ovs_jax.models.clip import PRESETS, ClipConfig, init_clip

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
  save_model(path, tree, mask_prompts.describe(config))
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
    ((3, 9, 16), 'a grid of 2x2 patches and a width of 16, the CLIP has 2x2 and 16'),
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
  with pytest.raises(ValueError, match="holds a 'clip' model; a 'prompts' model"):
    mask_prompts.add_prompts(CONFIG, params, tmp_path / 'clip')
  with pytest.raises(FileNotFoundError, match='prompts .*/no not found'):
    mask_prompts.add_prompts(CONFIG, params, tmp_path / 'no')
