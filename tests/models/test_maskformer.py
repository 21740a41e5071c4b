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
from ovs_jax.core.tree import count_parameters, map_with_path
from ovs_jax.models import backbones
from ovs_jax.models.content import bucket_size
from ovs_jax.models.layers import sine_position
from ovs_jax.models.maskformer import (
  IMAGENET_MEAN,
  PRESETS,
  MaskFormer,
  MaskFormerConfig,
  init_maskformer,
)
from ovs_jax.models.ovseg import pad_image
from ovs_jax.models.pixel_decoder import upsample_nearest
from ovs_jax.models.resnet import ResNetConfig
from ovs_jax.ops.resize import resize_bilinear

GOLDEN = pathlib.Path(__file__).parents[1] / 'goldens' / 'proposer.npz'


@functools.cache
def shapes_of(config):
  return jax.eval_shape(lambda k: init_maskformer(config, k), jax.random.key(0))


@pytest.mark.parametrize(
  'name, backbone, pixel_decoder, query_decoder, class_embed, no_object',
  [
    ('r101c_b16', 42_729_664, 7_540_480, 10_023_168, 787_968, 512),
    ('swin_b_l14', 86_880_376, 4_951_808, 9_761_024, 1_050_368, 768),
  ],
)
def test_parameter_counts(
  name, backbone, pixel_decoder, query_decoder, class_embed, no_object
):
  shapes = shapes_of(PRESETS[name])
  counts = {part: count_parameters({part: tree}) for part, tree in shapes.items()}
  assert counts == {
    'backbone': backbone,
    'pixel_decoder': pixel_decoder,
    'query_decoder': query_decoder,
    'mask_embed': 197_376,
    'class_embed': class_embed,
    'no_object': no_object,
  }
  if name == 'swin_b_l14':
    # The reference: 86.88 M, 4.95 M and, for decoder and both heads, 11.01 M.
    heads = counts['query_decoder'] + counts['mask_embed'] + counts['class_embed']
    assert (round(backbone, -4), round(pixel_decoder, -4)) == (86_880_000, 4_950_000)
    assert round(heads, -4) == 11_010_000


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


@pytest.mark.parametrize('backbone', ['tiny', 'swin_mini', 'r50', 'swin_base'])
def test_config_survives_json(backbone):
  config = dataclasses.replace(PRESETS['tiny'], backbone=backbone)
  assert (
    MaskFormerConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config
  )
  config = dataclasses.replace(config, backbone=config.backbone_config())
  stored = json.loads(json.dumps(dataclasses.asdict(config)))
  assert MaskFormerConfig(**stored) == config


def test_a_config_of_before_still_loads():
  stored = dataclasses.asdict(PRESETS['tiny'])
  for added in ('remat', 'num_classes'):
    del stored[added]
  assert MaskFormerConfig(**stored) == PRESETS['tiny']
  backbone = {
    'depths': [3, 4, 23, 3],
    'stem_width': 64,
    'bottleneck': 64,
    'out_width': 256,
    'multi_grid': [1, 2, 4],
    'norm': 'frozen',
    'strides': [1, 2, 2, 2],
  }
  config = MaskFormerConfig(**{**stored, 'backbone': backbone})
  assert config.backbone == backbones.PRESETS['r101c']


def test_mistakes_are_named():
  with pytest.raises(ValueError, match='unknown backbone'):
    dataclasses.replace(PRESETS['tiny'], backbone='r102').backbone_config()
  with pytest.raises(ValueError, match='num_queries must be at least 1, got 0'):
    dataclasses.replace(PRESETS['tiny'], num_queries=0)
  for change, message in (
    ({'groups': 7}, 'pixel_width 48 is not a multiple of 7 groups'),
    ({'heads': 6}, 'width 128 is not a multiple of 6 heads'),
    ({'width': 2, 'heads': 1}, 'width 2 is not a multiple of 1 heads, and of 4'),
  ):
    wrong = MaskFormer(dataclasses.replace(PRESETS['tiny'], **change))
    with pytest.raises(ValueError, match=message):
      jax.eval_shape(wrong.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
  model = MaskFormer(PRESETS['tiny'])
  for size in ((3, 64), (32, 2)):
    with pytest.raises(ValueError, match=f'{size[0]}x{size[1]} pixels is smaller'):
      jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *size, 3)))


SMALL = dataclasses.replace(
  PRESETS['tiny'], pixel_width=16, mask_dim=16, groups=4, width=16, layers=1
)
FROZEN = ResNetConfig((1, 1, 1, 2), 4, 4, 8, (1, 2), 'frozen')


def draw_params(config):
  """Non-trivial parameters, without the compilation of an initialisation."""
  rng = np.random.default_rng(0)

  def draw(path, x):
    if path.endswith(('scale', 'var')):
      return jnp.asarray(rng.uniform(0.5, 1.5, x.shape), jnp.float32)
    fan_in = np.prod(x.shape[:-1]) if x.shape[:-1] else 4
    return jnp.asarray(rng.normal(0, fan_in**-0.5, x.shape), jnp.float32)

  return map_with_path(draw, shapes_of(config))


@pytest.mark.parametrize(
  'backbone',
  [
    'swin_mini',
    pytest.param('tiny', marks=pytest.mark.slow),
    pytest.param(FROZEN, marks=pytest.mark.slow),
  ],
)
def test_the_bucket_does_not_matter(backbone):
  config = dataclasses.replace(SMALL, backbone=backbone)
  params = draw_params(config)
  image = jax.random.uniform(jax.random.key(1), (40, 60, 3), maxval=255)
  run = jax.jit(MaskFormer(config).apply)

  def masks(padded, **options):
    full = jnp.broadcast_to(jnp.float32(IMAGENET_MEAN).reshape(1, 1, 3), (*padded, 3))
    full = full.at[:40, :60].set(image)
    out = run({'params': params}, full[None], **options)
    logits = resize_bilinear(out.mask_logits[-1, 0], padded)
    return out.embeddings, logits[:, :40, :60]

  # The reference pads to 64 x 64 and hides nothing of that.
  want = masks((64, 64))
  scale = np.abs(want[1]).max()
  for size in ((64, 64), (128, 96)):
    got = masks(size, size=jnp.array([40, 60]))
    for x, y in zip(want, got, strict=True):
      np.testing.assert_allclose(y, x, atol=1e-4 * max(1, scale))
  # More padding that is seen changes the result.
  assert np.abs(masks((128, 96))[1] - want[1]).max() > 1e-2 * scale


def test_bucket_sizes():
  assert bucket_size(640, 853) == (640, 896)
  assert bucket_size(1, 64) == (64, 64)
  assert bucket_size(65, 2560) == (96, 2560)
  assert bucket_size(2561, 640) == (5120, 640)
  assert bucket_size(30, 70, sides=(32, 96)) == (32, 96)
  sides = {bucket_size(640, width)[1] for width in range(640, 2561)}
  assert len(sides) == 8  # one program each
  with pytest.raises(ValueError, match='multiples of 32'):
    bucket_size(10, 10, sides=(48,))


def test_bfloat16_changes_little():
  config = dataclasses.replace(SMALL, backbone=FROZEN, layers=1)
  params = draw_params(config)
  image = jax.random.uniform(jax.random.key(1), (1, 32, 64, 3), maxval=255)
  plain, low = (
    jax.jit(MaskFormer(c).apply)({'params': params}, image)
    for c in (config, dataclasses.replace(config, dtype='bfloat16'))
  )
  assert low.mask_logits.dtype == low.embeddings.dtype == jnp.float32
  error = np.abs(low.mask_logits - plain.mask_logits)
  assert 0 < error.mean() < 0.05 * np.abs(plain.mask_logits).mean()


def test_a_closed_set_model_gives_logits():
  config = dataclasses.replace(SMALL, num_classes=7)
  image = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
  params = shapes_of(config)
  assert {'class_embed', 'no_object'}.isdisjoint(params)

  def propose(params, image):
    out = MaskFormer(config).apply({'params': params}, image)
    assert out.no_object is None
    return out.embeddings

  assert jax.eval_shape(propose, params, image).shape == (1, 2, 20, 8)
