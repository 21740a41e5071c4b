"""Backbones and Hugging Face's MaskFormer: every layout, both ways, and mistakes."""

import dataclasses
import functools
import hashlib
import os
import pathlib
import re

import numpy as np
import pytest

from ovs_jax.convert import backbones, hf_maskformer, maskformer
from ovs_jax.convert.rules import export_all, foreign_names
from ovs_jax.core.tree import count_parameters, flatten, map_with_path
from ovs_jax.models.maskformer import PRESETS, MaskFormerConfig
from ovs_jax.models.resnet import ResNetConfig
from ovs_jax.models.swin import SwinConfig

SHARED = pathlib.Path(
  os.environ.get('OVS_SHARED', pathlib.Path(__file__).parents[3] / 'shared')
)
SWIN = SwinConfig(8, (1, 3, 1, 2), (1, 2, 2, 4), 3)
DEEP = ResNetConfig((1, 2, 1, 1), 4, 4, 8, (1, 2, 4), 'frozen')
PLAIN = ResNetConfig((1, 2, 1, 1), 8, 4, 16, (1,), 'frozen', stem='plain')
BASIC = dataclasses.replace(PLAIN, bottleneck=16, block='basic')
UNEVEN = dataclasses.replace(PLAIN, widths=(16, 32, 64, 64))
SMALL = MaskFormerConfig(
  backbone=SWIN,
  pixel_width=32,
  mask_dim=16,
  groups=32,
  num_queries=5,
  width=16,
  heads=8,
  feed_forward=12,
  layers=2,
  dropout=0.1,
  embed_hidden=14,
  embed_dim=12,
  dtype='float32',
)


def draw(shapes):
  rng = np.random.default_rng(0)
  return map_with_path(lambda _, x: rng.normal(size=x.shape).astype(np.float32), shapes)


def check_round_trip(params, tensors, convert, config):
  """From our parameters to theirs and back: the same sizes and the same bits."""
  inferred, back = convert(tensors)
  assert inferred == config
  assert set(flatten(back)) == set(flatten(params))
  for path, value in flatten(params).items():
    np.testing.assert_array_equal(flatten(back)[path], value, err_msg=path)


@pytest.mark.parametrize(
  'layout, config, prefix',
  [
    ('swin', SWIN, 'module.backbone.'),
    ('hf_swin', SWIN, 'swin.'),
    ('resnet', dataclasses.replace(DEEP, multi_grid=(1, 2, 4)), ''),
    ('hf_resnet', PLAIN, 'resnet.'),
    ('hf_resnet', BASIC, ''),
    ('hf_resnet', UNEVEN, ''),
  ],
)
def test_backbones_there_and_back(layout, config, prefix):
  params = draw(backbones.shapes(config))
  if layout == 'hf_swin':  # has no norms for features: they start as the identity
    for stage in range(4):
      norm = params[f'norm_{stage}']
      norm['scale'][:], norm['bias'][:] = 1, 0
  table = backbones.rules(layout, config, norms=layout == 'swin')
  kept = {k: v for k, v in params.items() if layout != 'hf_swin' or k[:5] != 'norm_'}
  tensors = export_all(table, kept)
  tensors = {f'{prefix}{name}': value for name, value in tensors.items()}
  check_round_trip(params, tensors, backbones.convert, config)


def test_an_imagenet_classifier_becomes_a_backbone():
  params = draw(backbones.shapes(SWIN))
  kept = {k: v for k, v in params.items() if k[:5] != 'norm_'}
  tensors = export_all(backbones.rules('swin', SWIN), kept)
  assert tensors['layers.1.blocks.2.attn.qkv.weight'].shape == (48, 16)
  assert tensors['layers.2.downsample.reduction.weight'].shape == (64, 128)
  extra = {
    'norm.weight': np.ones(64),
    'norm.bias': np.ones(64),
    'head.weight': np.ones((1000, 64)),
    'head.bias': np.ones(1000),
    'layers.0.blocks.0.attn.relative_position_index': np.ones((9, 9)),
    'layers.1.blocks.1.attn_mask': np.ones((4, 9, 9)),
  }
  config, got = backbones.convert(tensors | extra)
  assert config == SWIN
  for stage in range(4):
    width = 8 * 2**stage
    np.testing.assert_array_equal(got[f'norm_{stage}']['scale'], np.ones(width))
    np.testing.assert_array_equal(got[f'norm_{stage}']['bias'], np.zeros(width))
  # Query, key and value are the thirds of the rows; heads are parts of a third.
  rows = tensors['layers.1.blocks.2.attn.qkv.weight']
  key = got['blocks_1']['attn']['k']['kernel'][2]  # in, heads, head size
  np.testing.assert_array_equal(key[:, 1], rows[16 + 8 : 32].T)


@functools.cache
def small(backbone, num_classes=0):
  config = dataclasses.replace(SMALL, backbone=backbone)
  if num_classes:
    config = dataclasses.replace(
      config, num_classes=num_classes, embed_dim=0, embed_hidden=0
    )
  return config, draw(maskformer.shapes(config))


def ovseg(backbone):
  """Returns the tensors of a whole OVSeg, and its proposer."""
  config, params = small(backbone)
  tensors = export_all(maskformer.rules(config), params)
  tensors['criterion.empty_weight'] = np.ones(4)
  tensors['clip_adapter.clip_model.logit_scale'] = np.array(1.0)
  if isinstance(backbone, SwinConfig):
    name = 'backbone.layers.0.blocks.0.attn.relative_position_index'
    tensors[name] = np.ones((9, 9))
  return config, params, tensors


@pytest.mark.parametrize('backbone', [SWIN, DEEP])
def test_ovseg_there_and_back(backbone):
  config, params, tensors = ovseg(backbone)
  check_round_trip(params, tensors, maskformer.convert, config)


@pytest.mark.parametrize('backbone', [SWIN, PLAIN, BASIC, UNEVEN])
def test_hugging_face_there_and_back(backbone):
  config, params = small(backbone, 7)
  tensors = export_all(hf_maskformer.rules(config), params)
  assert tensors['class_predictor.weight'].shape == (8, 16)
  fpn = 'model.pixel_level_module.decoder.fpn'
  coarse = params['pixel_decoder']['adapter_3']['kernel']
  np.testing.assert_array_equal(
    tensors[f'{fpn}.layers.0.proj.0.weight'], coarse.transpose(3, 2, 0, 1)
  )
  tensors['criterion.empty_weight'] = np.ones(8)
  check_round_trip(params, tensors, hf_maskformer.convert, config)


def test_names_are_taken_as_they_are():
  config, _, tensors = ovseg(SWIN)
  # What the reference makes of the names of files that lack a version.
  prefix = 'sem_seg_head.'
  renamed = {
    name.replace(prefix, f'{prefix}pixel_decoder.')
    if name.startswith(prefix) and 'predictor' not in name
    else name: value
    for name, value in tensors.items()
  }
  with pytest.raises(ValueError) as error:
    maskformer.convert(renamed, config)
  message = str(error.value)
  assert '23 unused source tensors' in message
  assert '23 missing parameters' in message
  assert 'sem_seg_head.pixel_decoder.pixel_decoder.adapter_1.weight' in message


def test_the_other_backbone_is_named():
  for backbone, other, text in (
    (SWIN, DEEP, 'has a Swin backbone, the configuration asks for a ResNet'),
    (DEEP, SWIN, 'has a ResNet backbone, the configuration asks for a Swin'),
  ):
    tensors = ovseg(backbone)[2]
    with pytest.raises(ValueError, match=text):
      maskformer.convert(tensors, dataclasses.replace(SMALL, backbone=other))
  tensors = export_all(backbones.rules('resnet', DEEP), draw(backbones.shapes(DEEP)))
  with pytest.raises(ValueError, match='asks for a Swin'):
    backbones.convert(tensors, SWIN)
  with pytest.raises(ValueError, match='no known backbone: among its 1 tensors'):
    backbones.convert({'conv1.weight': np.ones(1)})


def test_everything_that_does_not_fit_is_in_one_error():
  tensors = export_all(
    backbones.rules('swin', SWIN, norms=True), draw(backbones.shapes(SWIN))
  )
  del tensors['layers.1.blocks.2.mlp.fc1.bias']
  tensors['layers.1.blocks.0.attn.proj.weight'] = np.ones((16, 18))
  tensors['layers.4.blocks.0.norm1.weight'] = np.ones(3)
  with pytest.raises(ValueError) as error:
    backbones.convert(tensors, SWIN)
  message = str(error.value)
  assert 'blocks_1/fc1/bias[2]' in message
  assert 'layers.1.blocks.0.attn.proj.weight' in message
  assert 'layers.4.blocks.0.norm1.weight' in message


# Of the released models without CLIP, constants and indices, from their key lists.
@pytest.mark.parametrize(
  'preset, count, digest',
  [('swin_b_l14', 480, 'bcb659d421673bc0'), ('r101c_b16', 677, '20718e90c52560df')],
)
def test_names_of_the_released_models(preset, count, digest):
  config = PRESETS[preset]
  names = foreign_names(maskformer.rules(config), maskformer.shapes(config))
  assert len(names) == len(set(names)) == count
  text = '\n'.join(sorted(names))
  assert hashlib.sha256(text.encode()).hexdigest()[:16] == digest


def listed(path):
  """Returns the tensors of a key list, without values."""
  lines = [line.split('\t') for line in path.read_text().splitlines() if line[0] != '#']
  return {
    name.split()[-1]: np.broadcast_to(
      np.float32(0), [int(n) for n in shape.strip('()').split(',') if n.strip()]
    )
    for name, shape, *_ in lines
  }


@pytest.mark.samples
@pytest.mark.parametrize(
  'name, preset, total',
  [('swinB_vitL', 'swin_b_l14', 954), ('R101c_vitB', 'r101c_b16', 983)],
)
def test_published_key_lists(name, preset, total):
  tensors = listed(SHARED / 'reference' / 'keys' / f'ovseg_keys_{name}.txt')
  assert len(tensors) == total
  config, params = maskformer.convert(tensors)
  assert config == PRESETS[preset]
  own = {k for k in tensors if not k.startswith('clip_adapter.clip_model.')}
  skipped = {k for k in own if re.match(r'criterion|clip_adapter.pixel|.*_index$', k)}
  assert own - skipped == set(foreign_names(maskformer.rules(config), params))


@pytest.mark.samples
@pytest.mark.parametrize('kind', ['swin', 'resnet'])
def test_hugging_face_key_lists(kind):
  keys = SHARED / 'reference' / 'keys'
  tensors = listed(keys / f'hf_keys_maskformer_tiny_{kind}_v4.46.3.txt')
  config, params = hf_maskformer.convert(tensors)
  assert config.num_classes == 5 and config.layers == 2
  used = foreign_names(hf_maskformer.rules(config), params)
  assert count_parameters(params) == sum(tensors[name].size for name in used)
