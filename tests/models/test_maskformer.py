"""The proposer: counts, shapes, padding, and values against another computation."""

import dataclasses
import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ovs_jax.convert import maskformer as convert_maskformer
from ovs_jax.core.tree import count_parameters
from ovs_jax.models.layers import sine_position
from ovs_jax.models.maskformer import (
  PRESETS,
  MaskFormer,
  MaskFormerConfig,
  init_maskformer,
)
from ovs_jax.models.ovseg import pad_image
from ovs_jax.models.pixel_decoder import upsample_nearest

GOLDEN = pathlib.Path(__file__).parents[1] / 'goldens' / 'proposer.npz'


@functools.cache
def shapes_of(config):
  return jax.eval_shape(lambda k: init_maskformer(config, k), jax.random.key(0))


def test_parameter_counts():
  shapes = shapes_of(PRESETS['r101c_b16'])
  counts = {name: count_parameters({name: tree}) for name, tree in shapes.items()}
  assert counts == {
    'backbone': 42_729_664,
    'pixel_decoder': 7_540_480,
    'query_decoder': 10_023_168,
    'mask_embed': 197_376,
    'class_embed': 787_968,
    'no_object': 512,
  }


def test_output_shapes_at_full_size():
  config = PRESETS['r101c_b16']
  image = jax.ShapeDtypeStruct((2, 512, 704, 3), jnp.float32)
  for all_layers, layers in ((True, 6), (False, 1)):

    def propose(params, image, all_layers=all_layers):
      out = MaskFormer(config).apply({'params': params}, image, all_layers=all_layers)
      return out.embeddings, out.mask_logits, out.no_object

    shapes = jax.eval_shape(propose, shapes_of(config), image)
    assert [x.shape for x in shapes] == [
      (layers, 2, 100, 512),
      (layers, 2, 100, 128, 176),
      (1, 512),
    ]


def test_values_against_independent_computation():
  with np.load(GOLDEN) as f:
    golden = {k: f[k] for k in f.files}
  weights = {k[2:]: v for k, v in golden.items() if k[:2] == 'w/'}
  stored = json.loads(str(golden['config_json']))
  # Shapes do not tell the numbers of heads and groups.
  config = dataclasses.replace(
    convert_maskformer.infer_config(weights),
    heads=stored['heads'],
    groups=stored['groups'],
  )
  config, params = convert_maskformer.convert(weights, config)
  image = jnp.asarray(golden['image'], jnp.float32)[None]
  run = jax.jit(
    lambda p, x: MaskFormer(config).apply({'params': p}, x, all_layers=True)
  )
  out = run(params, image)
  np.testing.assert_allclose(
    out.embeddings[:, 0], golden['embeddings'], rtol=1e-4, atol=1e-4
  )
  np.testing.assert_allclose(
    out.mask_logits[:, 0], golden['mask_logits'], rtol=1e-4, atol=1e-4
  )
  np.testing.assert_allclose(out.no_object, golden['no_object'], rtol=1e-6)


def test_padding_is_zero_after_normalisation():
  image = jnp.full((40, 33, 3), 7.0)
  padded = pad_image(image, 32)
  assert padded.shape == (64, 64, 3)
  np.testing.assert_array_equal(padded[:40, :33], image)
  np.testing.assert_array_equal(
    padded[40:], np.broadcast_to(np.float32([123.675, 116.28, 103.53]), (24, 64, 3))
  )


def test_sine_encoding():
  grid = np.asarray(sine_position(2, 3, 8)).reshape(2, 3, 8)
  first = [0, -1, 0.0314, 0.9995, 0.866, -0.5, 0.0209, 0.9998]
  last = [0, 1, 0.0628, 0.998, 0, 1, 0.0628, 0.998]
  np.testing.assert_allclose(grid[0, 0], first, atol=6e-5)
  np.testing.assert_allclose(grid[1, 2], last, atol=6e-5)


def test_nearest_upsampling_of_odd_sizes():
  x = jnp.arange(6.0).reshape(1, 2, 3, 1)
  y = upsample_nearest(x, (3, 5))[0, :, :, 0]
  np.testing.assert_array_equal(y[0], [0, 0, 1, 1, 2])
  np.testing.assert_array_equal(y[:, 0], [0, 0, 3])


def test_config_survives_json():
  config = PRESETS['tiny']
  config = dataclasses.replace(config, backbone=config.backbone_config())
  stored = json.loads(json.dumps(dataclasses.asdict(config)))
  assert MaskFormerConfig(**stored) == config
  with pytest.raises(ValueError, match='unknown backbone'):
    dataclasses.replace(config, backbone='r101').backbone_config()
