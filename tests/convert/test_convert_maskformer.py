"""OVSeg's proposer: names, sizes, and what is left to CLIP's converter."""

import dataclasses
import os
import pathlib

import numpy as np
import pytest

from ovs_jax.convert import maskformer
from ovs_jax.convert.rules import export
from ovs_jax.core.tree import count_parameters
from ovs_jax.models.maskformer import PRESETS

GOLDEN = pathlib.Path(__file__).parents[1] / 'goldens' / 'proposer.npz'
SHARED = pathlib.Path(
  os.environ.get('OVS_SHARED', pathlib.Path(__file__).parents[3] / 'shared')
)
CONSTANTS = {
  'criterion.empty_weight': np.ones(3),
  'clip_adapter.pixel_mean': np.ones((1, 3, 1, 1)),
  'clip_adapter.pixel_std': np.ones((1, 3, 1, 1)),
  'backbone.stem.conv1.norm.num_batches_tracked': np.array(1),
  'clip_adapter.clip_model.logit_scale': np.array(1.0),
}


@pytest.fixture(scope='module')
def source():
  with np.load(GOLDEN) as f:
    return {name[2:]: f[name] for name in f.files if name[:2] == 'w/'}


@pytest.fixture(scope='module')
def config(source):
  # Group norms of 32 groups, which are always assumed, do not fit the tiny widths.
  return dataclasses.replace(maskformer.infer_config(source), groups=4, heads=4)


def test_every_tensor_is_used_and_every_parameter_filled(source, config):
  config, params = maskformer.convert({**source, **CONSTANTS}, config)
  assert config.backbone_config().depths == (1, 1, 2, 3)
  assert (config.num_queries, config.layers, config.embed_dim) == (5, 2, 12)
  assert count_parameters(params) == sum(x.size for x in source.values())
  back = export(params, maskformer.rules(config), source)
  for name, value in source.items():
    np.testing.assert_array_equal(back[name], value)


def test_damage_is_listed(source, config):
  broken = dict(source)
  del broken['backbone.res4.1.conv2.weight']
  # What detectron2 makes of such files when they lack a version.
  name = 'sem_seg_head.pixel_decoder.adapter_1.weight'
  broken[name.replace('.adapter', '.pixel_decoder.adapter')] = broken.pop(name)
  with pytest.raises(ValueError) as error:
    maskformer.convert(broken, config)
  message = str(error.value)
  assert '1 unused source tensors' in message and '2 missing parameters' in message
  assert 'backbone/res4_1/conv2/conv/kernel' in message
  assert 'sem_seg_head.pixel_decoder.pixel_decoder.adapter_1.weight' in message


def test_other_checkpoints_are_refused():
  with pytest.raises(ValueError, match='not an OVSeg proposer'):
    maskformer.convert({'backbone.layers.0.blocks.0.norm1.weight': np.zeros(3)})


@pytest.mark.samples
def test_published_key_list():
  path = SHARED / 'reference' / 'keys' / 'ovseg_keys_R101c_vitB.txt'
  rows = [line.split('\t') for line in path.read_text().splitlines() if line[0] != '#']
  listed = {
    name: np.broadcast_to(
      np.float32(0), [int(n) for n in shape.strip('()').split(',') if n.strip()]
    )
    for name, shape, *_ in rows
  }
  config, params = maskformer.convert(listed)
  assert config == PRESETS['r101c_b16']
  assert count_parameters(params) == 61_279_168
