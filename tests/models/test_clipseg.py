"""CLIPSeg: counts, shapes, values against NumPy, sharing, chunks, and errors."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_clipseg
from tiny_clipseg import TINY

from ovs_jax.core.tree import count_parameters, flatten, unflatten
from ovs_jax.inference.clipseg_prompts import average, squash, visual_prompt
from ovs_jax.models import clipseg, clipseg_decoder
from ovs_jax.models.clip import Clip
from ovs_jax.models.clipseg import PRESETS, ClipSeg, ClipSegConfig
from ovs_jax.models.clipseg_decoder import ClipSegDecoder, init_decoder, strides_for


@functools.cache
def shapes_of(config):
  return jax.eval_shape(lambda k: clipseg.init_clipseg(config, k), jax.random.key(0))


@functools.cache
def drawn(config):
  """Returns parameters of which none is 0 or 1, so that no wrong path is hidden."""
  rng = np.random.default_rng(0)
  leaves = flatten(shapes_of(config))
  return unflatten(
    {k: jnp.asarray(0.2 * rng.normal(size=v.shape), v.dtype) for k, v in leaves.items()}
  )


def inputs(*shape, seed=1):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.normal(size=shape), jnp.float32)


@pytest.mark.parametrize(
  'name, decoder, everything',
  [
    ('rd64', 1_122_369 - 49_216, 150_693_890),  # less the layer that nothing reads
    ('rd64_refined', 1_176_225 - 49_216, 150_747_746),
    ('rd16', 263_681, 149_884_418),
  ],
)
def test_parameter_counts(name, decoder, everything):
  shapes = shapes_of(PRESETS[name])
  assert count_parameters(shapes['decoder']) == decoder
  assert count_parameters(shapes) == everything


def test_the_decoder_of_coseg():
  config = clipseg_decoder.PRESETS['coseg']
  shapes = jax.eval_shape(
    lambda key: init_decoder(config, key, width=768, embed_dim=512), jax.random.key(0)
  )
  counts = {name: count_parameters({name: x}) for name, x in shapes.items()}
  assert counts['film_mul'] + counts['film_add'] == 131_328
  assert sum(counts[f'reduce_{i}'] for i in range(3)) == 295_296
  assert sum(counts[f'block_{i}'] for i in range(3)) == 1_779_072
  assert counts['head'] == 279_745
  assert sum(counts.values()) == 2_485_441


@pytest.mark.parametrize('name', PRESETS)
def test_shapes_at_full_size(name):
  config = PRESETS[name]

  def run(params, image, condition):
    return ClipSeg(config).apply({'params': params}, image, condition)

  for size in ((352, 352), (224, 480)):
    image = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
    condition = jax.ShapeDtypeStruct((2, 5, 512), jnp.float32)
    out = jax.eval_shape(run, shapes_of(config), image, condition)
    assert out.shape == (2, 5, *size)


class Reference:
  """The decoder once more, for one image and condition, in NumPy and float64."""

  def __init__(self, config, params):
    self.config = config
    self.params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)

  def linear(self, x, name):
    return x @ self.params[name]['kernel'] + self.params[name]['bias']

  def norm(self, x, p):
    x = x - x.mean(axis=-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-5)
    return x * p['scale'] + p['bias']

  def attention(self, x, p):
    q, k, v = (
      np.einsum('nd,dhe->hne', x, p[i]['kernel']) + p[i]['bias'][:, None] for i in 'qkv'
    )
    scores = np.einsum('hne,hme->hnm', q, k) / np.sqrt(q.shape[-1])
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return (
      np.einsum('hnm,hme,hed->nd', weights, v, p['out']['kernel']) + (p['out']['bias'])
    )

  def block(self, x, name):
    p = self.params[name]
    x = self.norm(x + self.attention(x, p['attn']), p['ln_1'])
    hidden = np.maximum(x @ p['c_fc']['kernel'] + p['c_fc']['bias'], 0)
    x = x + hidden @ p['c_proj']['kernel'] + p['c_proj']['bias']
    return self.norm(x, p['ln_2'])

  def up(self, x, p):
    s = p['kernel'].shape[1]
    out = np.zeros((x.shape[0] * s, x.shape[1] * s, p['kernel'].shape[3]))
    for i in range(s):
      for j in range(s):
        out[i::s, j::s] = x @ p['kernel'][:, i, j] + p['bias']
    return out

  def head(self, x):
    p = self.params['head']
    if self.config.head == 'simple':
      return self.up(x, p['out'])[..., 0]
    wide = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    y = sum(
      wide[i : i + x.shape[0], j : j + x.shape[1]] @ p['conv']['kernel'][i, j]
      for i in range(3)
      for j in range(3)
    )
    y = np.maximum(y + p['conv']['bias'], 0)
    return self.up(np.maximum(self.up(y, p['up']), 0), p['out'])[..., 0]

  def __call__(self, activations, condition, grid):
    c = self.config
    ordered = activations[::-1] if c.order == 'deep_first' else activations
    x = 0
    for step, activation in enumerate(ordered):
      x = x + self.linear(
        activation if c.keep_class else activation[1:], f'reduce_{step}'
      )
      suffix = '' if c.film_shared else f'_{step}'
      for place in ('before', 'after'):
        if place == 'after':
          x = self.block(x, f'block_{step}')
        if step in c.film_steps and c.film_position == place:
          x = x * self.linear(condition, f'film_mul{suffix}')
          x = x + self.linear(condition, f'film_add{suffix}')
    x = x[1:] if c.keep_class else x
    return self.head(x.reshape(*grid, -1))


VARIANTS = {
  'clipseg': {},
  'simple': {'head': 'simple', 'strides': (4,)},
  'coseg': {'film_steps': (0, 1, 2), 'film_position': 'after', 'keep_class': False},
  'own maps': {'film_steps': (1, 2), 'film_shared': False, 'order': 'shallow_first'},
}


@pytest.mark.parametrize('variant', VARIANTS)
def test_the_decoder_against_numpy(variant):
  config = tiny_clipseg.with_decoder(**VARIANTS[variant])
  params = drawn(config)['decoder']
  activations = tuple(inputs(2, 7, 64, seed=i) for i in range(3))
  condition = inputs(2, 3, 10)
  decoder = ClipSegDecoder(config.decoder, jnp.float32)
  got = jax.jit(
    lambda a, c: decoder.apply({'params': params}, a, c, (2, 3)),
  )(activations, condition)
  assert got.shape == (2, 3, 8, 12)
  reference = Reference(config.decoder, params)
  for b in range(2):
    for k in range(3):
      want = reference(
        [np.asarray(a[b], np.float64) for a in activations],
        np.asarray(condition[b, k], np.float64),
        (2, 3),
      )
      np.testing.assert_allclose(got[b, k], want, rtol=1e-4, atol=1e-5)


def test_the_first_block_runs_once_per_image_if_it_can():
  def rows(**changes):
    config = tiny_clipseg.with_decoder(**changes)
    decoder = ClipSegDecoder(config.decoder, jnp.float32)

    def run(params, activations, condition):
      return decoder.apply(
        {'params': params},
        activations,
        condition,
        (1, 2),
        capture_intermediates=lambda m, _: (m.name or '').startswith('block_'),
        mutable=['intermediates'],
      )[1]['intermediates']

    shapes = jax.eval_shape(
      run,
      shapes_of(config)['decoder'],
      tuple(inputs(2, 3, 64) for _ in range(3)),
      inputs(2, 5, 10),
    )
    return [shapes[f'block_{i}']['__call__'][0].shape[0] for i in range(3)]

  assert rows() == [10, 10, 10]
  assert rows(**VARIANTS['coseg']) == [2, 10, 10]


def test_activations_are_those_of_the_blocks():
  config, params = TINY, drawn(TINY)
  model = ClipSeg(config)
  image = inputs(1, 8, 8, 3)
  out = jax.jit(
    lambda image: Clip(config.clip).apply(
      {'params': params['clip']}, image, (0, 1, 2), method='features'
    )
  )(image)
  first, second, third = (out[i] for i in range(3))
  # The pooled embedding of a CLIP is made of its last block's class token.
  vision = params['clip']['visual']
  x = third[:, 0] - third[:, 0].mean(axis=-1, keepdims=True)
  x = x / jnp.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-5)
  x = x * vision['ln_post']['scale'][None] + vision['ln_post']['bias'][None]

  @jax.jit
  def others(image):
    run = functools.partial(model.apply, {'params': params})
    embedded = Clip(config.clip).apply(
      {'params': params['clip']}, image, method='encode_image'
    )
    # Blocks that nothing asked for are not computed, and change nothing.
    alone = Clip(config.clip).apply(
      {'params': params['clip']}, image, (1,), method='features'
    )
    return embedded, run(image, method='encode_prompt_image'), alone[1]

  embedded, prompt, alone = others(image)
  np.testing.assert_allclose(x @ vision['proj'], embedded, rtol=1e-4, atol=1e-5)
  np.testing.assert_array_equal(prompt, embedded)
  np.testing.assert_allclose(alone, second, rtol=1e-5, atol=1e-6)
  assert not np.allclose(first, second)


def test_prompts_in_chunks_are_the_prompts_at_once():
  params = drawn(TINY)
  image, conditions = inputs(2, 8, 12, 3), inputs(7, 10)
  got = clipseg.segment(TINY, params, image, conditions)
  assert got.shape == (2, 7, 8, 12)
  once = jax.jit(lambda c: ClipSeg(TINY).apply({'params': params}, image, c))(
    jnp.broadcast_to(conditions[None], (2, 7, 10))
  )
  np.testing.assert_allclose(got, once, rtol=1e-4, atol=1e-5)
  one = clipseg.segment(TINY, params, image, conditions[3:4])
  np.testing.assert_allclose(one, got[:, 3:4], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  ('count', 'decoded'), [(1, [1]), (5, [6]), (17, [16, 1]), (28, [16, 12]), (9, [12])]
)
def test_few_prompts_are_padded(monkeypatch, count, decoded):
  params, seen = drawn(TINY), []

  def decode(config, params, activations, condition, size):
    seen.append(condition.shape[1])
    return jnp.asarray(condition[:, :, :1, None])

  monkeypatch.setattr(clipseg, 'decode', decode)
  config = dataclasses.replace(TINY, chunk=16)
  activations = (inputs(2, 3, 4),)
  conditions = inputs(count, 10)
  parts = clipseg.decode_chunks(config, params, activations, conditions, (8, 12))
  got = np.concatenate([logits for _, logits in parts], axis=1)
  np.testing.assert_array_equal(got[1, :, 0, 0], conditions[:, 0])
  assert seen == decoded


def test_sizes_of_programs():
  assert [clipseg.few(n) for n in (1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33)] == [
    1,
    2,
    3,
    4,
    6,
    8,
    12,
    16,
    24,
    32,
    48,
  ]
  assert max(clipseg.few(n) / n for n in range(1, 2000)) <= 1.5
  assert len({clipseg.few(n) for n in range(1, 33)}) == 10


def test_two_thousand_prompts(monkeypatch):
  params = drawn(TINY)
  seen = []
  encode = clipseg.encode
  monkeypatch.setattr(clipseg, 'encode', lambda *a: seen.append(1) or encode(*a))
  config = dataclasses.replace(TINY, chunk=512)
  conditions = np.tile(inputs(10, 10), (200, 1))
  got = clipseg.segment(config, params, inputs(1, 8, 12, 3), conditions)
  assert got.shape == (1, 2000, 8, 12)
  np.testing.assert_array_equal(got[:, :10], got[:, 500:510])
  assert len(seen) == 1  # CLIP saw the image once


def test_no_gradient_reaches_clip():
  params = drawn(TINY)
  image, condition = inputs(1, 8, 8, 3), inputs(1, 1, 10)

  def loss(params):
    return jnp.sum(ClipSeg(TINY).apply({'params': params}, image, condition) ** 2)

  grads = flatten(jax.jit(jax.grad(loss))(params))
  for path, grad in grads.items():
    moves = path.startswith('decoder/') and not path.endswith('k/bias')
    if not path.endswith('k/bias'):  # zero in theory
      assert bool(np.any(grad != 0)) == moves, path


def test_mistakes():
  params = drawn(TINY)
  image = inputs(1, 8, 8, 3)
  with pytest.raises(ValueError, match='no prompts given'):
    clipseg.segment(TINY, params, image, np.zeros((0, 10)))
  with pytest.raises(ValueError, match='no prompts given'):
    clipseg.embed_texts(TINY.clip, params['clip'], [], lambda s: None)
  with pytest.raises(ValueError, match='prompts have 9 dimensions, this CLIP .* in 10'):
    clipseg.segment(TINY, params, image, np.zeros((2, 9)))
  with pytest.raises(ValueError, match='3x8 pixels, less than a patch of 4x4'):
    clipseg.segment(TINY, params, inputs(1, 3, 8, 3), np.zeros((2, 10)))
  with pytest.raises(ValueError, match='8x9 pixels; both sides must be multiples'):
    clipseg.segment(TINY, params, inputs(1, 8, 9, 3), np.zeros((2, 10)))
  other = dataclasses.replace(TINY.clip, vision_width=128, vision_heads=2)
  other = dataclasses.replace(TINY, clip=other)
  with pytest.raises(ValueError, match='CLIP of width 64 .* given has width 128'):
    clipseg.segment(other, params, image, np.zeros((2, 10)))


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'order': 'deepest'}, "unknown decoder order 'deepest'"),
    ({'film_steps': (3,)}, 'must be steps of 3'),
    ({'strides': (4,)}, 'complex head has 2 transposed'),
    ({'extract': (0, 2, 1)}, 'must be ascending'),
    ({'extract': (0, 1, 3)}, 'more than the 3 blocks'),
    ({'heads': 3}, 'not a multiple of 3 heads'),
  ],
)
def test_sizes_that_do_not_fit(changes, message):
  with pytest.raises(ValueError, match=message):
    tiny_clipseg.with_decoder(**changes)


def test_strides_and_configurations():
  for patch, strides in ((16, (4, 4)), (8, (4, 2)), (14, (7, 2)), (32, (8, 4))):
    assert strides_for(patch, 'complex') == strides
  assert strides_for(14, 'simple') == (14,)
  assert ClipSegConfig.from_dict(TINY.to_dict()) == TINY


def test_visual_prompts():
  image = np.ones((20, 30, 3), np.float32)
  mask = np.zeros((20, 30), bool)
  mask[5:15, 10:20] = True
  got = visual_prompt(image, mask, 12)
  # A box of 10 and one pixel on each side; the blur of a constant is the constant.
  want = np.full((12, 12, 3), 0.1, np.float32)
  want[1:11, 1:11] = 1
  np.testing.assert_allclose(got, want, atol=1e-6)
  mask[:] = False
  mask[0:2, 0:30] = True  # 2 x 30: padded to a square with zeros
  got = visual_prompt(image, mask, 30)
  assert (got[:14] == 0).all() and (got[16:] == 0).all() and (got[14:16] == 1).all()
  point = np.zeros((31, 31, 3), np.float32)
  point[15, 15] = 1
  mask = np.ones((31, 31), bool)
  mask[15, 15] = False
  spread = visual_prompt(point, mask, 31)
  assert 0 < spread[15, 15, 0] < 0.1 * 0.02
  with pytest.raises(ValueError, match='empty'):
    visual_prompt(point, np.zeros((31, 31), bool), 31)
  np.testing.assert_array_equal(average([np.ones(3), np.zeros(3)]), np.full(3, 0.5))


def test_pictures_are_squashed_and_normalised_by_imagenet():
  image = np.full((10, 20, 3), (124, 116, 104), np.uint8)
  small = squash(image, (8, 8))
  assert small.shape == (8, 8, 3) and (small == image[0, 0]).all()
  np.testing.assert_allclose(clipseg.normalise(jnp.asarray(small)), 0, atol=0.01)
  top = clipseg.normalise(jnp.full((1, 1, 3), 255))[0, 0]
  np.testing.assert_allclose(top, [2.2489, 2.4286, 2.64], atol=1e-3)
