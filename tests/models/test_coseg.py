"""CoSeg: counts, shapes, what depends on what, and where gradients go."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_coseg import tiny

from ovs_jax.core.images import central_square
from ovs_jax.core.tree import count_parameters, flatten, unflatten
from ovs_jax.models import coseg
from ovs_jax.models.coseg import PRESETS, CoSeg, CoSegConfig, slot_labels
from ovs_jax.models.coseg_slots import sine_waves
from ovs_jax.models.layers import sine_position
from ovs_jax.ops.resize import resize_bilinear

PIXELS = np.random.default_rng(5).integers(0, 256, (1, 8, 12, 3)).astype(np.uint8)
IMAGE = jnp.asarray(PIXELS)


@functools.cache
def shapes_of(config):
  return jax.eval_shape(lambda k: coseg.init_coseg(config, k), jax.random.key(0))


@functools.cache
def drawn(config):
  rng = np.random.default_rng(0)
  leaves = flatten(shapes_of(config))
  return unflatten(
    {k: jnp.asarray(0.3 * rng.normal(size=v.shape), v.dtype) for k, v in leaves.items()}
  )


@functools.cache
def encoded(config):
  """Returns what the frozen CLIP gives for `IMAGE`, a grid of 2 x 3 patches."""
  run = jax.jit(lambda p: CoSeg(config).apply({'params': p}, IMAGE, method='encode'))
  return run(drawn(config))


@functools.cache
def program(config):
  return jax.jit(
    lambda params, activations, patches, **changes: CoSeg(config).apply(
      {'params': params}, activations, patches, (2, 3), method='predict', **changes
    )
  )


def predict(config, patches=None, **changes):
  activations, found = encoded(config)
  patches = found if patches is None else patches
  return program(config)(drawn(config), activations, patches, **changes)


def trained(config):
  """Predicts as in training, without dropout."""
  activations, patches = encoded(config)
  model = dataclasses.replace(
    config,
    language=dataclasses.replace(config.language, dropout=0.0),
    decoder=dataclasses.replace(config.decoder, dropout=0.0),
  )
  run = functools.partial(CoSeg(model).apply, method='predict', train=True)
  return jax.jit(lambda *given: run({'params': drawn(config)}, *given, (2, 3)))(
    activations, patches
  )


@pytest.mark.parametrize(
  'kind, language', [('prefix', 25_219_072), ('cross', 29_425_664)]
)
def test_parameter_counts(kind, language):
  shapes = shapes_of(PRESETS[kind])
  assert count_parameters(shapes['language']) == language + 10_240
  assert shapes['language']['slots']['tokens'].shape == (20, 512)
  assert count_parameters(shapes['decoder']) == 2_485_441
  assert set(shapes) == {'clip', 'language', 'decoder'}


@pytest.mark.parametrize('kind', PRESETS)
def test_shapes_of_the_paper(kind):
  config = PRESETS[kind]
  image = jax.ShapeDtypeStruct((32, 224, 224, 3), jnp.uint8)

  def run(params, image):
    activations, patches = CoSeg(config).apply(
      {'params': params}, image, method='encode'
    )
    out = CoSeg(config).apply({'params': params}, image)
    assert out.log_areas is None
    return activations, patches, out.tokens, out.logits

  activations, patches, tokens, logits = jax.eval_shape(run, shapes_of(config), image)
  assert [x.shape for x in activations] == [(32, 197, 768)] * 3
  assert patches.shape == (32, 196, 512)
  assert tokens.shape == (32, 20, 512)
  assert logits.shape == (32, 20, 224, 224)


def test_sine_waves():
  waves = np.asarray(sine_waves(3, 4))
  want = [np.sin(2), np.cos(2), np.sin(0.02), np.cos(0.02)]
  np.testing.assert_allclose(waves[2], want, atol=1e-6)
  np.testing.assert_allclose(waves[0], [0, 1, 0, 1], atol=1e-6)


@pytest.mark.parametrize('kind', PRESETS)
def test_the_order_of_patches_plays_no_part(kind):
  config = tiny(kind)
  patches = encoded(config)[1]
  got = predict(config, patches[:, ::-1]).tokens
  np.testing.assert_allclose(got, predict(config).tokens, rtol=1e-4, atol=1e-5)
  assert not np.allclose(got, predict(config, 2 * patches).tokens, atol=1e-3)


@pytest.mark.parametrize('kind', PRESETS)
def test_sine_positions_give_patches_their_places(kind):
  wide = {'clip': dataclasses.replace(tiny().clip, embed_dim=12)}
  language = dataclasses.replace(tiny(kind).language, image_position='sine')
  config = dataclasses.replace(tiny(kind), language=language, **wide)
  patches = encoded(config)[1]
  got = predict(config).tokens
  assert not np.allclose(predict(config, patches[:, ::-1]).tokens, got, atol=1e-3)
  waves = sine_position(2, 3, patches.shape[-1])[None]
  plain = dataclasses.replace(tiny(kind), **wide)
  given = drawn(plain), encoded(config)[0], patches + waves
  np.testing.assert_allclose(program(plain)(*given).tokens, got, rtol=1e-4, atol=1e-5)
  with pytest.raises(ValueError, match='no multiple of 4, which sine waves need'):
    tiny(kind, language={'image_position': 'sine'})


@pytest.mark.parametrize('kind', PRESETS)
def test_tokens_of_every_block_are_noted(kind):
  config = tiny(kind, language={'pre_norm': True})
  activations, patches = encoded(config)
  out, seen = CoSeg(config).apply(
    {'params': drawn(config)},
    activations,
    patches,
    (2, 3),
    method='predict',
    mutable=['intermediates'],
  )
  tokens = seen['intermediates']['language']['tokens']
  layers = config.language.decoder_layers or config.language.encoder_layers
  assert len(tokens) == layers
  np.testing.assert_array_equal(tokens[-1], out.tokens)
  assert layers == 1 or not np.allclose(tokens[0], tokens[-1], atol=1e-2)


def test_texts_are_decoded_beside_the_slots():
  config = tiny(size_embedding='slot')
  texts = jnp.asarray(np.random.default_rng(1).normal(size=(1, 6, 10)), jnp.float32)
  out, free = predict(config, beside=texts), predict(config)
  np.testing.assert_array_equal(out.logits, free.logits)
  assert free.beside is None
  plain = tiny()
  params = {k: v for k, v in drawn(config).items() if k != 'size'}
  want, _ = CoSeg(plain).apply(
    {'params': params}, encoded(config)[0], texts, (2, 3), method='masks'
  )
  np.testing.assert_allclose(out.beside, want, atol=1e-5)


def test_what_is_under_a_mask_adds_to_its_token():
  draw = np.random.default_rng(0)
  patches = draw.normal(size=(1, 6, 3)).astype(np.float32)
  # The first slot's mask covers patch 4 and half of patch 5, the other nothing else.
  logits = np.full((1, 2, 4, 6), -30.0, np.float32)
  logits[0, 0, 2:4, 2:4] = logits[0, 0, 2, 4:6] = logits[0, 1, :2, :2] = 30.0
  tokens = np.array([[[2.0, 0, 0], [0, 0, 5.0]]], np.float32)
  got = coseg.pooled(*map(jnp.asarray, (tokens, logits, patches)), (2, 3), share=0.5)
  under = np.stack([patches[0, 4] + patches[0, 5] / 2, patches[0, 0]])
  under /= np.linalg.norm(under, axis=1, keepdims=True)
  want = np.eye(3)[[0, 2]] + 0.5 * under
  np.testing.assert_allclose(got[0], want, atol=1e-5)
  # Only where names are compared: training and the decoder know nothing of it.
  config, with_pool = tiny(), tiny(pool=0.5)
  plain, out = predict(config), predict(with_pool)
  np.testing.assert_array_equal(plain.logits, out.logits)
  args = plain.tokens, plain.logits, encoded(config)[1], (2, 3)
  np.testing.assert_allclose(out.tokens, coseg.pooled(*args, share=0.5), atol=1e-5)
  np.testing.assert_allclose(trained(with_pool).tokens, plain.tokens, atol=1e-5)
  stored = config.to_dict()
  del stored['pool']  # of a checkpoint from before
  assert CoSegConfig.from_dict(stored) == config


def test_masks_of_training_have_the_size_of_the_last_layer():
  small_head = dataclasses.replace(tiny().decoder, strides=(2, 1))
  config = dataclasses.replace(tiny(), decoder=small_head)
  small = trained(config).logits
  whole = predict(config).logits
  side = config.clip.patch
  assert whole.shape == (1, 4, 2 * side, 3 * side) and small.shape == (1, 4, 4, 6)
  np.testing.assert_allclose(resize_bilinear(small, whole.shape[2:]), whole, atol=1e-5)


@pytest.mark.parametrize('kind', PRESETS)
def test_slots_see_each_other_only_with_context(kind):
  def moved(context):
    config = tiny(kind, language={'context': context})
    params = drawn(config)
    patches = encoded(config)[1]

    def tokens(table):
      language = {**params['language'], 'slots': {'tokens': table}}
      run = program(config)
      return run({**params, 'language': language}, encoded(config)[0], patches).tokens

    table = params['language']['slots']['tokens']
    change = tokens(table.at[1].add(1.0)) - tokens(table)
    return (np.abs(change[0]).max(axis=1) > 1e-5).tolist()

  assert moved(True) == [True] * 4
  assert moved(False) == [False, True, False, False]


def test_masks_follow_their_conditions():
  config = tiny()
  activations, _ = encoded(config)
  condition = jnp.asarray(np.random.default_rng(1).normal(size=(1, 4, 10)), jnp.float32)

  @jax.jit
  def masks(condition):
    return CoSeg(config).apply(
      {'params': drawn(config)}, activations, condition, (2, 3), method='masks'
    )[0]

  got = masks(condition)
  assert got.shape == (1, 4, 8, 12)
  order = jnp.array([2, 0, 3, 1])
  np.testing.assert_allclose(masks(condition[:, order]), got[:, order], atol=1e-5)
  # Texts in the place of tokens: teacher forcing, for chosen slots.
  forced = jnp.array([[True, False, False, True]])
  out = predict(config, texts=condition, forced=forced)
  free = predict(config)
  np.testing.assert_allclose(out.logits[:, 0], got[:, 0], atol=1e-5)
  np.testing.assert_allclose(out.logits[:, 1:3], free.logits[:, 1:3], atol=1e-5)
  np.testing.assert_array_equal(out.tokens, free.tokens)


def test_gradients_go_where_they_should():
  config = tiny('cross')
  params = drawn(config)

  @jax.jit
  def gradients(params):
    def loss(params):
      out = CoSeg(config).apply({'params': params}, IMAGE)
      return jnp.mean(out.logits**2)

    return jax.grad(loss)(params)

  grads = flatten(gradients(params))
  for path, grad in grads.items():
    if not path.endswith('k/bias'):  # zero in theory
      assert bool(np.any(grad != 0)) != path.startswith('clip/'), path
  assert np.abs(grads['language/slots/tokens']).max() > 0


@pytest.mark.parametrize('kind', ['slot', 'area'])
def test_sizes_can_be_told_to_the_decoder(kind):
  config = tiny(size_embedding=kind)
  out = predict(config)
  assert (out.log_areas is None) == (kind == 'slot')
  want = {'slot': {'size/slots': (4, 10)}, 'area': {'size/area/kernel': (10, 1)}}
  leaves = flatten(shapes_of(config))
  for path, shape in want[kind].items():
    assert leaves[path].shape == shape


def test_options_change_what_they_say():
  config = tiny(
    'cross',
    language={
      'pre_norm': True,
      'slot_position': 'learned',
      'image_position': 'learned',
    },
    language_out=True,
    condition_norm='l2_scaled',
    condition_scale=8.0,
    patch_norm=False,
    statistics='imagenet',
  )
  leaves = flatten(shapes_of(config))
  for path in (
    'language/ln_final/scale',
    'language/slots/image_position',
    'out/kernel',
  ):
    assert path in leaves
  assert CoSegConfig.from_dict(config.to_dict()) == config
  with pytest.raises(ValueError, match="unknown size_embedding 'big'"):
    tiny(size_embedding='big')
  with pytest.raises(ValueError, match="a 'prefix' model with 2 decoder_layers"):
    dataclasses.replace(tiny().language, decoder_layers=2)
  with pytest.raises(ValueError, match='num_slots 0 must be'):
    dataclasses.replace(tiny().language, num_slots=0)


def test_labels_of_slots():
  anchors = jnp.eye(3)
  tokens = jnp.array([[[0.1, 5, 0], [0, 0, 2], [3, 1, 0]]])
  labels, cosines = slot_labels(tokens, anchors)
  assert labels.tolist() == [[1, -1, 0]]  # the last anchor is "unlabeled"
  assert cosines.shape == (1, 3, 3)


def test_the_view_of_clip():
  image = np.zeros((10, 30, 3), np.uint8)
  image[:, 10:20] = 255
  view = central_square(image, 10)
  assert view.shape == (10, 10, 3) and (view == 255).all()
