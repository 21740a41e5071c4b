"""Whole OVSeg models through the command, with either backbone."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_clip import TINY, draw, openai_shapes

from ovs_jax.convert import maskformer, ovseg
from ovs_jax.convert.command import main
from ovs_jax.convert.family import Options
from ovs_jax.convert.rules import export_all
from ovs_jax.core.checkpoint import load_model
from ovs_jax.core.tree import flatten, unflatten
from ovs_jax.models.maskformer import PRESETS, MaskFormerConfig
from ovs_jax.models.ovseg import OvSegConfig
from ovs_jax.models.resnet import ResNetConfig
from ovs_jax.ops.regions import CLIP_MEAN

BACKBONES = {
  'Swin': 'swin_mini',
  'ResNet': ResNetConfig((1, 1, 1, 1), 4, 4, 8, (1, 2, 4), 'frozen'),
}
# MASK_THR, MIN_SIZE_TEST and MAX_SIZE_TEST of the authors' configuration files.
PUBLISHED = {'Swin': (0.4, 640, 2560), 'ResNet': (0.5, 512, 2048)}
PREFIX = 'clip_adapter.clip_model.'


def proposer(kind: str) -> MaskFormerConfig:
  """Returns sizes that the shapes of tensors tell."""
  return dataclasses.replace(
    PRESETS['r101c_b16'],
    backbone=BACKBONES[kind],
    pixel_width=32,
    mask_dim=8,
    num_queries=5,
    width=16,
    feed_forward=12,
    layers=2,
    embed_hidden=6,
    embed_dim=TINY.embed_dim,
  )


def whole(kind: str) -> dict[str, Any]:
  """Returns an official file's tensors: the proposer's, CLIP's, and constants."""
  generator = np.random.default_rng(1)
  config = proposer(kind)
  params = {
    path: generator.normal(size=leaf.shape).astype(np.float32)
    for path, leaf in flatten(maskformer.shapes(config)).items()
  }
  source = export_all(maskformer.rules(config), unflatten(params))
  weights = np.array([1, 1, 1, 0.1], np.float32)
  source |= {'criterion.empty_weight': weights}
  mean = np.array(CLIP_MEAN, np.float32).reshape(1, 3, 1, 1) * 255
  source |= {'clip_adapter.pixel_mean': mean}
  if kind == 'Swin':
    index = np.zeros((16, 16), np.int64)
    for i in range(16):
      for j in range(16):
        index[i, j] = (i // 4 - j // 4 + 3) * 7 + i % 4 - j % 4 + 3
    source['backbone.layers.0.blocks.0.attn.relative_position_index'] = index
  adapted = draw(openai_shapes(TINY))
  source |= {f'{PREFIX}{name}': np.float32(x) for name, x in adapted.items()}
  return {name: np.array(x, order='C') for name, x in source.items()}


@pytest.mark.parametrize(
  'kind', ['Swin', pytest.param('ResNet', marks=pytest.mark.slow)]
)
def test_there_and_back(tmp_path, capsys, kind):
  source = whole(kind)
  save_file({f'module.{k}': v for k, v in source.items()}, tmp_path / 'a.safetensors')
  output, back = tmp_path / 'o', tmp_path / 'back.safetensors'
  line = [f'--input={tmp_path / "a.safetensors"}', f'--output={output}', '--check']
  assert main(line) == 0
  assert capsys.readouterr().out.startswith('ovseg: ')
  params, stored = load_model(output, kind='ovseg')
  config = OvSegConfig.from_dict(stored)
  assert config.proposer == proposer(kind)
  assert config.clip == TINY
  assert config.region.size == TINY.image_size
  assert stored['trained_classes'] == 3 and stored['weight'] == 0.7
  kernel = params['proposer']['class_embed']['layer_1']
  want = source['sem_seg_head.predictor.class_embed.layers.1.weight']
  np.testing.assert_array_equal(kernel['kernel'], want.T)
  mask_prompt = source[f'{PREFIX}visual.mask_embedding']
  np.testing.assert_array_equal(params['clip']['visual']['mask_prompt'], mask_prompt)
  assert main(['--export=ovseg', f'--input={output}', f'--output={back}']) == 0
  found = load_file(back)
  assert set(found) == set(source)
  for name, value in source.items():
    np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert found[name].dtype == value.dtype, name


@pytest.mark.parametrize('kind', ['Swin', 'ResNet'])
def test_a_model_has_the_settings_of_its_configuration_file(kind):
  found = ovseg.OVSEG.convert(whole(kind), {}, Options()).model
  region, test = found['region'], found['test']
  assert (region['threshold'], test['shortest'], test['longest']) == PUBLISHED[kind]
  assert (region['fill'], region['expand'], region['matting']) == ('mean', 1.0, False)
  assert (found['weight'], found['templates']) == (0.7, 'vild')
  assert found['classifier'] == 'ensemble'


def test_one_error_lists_what_does_not_fit(tmp_path, capsys):
  source = whole('ResNet')
  del source['sem_seg_head.predictor.input_proj.bias']
  source['backbone.stray'] = np.zeros(2, np.float32)
  save_file(source, tmp_path / 'a.safetensors')
  line = [f'--input={tmp_path / "a.safetensors"}', f'--output={tmp_path / "o"}']
  assert main(line) == 2
  error = capsys.readouterr().err
  assert 'query_decoder/input_proj/bias' in error and 'backbone.stray' in error
  assert not (tmp_path / 'o').exists()


def test_a_whole_model_is_no_clip(tmp_path):
  source = whole('ResNet')
  assert ovseg.OVSEG.recognise(source, None)
  inner = {name: x for name, x in source.items() if name.startswith(PREFIX)}
  assert not ovseg.OVSEG.recognise(inner, None)
