"""Towers that are not OpenAI's: against the libraries they come from, and shortcuts.

The goldens are of timm, open_clip and transformers; tests/parity_towers.py writes them.
"""

import dataclasses
import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ovs_jax.convert import SOURCES
from ovs_jax.convert.family import Options
from ovs_jax.core.tree import flatten
from ovs_jax.core.types import Array, Params
from ovs_jax.inference.weigh import weigh
from ovs_jax.models import clip_fast, image_kinds, ovseg
from ovs_jax.models.clip import (
  PRESETS,
  Clip,
  ClipConfig,
  encode_prompts,
  init_clip,
  make_vision,
  tokenize,
  trim_tokens,
)
from ovs_jax.models.clip_config import ImageTower, TextTower
from ovs_jax.models.clip_mix import Mix
from ovs_jax.models.stored import check_agreement
from ovs_jax.text import tokenizer

GOLDENS = pathlib.Path(__file__).parents[1] / 'goldens' / 'towers.npz'
with np.load(GOLDENS) as _file:
  NAMES = sorted({name.split('/')[0] for name in _file.files})
SIGLIP = PRESETS['tiny_siglip'].image_tower
KINDS = {
  'siglip': SIGLIP,
  'map_of_class': ImageTower(pool='map', pool_heads=2),
  'mean': ImageTower(pre_norm=False, pool='mean'),
  'class': ImageTower(patch_bias=True, pre_norm=False, projection='bias'),
  'pe': image_kinds.pe(4),
  'eva02': image_kinds.EVA02,
  'eva02_e': image_kinds.EVA02_E,
  'tips': image_kinds.tips(2, gated=False),
}


@functools.cache
def golden(name: str) -> dict[str, np.ndarray]:
  with np.load(GOLDENS) as file:
    start = len(name) + 1
    return {k[start:]: file[k] for k in file.files if k.startswith(f'{name}/')}


@functools.partial(jax.jit, static_argnums=0)
def embed(config: ClipConfig, params: Params, images: Array, tokens: Array):
  model = functools.partial(Clip(config).apply, {'params': params})
  return (
    model(images, method='encode_image'),
    clip_fast.encode_images(config, params, images),
    model(tokens, method='encode_text'),
  )


@pytest.mark.parametrize('name', NAMES)
def test_it_is_what_the_library_computes_and_gives_back_its_weights(name: str) -> None:
  given = golden(name)
  described = json.loads(str(given['json']))
  weights = {
    k[2:]: np.asarray(v, np.float32) for k, v in given.items() if k[:2] == 'w/'
  }
  family = SOURCES[described['family']]
  settings = described['settings']
  assert [n for n, f in SOURCES.items() if f.recognise(weights, settings)] == [
    family.name
  ]
  found = family.convert(weights, settings, Options())
  config = ClipConfig.from_dict(json.loads(json.dumps(found.model['clip'])))
  image, short, text = embed(config, found.params, given['images'], given['ids'])
  for got, want in ((image, 'image'), (short, 'image'), (text, 'text')):
    # float32 against float64.
    np.testing.assert_allclose(got, given[want], atol=3e-6 * np.abs(given[want]).max())
  names = family.names(found.model)
  kept = {name: x for name, x in weights.items() if name not in found.constants}
  assert sorted(n.removeprefix('text.') for n in kept) == sorted(
    n.removeprefix('text.') for n in names
  )
  back = family.export(found.params, found.model, names)
  for key, value in back.items():
    np.testing.assert_array_equal(value, found.tensors[key])


def test_the_goldens_differ_in_what_is_computed() -> None:
  """Each thing that towers do otherwise is in one of them."""
  found: dict[str, set[str]] = {}
  for name in NAMES:
    described = json.loads(str(golden(name)['json']))
    weights = {
      k[2:]: v.astype(np.float32) for k, v in golden(name).items() if 'w/' in k
    }
    family = SOURCES[described['family']]
    model = family.convert(weights, described['settings'], Options()).model['clip']
    parts = {
      **model['image_tower'],
      **{f't_{k}': v for k, v in model['text_tower'].items()},
    }
    parts |= {'end': model['end_token'] > 0, 'scores': model['scores']}
    for key, value in parts.items():
      found.setdefault(key, set()).add(str(value))
  assert found['pool'] == {'class', 'map', 'mean'}
  assert found['t_pool'] == {'end', 'last', 'mean'}
  assert found['t_positions'] == {'learned', 'sinusoidal'}
  assert found['registers'] == {'0', '1'}
  assert found['projection'] == {'matrix', 'bias', 'none', 'mlp'}
  assert found['scores'] == {'softmax', 'sigmoid'} and found['end'] == {'True', 'False'}
  assert found['rope'] == {'', 'eva', 'pe'}
  for key in (
    *('class_token', 'patch_bias', 'pre_norm', 'norm_after', 'gated', 'inner_norms'),
    *('key_bias', 't_causal', 't_hide_padding', 't_scale_tokens'),
  ):
    assert found[key] == {'True', 'False'}, key


def sized(kind: ImageTower, depth: int = 0) -> ClipConfig:
  """A CLIP of 3 x 3 patches with 2 heads, and prompts so deep."""
  kind = dataclasses.replace(kind, pool_heads=2 if kind.pool == 'map' else 0)
  return dataclasses.replace(
    PRESETS['tiny'],
    image_size=12,
    patch=4,
    embed_dim=16,
    vision_width=16,
    vision_layers=2,
    vision_heads=2,
    vocab_size=30,
    prompt_depth=depth,
    image_tower=kind,
  )


@functools.cache
def drawn(config: ClipConfig) -> Params:
  shapes = jax.eval_shape(lambda k: init_clip(config, k), jax.random.key(0))
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), x.dtype), shapes
  )


@functools.partial(jax.jit, static_argnums=0)
def every_way(config: ClipConfig, params: Params, image: Array, keep: Array):
  return (
    Clip(config).apply({'params': params}, image, keep, method='encode_image'),
    clip_fast.encode_images(config, params, image, keep),
    clip_fast.encode_crops(config, params, image, keep),
  )


KEEP = np.array([[1, 1, 0, 0, 1, 0, 1, 1, 0], [0, 0, 0, 0, 0, 1, 0, 0, 0]], bool)


@pytest.mark.parametrize('name', KINDS)
def test_mask_prompts_hide_patches_whatever_the_tower(name: str) -> None:
  config, rng = sized(KINDS[name], depth=2), np.random.default_rng(1)
  params = drawn(config)
  image = rng.normal(size=(2, 12, 12, 3)).astype(np.float32)
  hidden = np.repeat(np.repeat(~KEEP.reshape(2, 3, 3), 4, axis=1), 4, axis=2)
  other = np.where(hidden[..., None], rng.normal(size=image.shape), image)
  want, *short = every_way(config, params, image, KEEP)
  for got in short:
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
  for got in every_way(config, params, other.astype(np.float32), KEEP):
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
  # What is shown counts, and so does what stands in.
  changed = np.where(hidden[..., None], image, image + 1)
  assert np.abs(every_way(config, params, changed, KEEP)[0] - want).max() > 1e-2
  if config.image_tower.pool != 'mean':
    own, other = params['visual']['mask_prompt'], rng.normal(size=(2, 9, 16))
    prompts = jnp.where(KEEP.any(axis=0)[None, :, None], own, other)
    moved = {**params, 'visual': {**params['visual'], 'mask_prompt': prompts}}
    assert np.abs(every_way(config, moved, image, KEEP)[0] - want).max() > 1e-3


@pytest.mark.parametrize('name', KINDS)
def test_parts_of_a_picture_in_one_pass(name: str) -> None:
  """All patches are the picture; some are what pooling makes of them alone."""
  config, rng = sized(KINDS[name]), np.random.default_rng(1)
  params = drawn(config)
  image = jnp.asarray(rng.normal(size=(1, 12, 12, 3)), jnp.float32)
  seen = jnp.stack([jnp.ones(9, bool), *KEEP, jnp.zeros(9, bool)])[None]

  @jax.jit
  def run(params: Params):
    vision = make_vision(config).bind({'params': params['visual']})
    x = vision.encode(image)
    first = x.shape[1] - 9
    parts = [
      jnp.concatenate([x[:, :first], x[:, first:][:, np.flatnonzero(row)]], axis=1)
      for row in KEEP
    ]
    alone = [vision.pooled(part)[0, 0] for part in parts]
    whole = Clip(config).apply({'params': params}, image, method='encode_image')[0]
    return clip_fast.encode_masks(config, params, image, seen)[0], whole, alone

  got, whole, alone = run(params)
  np.testing.assert_allclose(got[0], whole, rtol=1e-5, atol=1e-6)
  if config.image_tower.pool != 'class':  # whose copies see patches in every block
    np.testing.assert_allclose(got[1:3], alone, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got[3], whole, rtol=1e-5, atol=1e-6)
  assert np.abs(got[1] - got[2]).max() > 1e-2


def test_other_sizes_of_pictures() -> None:
  config = sized(SIGLIP)
  params = drawn(config)
  image = np.random.default_rng(0).normal(size=(1, 12, 20, 3))
  image = jnp.asarray(image, jnp.float32)
  with pytest.raises(ValueError, match='sees 12x12 pixels, got 12x20'):
    clip_fast.encode_images(config, params, image)
  got = clip_fast.encode_images(config, params, image, resize=True)
  assert got.shape == (1, 16)
  # On its own grid the table of positions is what it is.
  tokens = make_vision(config).apply(
    {'params': params['visual']}, image[:, :, :12], resize=True, method='tokens'
  )
  same = make_vision(config).apply(
    {'params': params['visual']}, image[:, :, :12], method='tokens'
  )
  np.testing.assert_array_equal(tokens, same)


class TestTexts:
  CONFIG = dataclasses.replace(PRESETS['tiny'], text_layers=1, context_length=8)

  def test_padding_is_cut_behind_the_end_whatever_its_id(self) -> None:
    ids = np.array([[0, 7, 9, 2, 1, 1, 1, 1], [0, 25, 2, 1, 1, 1, 1, 1]], np.int32)
    np.testing.assert_array_equal(trim_tokens(ids, 1, pad=1), ids[:, :4])
    assert trim_tokens(ids, 8, pad=1).shape == (2, 8)
    assert trim_tokens(np.zeros((3, 8), np.int32), 2).shape == (3, 2)

  def test_towers_that_see_padding_get_all_of_it(self) -> None:
    kind = TextTower(causal=False)
    config = dataclasses.replace(self.CONFIG, text_tower=kind)
    params = drawn(config)
    rows = encode_prompts(config, params, [['a cat'], ['a red dog']])
    whole = tokenizer.tokenize(['a cat', 'a red dog'], context_length=8)
    whole = jnp.asarray(whole)
    want = Clip(config).apply({'params': params}, whole, method='encode_text')
    want = want / np.linalg.norm(want, axis=1, keepdims=True)
    np.testing.assert_allclose(rows, want, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match='reads 8 tokens always; got 4'):
      Clip(config).apply({'params': params}, whole[:, :4], method='encode_text')
    assert tokenize(config, ['a cat'], length=5).shape == (1, 8)
    assert tokenize(self.CONFIG, ['a cat'], length=5).shape == (1, 5)

  def test_a_tower_with_other_tokens_does_not_read_clips(self) -> None:
    config = dataclasses.replace(self.CONFIG, text_tower=TextTower(tokenizer='none'))
    with pytest.raises(ValueError, match='without its tokenizer.json'):
      tokenize(config, ['a cat'])
    with pytest.raises(ValueError, match="OpenAI's"):
      encode_prompts(config, {}, [['a cat']], tokenizer.tokenize)


def test_what_builds_on_openais_towers_refuses_others() -> None:
  for config in (PRESETS['siglip2_b16'], PRESETS['mobileclip2_l14']):
    with pytest.raises(ValueError, match='CLIPSeg needs a CLIP with towers like Open'):
      config.check_like_openai('CLIPSeg')
  PRESETS['laion_h14'].check_like_openai('CLIPSeg')


def test_kinds_that_contradict_themselves_are_refused() -> None:
  for kind, message in (
    (ImageTower(class_token=False), "pool 'class' needs image_tower.class_token"),
    (ImageTower(pool='map'), 'pool_heads 0 must divide vision_width'),
    (ImageTower(pool='map', pool_heads=5), 'pool_heads 5 must divide vision_width'),
    (ImageTower(projection='none'), 'vision_width 768 must be embed_dim 512'),
  ):
    with pytest.raises(ValueError, match=message):
      dataclasses.replace(PRESETS['b16'], image_tower=kind)


def test_parameters_of_openais_towers_have_kept_their_paths() -> None:
  shapes = jax.eval_shape(lambda k: init_clip(PRESETS['tiny'], k), jax.random.key(0))
  top = {path.rpartition('/')[0].split('/blocks')[0] for path in flatten(shapes)}
  assert top == {
    '',
    'visual',
    'visual/conv1',
    'visual/ln_pre',
    'visual/ln_post',
    'text',
    'text/token_embedding',
    'text/ln_final',
  }


def test_only_sigmoid_towers_have_a_temperature_of_their_own() -> None:
  params = {'logit_scale': jnp.log(117.0)}
  assert ovseg.temperature(PRESETS['tiny'], params) == 100.0
  assert ovseg.temperature(PRESETS['tiny_siglip'], params) == pytest.approx(
    117, rel=1e-6
  )


def test_the_ensemble_is_a_softmax_with_the_towers_temperature() -> None:
  """Cosines 0.6 and 1, and 0.5 and 0: the proposer's factor stays the papers'."""
  encoded = ovseg.Encoded(
    embeddings=jnp.array([[0.5, 0.75**0.5]]),
    regions=jnp.array([[3.0, 4.0]]),
    masks=jnp.zeros((1, 1, 1)),
    boxes=jnp.zeros((1, 4)),
    valid=jnp.ones(1, bool),
    no_object=jnp.array([[0.0, 1.0]]),
  )
  rows = np.array([[1.0, 0.0], [0.6, 0.8]], np.float32)
  owner = np.arange(2, dtype=np.int32)
  weights, proposer, by_clip = weigh(
    encoded,
    rows,
    owner,
    choosing=2,
    rule='pixels',
    classifier='clip',
    weight=0.0,
    mix=Mix((2,), (5.0,)),
  )
  assert by_clip[0, 1] == pytest.approx(1 / (1 + np.exp(5 * -0.4)), rel=1e-5)
  np.testing.assert_allclose(weights[0, :2], by_clip[0, :2])
  assert proposer[0, 1] > 0.999  # 0.3 + 0.69 against 0.5 and 0.87, times a hundred


def test_a_checkpoint_says_which_tokenizer_and_a_preset_only_that_there_is_one() -> (
  None
):
  asked = PRESETS['siglip2_b16']
  text = dataclasses.replace(asked.text_tower, tokenizer=64 * 'a', cleaning='canonical')
  found = dataclasses.replace(asked, text_tower=text)
  check_agreement(asked, found, key='config.clip', directory='x')
  other = dataclasses.replace(text, pool='end')
  with pytest.raises(ValueError, match="config.clip.text_tower.pool is 'last'"):
    found = dataclasses.replace(found, text_tower=other)
    check_agreement(asked, found, key='config.clip', directory='x')
  plain, other = PRESETS['b16'], dataclasses.replace(PRESETS['b16'], text_tower=text)
  with pytest.raises(ValueError, match='config.clip.text_tower.tokenizer'):
    check_agreement(plain, other, key='config.clip', directory='x')
