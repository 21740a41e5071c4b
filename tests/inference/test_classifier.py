"""Zero-shot classification: preprocessing, probabilities, and what can be wrong."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tiny_ovseg import CONFIG, STORED, draw_params

from ovs_jax import Classifier
from ovs_jax.core.checkpoint import save_model
from ovs_jax.inference.classifier import preprocess
from ovs_jax.models import clip
from ovs_jax.ops.regions import CLIP_MEAN, CLIP_PIXELS, CLIP_STD, Pixels
from ovs_jax.text.tokenizer import tokenize

# Orbax leaves threads behind that complain of their closed event loop.
pytestmark = pytest.mark.filterwarnings(
  'ignore::pytest.PytestUnraisableExceptionWarning'
)
CLIP = {'model': 'clip', 'clip': STORED['clip']}


@pytest.fixture(scope='module')
def params():
  return draw_params()


@pytest.fixture(scope='module')
def classifier(params):
  return Classifier(CONFIG.clip, params['clip'])


@pytest.fixture(scope='module')
def image():
  return np.random.default_rng(0).integers(0, 256, (60, 90, 3)).astype(np.uint8)


class TestPreprocess:
  def test_one_colour(self):
    colour = np.full((30, 70, 3), (255, 0, 128), np.uint8)
    got = preprocess(colour, 48, CLIP_PIXELS)
    assert got.shape == (48, 48, 3) and got.dtype == np.float32
    expected = [
      (1 - 0.48145466) / 0.26862954,
      (0 - 0.4578275) / 0.26130258,
      (128 / 255 - 0.40821073) / 0.27577711,
    ]
    np.testing.assert_allclose(got[10, 20], expected, rtol=1e-6)
    np.testing.assert_array_equal(got, np.broadcast_to(got[0, 0], got.shape))

  @pytest.mark.parametrize(
    ('shape', 'resized', 'box'),
    [
      # torchvision: the longer side is rounded down, half a pixel to even.
      ((60, 91), (48, 72), (12, 0, 60, 48)),
      ((91, 60), (72, 48), (0, 12, 48, 60)),
      ((48, 53), (48, 53), (2, 0, 50, 48)),
      ((48, 55), (48, 55), (4, 0, 52, 48)),
      ((1, 3), (48, 144), (48, 0, 96, 48)),
      ((48, 48), (48, 48), (0, 0, 48, 48)),
    ],
  )
  def test_shorter_side_and_centre(self, shape, resized, box):
    draw = np.random.default_rng(1).integers(0, 256, (*shape, 3)).astype(np.uint8)
    h, w = resized
    picture = Image.fromarray(draw).resize((w, h), Image.Resampling.BICUBIC).crop(box)
    mean, std = np.array([[[CLIP_MEAN]], [[CLIP_STD]]])
    expected = (np.asarray(picture) / 255 - mean) / std
    np.testing.assert_allclose(preprocess(draw, 48, CLIP_PIXELS), expected, atol=1e-5)


class TestClassify:
  def test_equals_the_model(self, classifier, params, image):
    names = ['cat', 'dog', 'red ball']
    shares = classifier.classify(image, names)
    tokens = tokenize([f'a photo of a {name}.' for name in names])
    picture, text, scale = clip.Clip(CONFIG.clip).apply(
      {'params': params['clip']},
      jnp.asarray(preprocess(image, 48, CLIP_PIXELS)[None]),
      jnp.asarray(tokens),
    )
    logits = scale * (picture @ text.T)[0]
    expected = np.exp(logits) / np.exp(logits).sum()
    assert sum(shares.values()) == pytest.approx(1)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    for name, share in zip(names, expected, strict=True):
      assert shares[name] == pytest.approx(float(share), rel=1e-4)

  def test_sigmoids_are_each_names_own(self, params, image):
    config = dataclasses.replace(
      CONFIG.clip,
      scores='sigmoid',
      pixels=Pixels((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 'squash', 'bilinear'),
    )
    own = {**params['clip'], 'logit_bias': np.float32(-3)}
    classifier = Classifier(config, own)
    found = classifier.classify(image, 'cat, dog')
    alone = classifier.classify(image, 'dog')
    assert alone == {'dog': pytest.approx(found['dog'], rel=1e-4)}
    pixels = Image.fromarray(image).resize((48, 48), Image.Resampling.BILINEAR)
    picture, text, scale = clip.Clip(config).apply(
      {'params': own},
      jnp.asarray(np.asarray(pixels)[None] / 127.5 - 1, jnp.float32),
      jnp.asarray(tokenize(['a photo of a cat.', 'a photo of a dog.'])),
    )
    logits = scale * (picture @ text.T)[0] - 3
    for name, logit in zip(('cat', 'dog'), logits, strict=True):
      assert found[name] == pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-3)

  def test_synonyms_and_templates(self, classifier, image):
    words = ['cat', 'tiger', 'dog']
    plain = classifier.classify(image, words, templates=['the {}'])
    # The best word counts: with it alone the odds are the same.
    best = classifier.classify(
      image,
      {'feline': ['cat', 'tiger'], 'dog': []},
      templates=['the {}'],
      synonyms='max',
    )
    odds = max(plain['cat'], plain['tiger']) / plain['dog']
    assert best['feline'] / best['dog'] == pytest.approx(odds, rel=1e-4)
    joined = classifier.classify(image, ['cat, tiger', 'dog'])
    paper = classifier.classify(
      image, {'feline': ['cat', 'tiger'], 'dog': []}, synonyms='paper'
    )
    assert paper['feline'] == pytest.approx(joined['cat, tiger'], rel=1e-6)

  def test_mistakes(self, classifier, image, tmp_path):
    with pytest.raises(ValueError, match="single name is always 1; give 'cat'"):
      classifier.classify(image, 'cat')
    with pytest.raises(ValueError, match='no class names'):
      classifier.classify(image, '')
    with pytest.raises(FileNotFoundError, match='no.jpg not found'):
      classifier.classify(tmp_path / 'no.jpg', 'cat, dog')
    with pytest.raises(ValueError, match='unknown template set'):
      Classifier(CONFIG.clip, {}, templates='vilt')


class TestLoad:
  def test_a_clip_and_the_clip_of_an_ovseg(self, params, classifier, image, tmp_path):
    save_model(tmp_path / 'clip', params['clip'], CLIP)
    save_model(tmp_path / 'ovseg', params, STORED)
    expected = classifier.classify(image, 'cat, dog')
    for name in ('clip', 'ovseg'):
      loaded = Classifier.load(tmp_path / name)
      got = loaded.classify(image, 'cat, dog')
      assert got == pytest.approx(expected, rel=1e-4)
    loaded = Classifier.load(tmp_path / 'clip', templates='vild')
    assert loaded.templates == 'vild'

  @pytest.mark.parametrize(
    ('stored', 'message'),
    [
      ({'model': 'proposer'}, "'proposer' model; a 'clip' or 'ovseg' model was exp"),
      ({'model': 'clip'}, r"not describe its 'clip' model \(KeyError\('clip'\)\)"),
      ({'model': 'clip', 'clip': {'patch': 8}}, "does not describe its 'clip' model"),
      (CLIP, 'the checkpoint .* parameters missing'),
      ({'model': 'ovseg'}, "not describe its 'ovseg' model .KeyError.'proposer'"),
    ],
  )
  def test_wrong_checkpoints(self, stored, message, tmp_path):
    save_model(tmp_path / 'm', {'a': np.zeros(2)}, stored)
    with pytest.raises(ValueError, match=message):
      Classifier.load(tmp_path / 'm')

  def test_missing(self, tmp_path):
    with pytest.raises(FileNotFoundError, match='not found'):
      Classifier.load(tmp_path / 'no')
