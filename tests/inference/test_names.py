"""Embeddings of names: the same from the tower, memory and disk, and by every rule."""

import dataclasses
import warnings

import jax
import numpy as np
import pytest
from tiny_ovseg import CONFIG, draw_params

from ovs_jax.inference.names import NameEmbedder, embed_names, tower_hash
from ovs_jax.models import clip, clipseg
from ovs_jax.text.classes import parse_classes
from ovs_jax.text.tokenizer import tokenize

NAMES = ('red ball', 'grass', 'toilet, can')


@pytest.fixture(scope='module')
def params():
  return draw_params()['clip']


@pytest.fixture
def counted(monkeypatch):
  """Returns the prompts that went through the text tower."""
  real, asked = clip.encode_prompts, []

  def encode(config, params, prompts, *rest):
    asked.append(prompts)
    return real(config, params, prompts, *rest)

  monkeypatch.setattr(clip, 'encode_prompts', encode)
  return asked


def test_equals_the_text_tower(params, tmp_path):
  prompts = [[f'a {name}', f'the {name}'] for name in NAMES]
  expected = clip.encode_prompts(CONFIG.clip, params, prompts, tokenize)
  for cache in ('off', tmp_path, tmp_path):  # the third comes from disk
    got = embed_names(CONFIG.clip, params, NAMES, ['a {}', 'the {}'], cache=cache)
    np.testing.assert_array_equal(got, expected)


def test_only_what_is_new_is_embedded(params, tmp_path, counted):
  def embed(names, templates=('a {}',)):
    embedder = NameEmbedder(CONFIG.clip, params, cache=tmp_path)
    return embedder.names(names, templates)

  first = embed(NAMES[:2])
  np.testing.assert_array_equal(embed(['grass', 'red ball', 'grass']), first[[1, 0, 1]])
  embed(['sky', 'grass'])
  embed(['grass'], ['the {}'])
  embed(['a photo of grass'], 'single')
  assert counted == [
    [['a red ball'], ['a grass']],
    [['a sky']],
    [['the grass']],
    [['a photo of a a photo of grass.']],
  ]


def test_memory_needs_no_disk(params, counted):
  embedder = NameEmbedder(CONFIG.clip, params, cache='off')
  first = embedder.names(NAMES, 'single')
  np.testing.assert_array_equal(embedder.names(NAMES, 'single'), first)
  assert len(counted) == 1


def test_a_name_set_and_its_sentences_share_the_disk(params, tmp_path, counted):
  one = embed_names(CONFIG.clip, params, NAMES, 'single', cache=tmp_path)
  two = embed_names(CONFIG.clip, params, NAMES, ['a photo of a {}.'], cache=tmp_path)
  np.testing.assert_array_equal(one, two)
  assert len(counted) == 1


def test_damage_is_embedded_again(params, tmp_path):
  first = embed_names(CONFIG.clip, params, NAMES, 'single', cache=tmp_path)
  (shard,) = tmp_path.rglob('*.npz')
  shard.write_bytes(shard.read_bytes()[:300])
  with pytest.warns(RuntimeWarning, match=str(shard)):
    second = embed_names(CONFIG.clip, params, NAMES, 'single', cache=tmp_path)
  np.testing.assert_array_equal(first, second)
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    embed_names(CONFIG.clip, params, NAMES, 'single', cache=tmp_path)


def test_too_long_a_name_leaves_nothing(params, tmp_path):
  with pytest.raises(ValueError, match='the limit is 77'):
    embed_names(CONFIG.clip, params, ['a', 'word ' * 90], 'single', cache=tmp_path)
  assert not list(tmp_path.rglob('*.npz'))


def test_texts_are_embedded_in_float32_whatever_pictures_are(params):
  narrow = dataclasses.replace(CONFIG.clip, dtype='bfloat16')
  for of in (embed_names, clipseg_rows):
    expected = of(CONFIG.clip, params, NAMES, 'vild', cache='off')
    np.testing.assert_array_equal(
      of(narrow, params, NAMES, 'vild', cache='off'), expected
    )


def clipseg_rows(config, params, names, *rest, **options):
  return clipseg.embed_texts(config, params, names, tokenize)


def test_tower_hash(params):
  config = CONFIG.clip
  original = tower_hash(config, params)
  assert len(original) == 16 and original == tower_hash(config, dict(params))
  on_device = jax.tree.map(jax.numpy.asarray, params)
  assert original == tower_hash(config, on_device)
  # What the text tower does not use changes nothing.
  other = {**params, 'visual': {}, 'logit_scale': np.float32(3)}
  vision = dataclasses.replace(config, vision_layers=9, prompt_depth=1, unroll=2)
  assert original == tower_hash(vision, other)
  changed = [
    tower_hash(dataclasses.replace(config, context_length=76), params),
    tower_hash(dataclasses.replace(config, text_heads=4), params),
    tower_hash(dataclasses.replace(config, dtype='bfloat16'), params),
  ]
  text = jax.tree.map(lambda x: x.copy(), params['text'])
  assert original == tower_hash(config, {'text': text})
  jax.tree.leaves(text)[0].reshape(-1)[0] += 1e-3
  changed.append(tower_hash(config, {'text': text}))
  with jax.default_matmul_precision('highest'):
    changed.append(tower_hash(config, params))
  assert len({original, *changed}) == len(changed) + 1


class TestClasses:
  classes = parse_classes({'ball': ['red ball', 'grass'], 'can': ['toilet, can']})

  def embed(self, params, synonyms):
    embedder = NameEmbedder(CONFIG.clip, params, cache='off')
    return embedder.classes(self.classes, 'single', synonyms)

  def test_mean(self, params):
    words = embed_names(CONFIG.clip, params, NAMES, 'single', cache='off')
    rows, owner = self.embed(params, 'mean')
    np.testing.assert_array_equal(owner, [0, 1])
    mean = (words[0] + words[1]) / 2
    expected = [mean / np.sqrt((mean**2).sum()), words[2]]
    np.testing.assert_allclose(rows, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(rows[1], words[2])

  def test_max(self, params):
    words = embed_names(CONFIG.clip, params, NAMES, 'single', cache='off')
    rows, owner = self.embed(params, 'max')
    np.testing.assert_array_equal(owner, [0, 0, 1])
    np.testing.assert_array_equal(rows, words)

  def test_paper(self, params):
    joined = ['red ball, grass', 'toilet, can']
    words = embed_names(CONFIG.clip, params, joined, 'single', cache='off')
    rows, owner = self.embed(params, 'paper')
    np.testing.assert_array_equal(owner, [0, 1])
    np.testing.assert_array_equal(rows, words)

  def test_unknown(self, params):
    with pytest.raises(ValueError, match="unknown rule for synonyms 'first'"):
      self.embed(params, 'first')

  def test_plain_names_are_the_same_by_all_rules(self, params):
    embedder = NameEmbedder(CONFIG.clip, params, cache='off')
    for rule in ('mean', 'max', 'paper'):
      rows, owner = embedder.classes(parse_classes(NAMES), 'single', rule)
      np.testing.assert_array_equal(rows, embedder.names(NAMES, 'single'))
      np.testing.assert_array_equal(owner, [0, 1, 2])
