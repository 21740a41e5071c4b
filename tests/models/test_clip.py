"""CLIP: counts, shapes, mask prompts, and values against an independent computation."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ovs_jax.convert import clip as convert_clip
from ovs_jax.core.tree import count_parameters
from ovs_jax.models import layers
from ovs_jax.models.clip import (
  PRESETS,
  Clip,
  ClipConfig,
  encode_prompts,
  init_clip,
  trim_tokens,
  unit,
)

GOLDEN = pathlib.Path(__file__).parents[1] / 'goldens' / 'clip.npz'

SMALL = ClipConfig(
  embed_dim=8,
  image_size=12,
  patch=4,
  vision_width=16,
  vision_layers=3,
  vision_heads=2,
  text_width=12,
  text_layers=2,
  text_heads=3,
  context_length=10,
  vocab_size=30,
  prompt_depth=2,
  dtype='float32',
  remat=False,
  unroll=1,
)


@pytest.fixture(scope='module')
def params():
  # Drawing with NumPy spares the compilation of the real initialisation.
  shapes = jax.eval_shape(lambda k: init_clip(SMALL, k), jax.random.key(0))
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), x.dtype), shapes
  )


@pytest.fixture(scope='module')
def image():
  return jax.random.normal(jax.random.key(1), (2, 12, 12, 3))


@functools.partial(jax.jit, static_argnums=0)
def encode(config, params, image, keep=None):
  return Clip(config).apply({'params': params}, image, keep, method='encode_image')


@functools.partial(jax.jit, static_argnums=0)
def encode_text(config, params, tokens):
  return Clip(config).apply({'params': params}, tokens, method='encode_text')


# CLIP's table 20; with prompts of depth 3, OVSeg's released models.
@pytest.mark.parametrize(
  'name, depth, count',
  [
    ('b32', 0, 151_277_313),
    ('b16', 0, 149_620_737),
    ('b16', 3, 150_072_321),
    ('l14', 0, 427_616_513),
    ('l14', 3, 428_402_945),
    ('l14_336', 0, 427_944_193),
    ('l14_336', 3, 429_713_665),
  ],
)
def test_published_sizes(name, depth, count):
  config = dataclasses.replace(PRESETS[name], prompt_depth=depth)
  shapes = jax.eval_shape(lambda k: init_clip(config, k), jax.random.key(0))
  assert count_parameters(shapes) == count


def test_output_shapes_at_full_size():
  config = dataclasses.replace(PRESETS['l14_336'], prompt_depth=3)
  shapes = jax.eval_shape(lambda k: init_clip(config, k), jax.random.key(0))
  image = jax.ShapeDtypeStruct((5, 336, 336, 3), jnp.float32)
  keep = jax.ShapeDtypeStruct((5, 576), jnp.bool_)
  tokens = jax.ShapeDtypeStruct((4, 77), jnp.int32)

  def both(p, image, keep, tokens):
    model = Clip(config)
    return (
      model.apply({'params': p}, image, keep, method='encode_image'),
      model.apply({'params': p}, tokens, method='encode_text'),
    )

  vision, text = jax.eval_shape(both, shapes, image, keep, tokens)
  assert (vision.shape, text.shape) == ((5, 768), (4, 768))
  assert vision.dtype == text.dtype == jnp.float32


def test_values_against_independent_computation():
  with np.load(GOLDEN) as f:
    golden = {k: f[k] for k in f.files}
  weights = {k[2:]: v for k, v in golden.items() if k[:2] == 'w/'}
  # The golden's heads are smaller than 64, which shapes cannot tell.
  config = dataclasses.replace(
    convert_clip.infer_config(weights), vision_heads=2, text_heads=4
  )
  config, params = convert_clip.convert(weights, config)
  pixels = jnp.asarray(golden['image'].transpose(0, 2, 3, 1))
  # float32 against float64: a few units in the last place through four blocks.
  close = dict(rtol=1e-4, atol=1e-5)
  got = encode(config, params, pixels, jnp.asarray(golden['keep']))
  np.testing.assert_allclose(got, golden['masked'], **close)
  np.testing.assert_allclose(encode(config, params, pixels), golden['plain'], **close)
  tokens = jnp.asarray(golden['tokens'])
  text = encode_text(config, params, tokens)
  np.testing.assert_allclose(text, golden['text'], **close)
  assert np.abs(golden['masked'] - golden['plain'])[1:].max() > 0.1


def test_showing_every_patch_equals_the_plain_forward(params, image):
  keep = jnp.ones((2, 9), bool)
  np.testing.assert_array_equal(
    encode(SMALL, params, image, keep), encode(SMALL, params, image)
  )


def test_hidden_patches_do_not_matter_and_shown_ones_do(params, image):
  keep = jnp.ones((2, 9), bool).at[:, 4].set(False)
  hidden = image.at[:, 4:8, 4:8].set(7.0)  # the pixels of patch 4
  shown = image.at[:, 0:4, 0:4].set(7.0)
  want = encode(SMALL, params, image, keep)
  np.testing.assert_array_equal(encode(SMALL, params, hidden, keep), want)
  assert np.abs(encode(SMALL, params, shown, keep) - want).max() > 1e-3


@pytest.mark.parametrize('depth', [0, 1])
def test_each_prompt_acts_only_on_hidden_patches(params, image, depth):
  keep = jnp.array([[True] * 9, [True] * 8 + [False]])
  prompt = params['visual']['mask_prompt']
  step = jnp.arange(16.0)
  changed = prompt.at[depth, :8].add(step[None])  # patches that are shown
  other = {**params, 'visual': {**params['visual'], 'mask_prompt': changed}}
  want = encode(SMALL, params, image, keep)
  np.testing.assert_array_equal(encode(SMALL, other, image, keep), want)
  changed = prompt.at[depth, 8].add(step)
  other = {**params, 'visual': {**params['visual'], 'mask_prompt': changed}}
  got = encode(SMALL, other, image, keep)
  np.testing.assert_array_equal(got[0], want[0])
  assert np.abs(got[1] - want[1]).max() > 1e-4


def test_remat_and_unroll_change_nothing(params, image):
  image, keep = image[:1], jnp.ones((1, 9), bool).at[:, 2:5].set(False)

  @functools.partial(jax.jit, static_argnums=0)
  def gradient(config, params):
    return jax.grad(lambda p: jnp.mean(encode(config, p, image, keep) ** 2))(params)

  want = gradient(SMALL, params)
  fast = dataclasses.replace(SMALL, remat=True, unroll=3)
  got = gradient(fast, params)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), got, want
  )


def test_bfloat16_is_close(params, image):
  half = dataclasses.replace(SMALL, dtype='bfloat16')
  a, b = unit(encode(SMALL, params, image)), unit(encode(half, params, image))
  assert b.dtype == jnp.float32
  assert np.min(np.sum(np.asarray(a * b), axis=1)) > 0.999  # cosines


def test_padding_columns_of_texts_change_nothing(params):
  tokens = np.zeros((3, 10), np.int32)
  tokens[:, :3] = [[1, 29, 0], [1, 5, 29], [29, 0, 0]]
  short = trim_tokens(tokens, 2)
  assert short.shape == (3, 4)
  full = encode_text(SMALL, params, jnp.asarray(tokens))
  cut = encode_text(SMALL, params, jnp.asarray(short))
  np.testing.assert_allclose(full, cut, rtol=1e-5, atol=1e-6)


def test_prompts_are_averaged_as_unit_vectors(params):
  table = {'a': [1, 3, 29], 'b': [1, 4, 29], 'c': [2, 29, 0]}

  def tokenize(texts):
    return np.array([table[t] + [0] * 7 for t in texts], np.int32)

  got = encode_prompts(SMALL, params, [['a', 'b'], ['c']], tokenize, chunk=2)
  ids = jnp.asarray(tokenize(['a', 'b', 'c']))
  rows = np.asarray(unit(encode_text(SMALL, params, ids)))
  mean = rows[:2].mean(axis=0)
  np.testing.assert_allclose(got[0], mean / np.linalg.norm(mean), atol=1e-5)
  np.testing.assert_allclose(got[1], rows[2], atol=1e-5)


def test_wrong_input_sizes_are_named(params):
  with pytest.raises(ValueError, match='sees 12x12 pixels, got 16x16'):
    encode(SMALL, params, jnp.zeros((1, 16, 16, 3)))
  with pytest.raises(ValueError, match='reads 10 tokens, got 11'):
    encode_text(SMALL, params, jnp.zeros((1, 11), int))


def test_activations():
  x = jnp.asarray([-1.0, 0.5, 2.0])
  # x Phi(x) and x sigmoid(1.702 x), by hand.
  np.testing.assert_allclose(
    layers.ACTIVATIONS['gelu'](x), [-0.158655, 0.345731, 1.954500], atol=2e-6
  )
  np.testing.assert_allclose(
    layers.ACTIVATIONS['quick_gelu'](x), [-0.154204, 0.350388, 1.935659], atol=2e-6
  )


def test_what_only_some_clips_have(params, image):
  config = dataclasses.replace(SMALL, vision_mlp=24, text_mlp=20, activation='gelu')
  shapes = jax.eval_shape(lambda k: init_clip(config, k), jax.random.key(0))
  assert shapes['visual']['blocks']['c_fc']['kernel'].shape == (3, 16, 24)
  assert shapes['text']['blocks']['c_proj']['kernel'].shape == (2, 20, 12)
  plain = encode(SMALL, params, image)
  for change in ({'activation': 'gelu'}, {'vision_epsilon': 0.1}):
    other = encode(dataclasses.replace(SMALL, **change), params, image)
    assert 1e-4 < np.abs(other - plain).max() < 3
  with pytest.raises(ValueError, match="unknown activation 'gelU'.*'gelu'"):
    dataclasses.replace(SMALL, activation='gelU')


def test_texts_end_at_the_first_end_token(params):
  config = dataclasses.replace(SMALL, end_token=7)
  tokens = jnp.asarray([[1, 7, 29, 7]])
  want = encode_text(SMALL, params, jnp.asarray([[1, 7]]))
  np.testing.assert_allclose(encode_text(config, params, tokens), want, rtol=1e-5)
  by_largest = encode_text(SMALL, params, tokens)
  assert np.abs(by_largest - want).max() > 1e-3


def test_configurations_written_earlier_still_load():
  old = dataclasses.asdict(SMALL)
  for name in ('activation', 'end_token', 'vision_mlp', 'text_mlp'):
    del old[name]
  del old['vision_epsilon'], old['text_epsilon']
  assert ClipConfig.from_dict(old) == SMALL
  assert SMALL.activation == 'quick_gelu' and SMALL.vision_epsilon == 1e-5
