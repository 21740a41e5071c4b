"""The Python API on a tiny model with drawn parameters."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tiny_ovseg import CONFIG, draw_params, handmade

from ovs_jax import Segmenter
from ovs_jax.core.images import resize_shortest
from ovs_jax.core.types import NO_LABEL
from ovs_jax.inference import ovseg as module
from ovs_jax.inference import weigh as weighing
from ovs_jax.inference.ovseg import OvSegSystem
from ovs_jax.inference.settings import Settings
from ovs_jax.models import clip, ovseg
from ovs_jax.ops.colours import palette
from ovs_jax.ops.ensemble import combine, fuse
from ovs_jax.ops.overlay import borders
from ovs_jax.ops.resize import resize_bilinear
from ovs_jax.text.tokenizer import tokenize

SETTINGS = Settings(
  shortest=40, longest=96, templates='single', classifier='ensemble', weight=0.7
)


def blobs(h: int, w: int) -> np.ndarray:
  """A smooth, colourful picture."""
  small = np.random.default_rng(3).integers(0, 256, (4, 5, 3)).astype(np.uint8)
  return np.asarray(Image.fromarray(small).resize((w, h), Image.Resampling.BICUBIC))


@pytest.fixture(scope='session')
def params():
  return draw_params()


@pytest.fixture(scope='session')
def segmenter(params):
  return Segmenter(OvSegSystem(CONFIG, params, settings=SETTINGS))


@pytest.fixture(scope='session')
def image():
  return blobs(50, 70)


@pytest.fixture(scope='session')
def encoded(segmenter, image):
  return segmenter.encode(image)


@pytest.fixture(scope='session')
def varied(encoded):
  """The same, but masks and embeddings differ as those of a trained model do."""
  shape = encoded.encoded.regions.shape
  draw = np.random.default_rng(1).normal
  coarse = jnp.asarray(3 * draw(size=(shape[0], 5, 7)), jnp.float32)
  inner = dataclasses.replace(
    encoded.encoded,
    embeddings=jnp.asarray(draw(size=shape), jnp.float32),
    regions=jnp.asarray(draw(size=shape), jnp.float32),
    masks=resize_bilinear(jax.nn.sigmoid(coarse), encoded.network_size),
  )
  return dataclasses.replace(encoded, encoded=inner)


def spread(monkeypatch, segmenter, names):
  """Gives names embeddings that differ as those of a trained text tower do."""
  text = np.random.default_rng(2).normal(size=(len(names), 64)).astype(np.float32)
  text /= np.linalg.norm(text, axis=1, keepdims=True)
  for name, row in zip(names, text, strict=True):
    monkeypatch.setitem(segmenter.system.embedder.rows, ('single', name), row)
  return text


def direct(encoded, text, *, classifier, weight):
  """Scores by the plain functions, without padding or blocks."""

  @jax.jit
  def scores(inner, text):
    logits = ovseg.classify(inner, text)
    weights = combine(*logits, inner.valid, classifier=classifier, weight=weight)
    return resize_bilinear(fuse(weights, inner.masks), encoded.size)

  return np.asarray(scores(encoded.encoded, text))


class TestEncode:
  def test_keeps_sizes_and_cuts_padding(self, encoded):
    assert encoded.size == (50, 70)
    assert encoded.network_size == (40, 56)
    assert encoded.encoded.masks.shape == (20, 64, 64)  # with padding, all 0

  def test_equals_the_model_on_the_padded_picture(self, segmenter, encoded, image):
    small = resize_shortest(image, shortest=40, longest=96)
    padded = ovseg.pad_image(jnp.asarray(small), 32)
    assert padded.shape == (64, 64, 3)
    run = functools.partial(jax.jit, static_argnums=0)(ovseg.encode_image)
    expected = run(CONFIG, segmenter.system.params, padded, jnp.array([40, 56]))
    got = encoded.encoded
    np.testing.assert_allclose(got.masks, expected.masks, atol=1e-4)
    assert not np.any(got.masks[:, 40:]) and not np.any(got.masks[:, :, 56:])
    # Where a pixel is in a mask up to rounding, its crop may be another one.
    gap = np.abs(np.asarray(got.masks) - CONFIG.region.threshold).min(axis=(1, 2))
    sure = gap > 1e-5
    assert sure.sum() >= 15
    regions = (np.asarray(x.regions)[sure] for x in (got, expected))
    np.testing.assert_allclose(*regions, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(got.boxes[sure], expected.boxes[sure])

  def test_a_device_without_memory_left_is_one_line(
    self, segmenter, encoded, image, monkeypatch
  ):
    def none(*args, **options):
      raise jax.errors.JaxRuntimeError(
        'RESOURCE_EXHAUSTED: allocating 2147483648 bytes'
      )

    wanted = '^there is no memory for 2.0 GiB more; a smaller picture'
    for name in ('encode_all', 'segment'):
      monkeypatch.setattr(segmenter.system, name, none)
    with pytest.raises(ValueError, match=wanted):
      segmenter.encode(image)
    with pytest.raises(ValueError, match=wanted):
      segmenter.segment(encoded, ['a'])

  def test_every_kind_of_input_gives_the_same(
    self, segmenter, encoded, image, tmp_path
  ):
    Image.fromarray(image).save(tmp_path / 'a.png')
    for given in (
      tmp_path / 'a.png',
      str(tmp_path / 'a.png'),
      Image.fromarray(image),
      (image / 255).astype(np.float32),
      jnp.asarray(image),
    ):
      again = segmenter.encode(given)
      np.testing.assert_array_equal(again.encoded.masks, encoded.encoded.masks)

  @pytest.mark.parametrize('shape', [(1, 1), (3, 900)])
  def test_extreme_shapes(self, segmenter, shape):
    encoded = segmenter.encode(blobs(*shape))
    result = segmenter.segment(encoded, 'red ball, grass')
    assert result.labels.shape == shape and result.scores.shape == shape
    assert set(np.unique(result.labels)) <= {NO_LABEL, 0, 1}
    assert np.isfinite(result.scores).all()
    boxes = result.proposals.boxes
    assert (boxes[:, 2] <= shape[1] + 1e-3).all()
    assert (boxes[:, 3] <= shape[0] + 1e-3).all()


class TestSegment:
  @pytest.mark.parametrize(
    ('classifier', 'weight', 'count'),
    [
      ('ensemble', 0.7, 3),
      ('ensemble', 0.7, 9),  # more than the smallest bucket
      ('ensemble', 0.0, 3),
      ('clip', 0.7, 3),
      ('proposer', 0.7, 3),
    ],
  )
  def test_equals_direct_computation(
    self, segmenter, varied, monkeypatch, classifier, weight, count
  ):
    names = tuple(f'thing {i}' for i in range(count))
    text = spread(monkeypatch, segmenter, names)
    result = segmenter.segment(varied, names, classifier=classifier, weight=weight)
    scores = direct(varied, text, classifier=classifier, weight=weight)
    np.testing.assert_allclose(result.scores, scores.max(0), rtol=1e-4, atol=1e-6)
    best = np.sort(scores, axis=0)
    clear = best[-1] - best[-2] > 1e-4 * best[-1]
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(result.labels[clear], scores.argmax(0)[clear])
    assert len(np.unique(result.labels)) > 1  # or the comparison says little

  def test_settings_are_the_default(self, segmenter, encoded):
    plain = segmenter.segment(encoded, 'red ball, grass')
    explicit = segmenter.segment(
      encoded, 'red ball, grass', classifier='ensemble', weight=0.7, templates='single'
    )
    np.testing.assert_array_equal(plain.scores, explicit.scores)

  def test_same_result_for_same_input(self, segmenter, encoded, image):
    first = segmenter.segment(encoded, 'red ball, grass')
    second = segmenter.segment(segmenter.encode(image), 'red ball, grass')
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(first.scores, second.scores)

  @pytest.mark.parametrize('weight', [0.0, 0.5, 1.0])
  def test_padding_of_names_never_wins(self, segmenter, varied, monkeypatch, weight):
    # An invalid proposal counts 1 for CLIP, and 0 ** 0 is 1: without care the padded
    # classes would have weight 1 at weight 1.
    inner = dataclasses.replace(
      varied.encoded, valid=jnp.arange(len(varied.encoded.valid)) < 2
    )
    partly = dataclasses.replace(varied, encoded=inner)
    names = ('red ball', 'grass', 'sky')
    text = spread(monkeypatch, segmenter, names)
    result = segmenter.segment(partly, names, classifier='ensemble', weight=weight)
    scores = direct(partly, text, classifier='ensemble', weight=weight)
    np.testing.assert_allclose(result.scores, scores.max(0), rtol=1e-4, atol=1e-6)

  def test_known_answer(self, segmenter):
    text = segmenter.embed_names('red ball, grass')
    left = np.zeros((4, 6))
    left[:, :3] = 1
    picture = handmade([left, 1 - left], text[::-1])
    result = segmenter.segment(picture, 'red ball, grass', classifier='clip')
    np.testing.assert_array_equal(result.labels, np.where(left, 1, 0))
    cosine = float(text[0] @ text[1])
    p = 1 / (1 + np.exp(100 * (cosine - 1)))
    np.testing.assert_allclose(result.scores, np.full((4, 6), p), rtol=1e-4)
    np.testing.assert_array_equal(result.proposals.labels, [1, 0])
    np.testing.assert_allclose(
      result.proposals.clip, [[1 - p, p], [p, 1 - p]], rtol=1e-3, atol=1e-6
    )
    assert result.shares() == {'red ball': 0.5, 'grass': 0.5}

  def test_single_name_competes_with_others(self, segmenter):
    ball, others = segmenter.embed_names(['red ball', 'others'])
    left = np.zeros((4, 6))
    left[:, :2] = 1
    picture = handmade([left, 1 - left], [ball, others])
    result = segmenter.segment(picture, 'red ball', classifier='clip')
    assert result.names == ('red ball',)
    np.testing.assert_array_equal(result.labels, np.where(left, 0, NO_LABEL))
    assert result.shares() == {'red ball': pytest.approx(1 / 3)}
    assert (result.scores[:, :2] > 0).all() and not result.scores[:, 2:].any()
    np.testing.assert_array_equal(result.proposals.labels, [0, NO_LABEL])
    assert result.proposals.clip.shape == (2, 1)

  def test_others_alone(self, segmenter, encoded):
    result = segmenter.segment(encoded, 'Others')
    assert result.names == ('Others',) and 0 in result.labels

  def test_nothing_where_no_mask_reaches(self, segmenter):
    text = segmenter.embed_names('red ball, grass')
    left = np.zeros((4, 6))
    left[:, :2] = 1
    result = segmenter.segment(
      handmade([left], text[:1]), 'red ball, grass', classifier='clip'
    )
    np.testing.assert_array_equal(result.labels, np.where(left, 0, NO_LABEL))

  @pytest.mark.parametrize('classifier', ['ensemble', 'clip', 'proposer'])
  def test_no_proposal_at_all(self, segmenter, classifier):
    text = segmenter.embed_names('red ball, grass')
    picture = handmade(
      np.full((2, 4, 6), 0.1), text, valid=[False, False], size=(9, 13)
    )
    result = segmenter.segment(picture, 'red ball, grass', classifier=classifier)
    assert result.labels.shape == (9, 13)
    assert (result.labels == NO_LABEL).all() and not result.scores.any()
    assert result.shares() == {'red ball': 0, 'grass': 0}
    assert result.proposals.boxes.shape == (0, 4)
    assert result.proposals.clip.shape == (0, 2)

  def test_boxes_are_in_the_pictures_pixels(self, segmenter):
    text = segmenter.embed_names('red ball, grass')
    picture = handmade(np.ones((2, 4, 6)), text, size=(8, 18))
    result = segmenter.segment(picture, 'red ball, grass')
    np.testing.assert_allclose(result.proposals.boxes, [[0, 0, 18, 8]] * 2)

  @pytest.mark.parametrize(
    ('names', 'message'),
    [
      ('', 'no class names'),
      ('  ', 'no class names'),
      ([], 'no class names'),
      ('cat,,dog', 'blank'),
      ('cat, ', 'blank'),
      ('cat, Cat', 'same'),
      (['cat', ' cat '], 'same'),
      ('dog, ' + 'word ' * 90, r'tokens.*limit is 77'),
    ],
  )
  def test_bad_names(self, segmenter, encoded, names, message):
    with pytest.raises(ValueError, match=message):
      segmenter.segment(encoded, names)

  def test_bad_method(self, segmenter, encoded):
    with pytest.raises(ValueError, match='unknown classifier.*Did you mean'):
      segmenter.segment(encoded, 'cat', classifier='clipp')
    for weight in (-0.1, 1.5, float('nan')):
      with pytest.raises(ValueError, match=r'in 0\.\.1'):
        segmenter.segment(encoded, 'cat', weight=weight)
    with pytest.raises(ValueError, match='unknown template set'):
      segmenter.segment(encoded, 'cat', templates='vilt')


class TestReuse:
  def test_embeddings_are_those_of_the_text_tower(self, segmenter):
    prompts = [['a photo of a red ball.'], ['a photo of a grass.']]
    expected = clip.encode_prompts(
      CONFIG.clip, segmenter.system.params['clip'], prompts, tokenize
    )
    got = segmenter.embed_names('red  ball, grass')
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, rtol=1e-5)

  def test_changed_names_run_only_the_text_tower(
    self, params, image, encoded, monkeypatch
  ):
    fresh = Segmenter(OvSegSystem(CONFIG, params, settings=SETTINGS))
    asked = []
    real = clip.encode_prompts

    def counted(config, clip_params, prompts, *rest):
      asked.append(prompts)
      return real(config, clip_params, prompts, *rest)

    def forbidden(*_, **__):
      raise AssertionError('the image was encoded again')

    monkeypatch.setattr(clip, 'encode_prompts', counted)
    monkeypatch.setattr(module, 'encode_pictures', forbidden)
    fresh.segment(encoded, 'red ball, grass')
    fresh.segment(encoded, 'grass, red ball')
    fresh.segment(encoded, 'grass, sky')
    fresh.segment(encoded, 'grass', templates=['the {}'])
    assert asked == [
      [['a photo of a red ball.'], ['a photo of a grass.']],
      [['a photo of a sky.']],
      [['the grass'], ['the others']],
    ]

  def test_order_of_names_is_kept(self, segmenter, varied):
    one = segmenter.segment(varied, 'red ball, grass')
    two = segmenter.segment(varied, 'grass, red ball')
    assert two.names == ('grass', 'red ball')
    found = one.labels != NO_LABEL
    assert found.any()
    np.testing.assert_array_equal(one.labels[found], 1 - two.labels[found])
    np.testing.assert_array_equal(found, two.labels != NO_LABEL)

  def test_names_are_not_compiled_one_by_one(self, segmenter, encoded):
    segmenter.segment(encoded, 'red ball, grass')
    before = weighing.weigh_padded._cache_size()
    segmenter.segment(encoded, 'red ball, grass, sky')
    segmenter.segment(encoded, 'sky')
    assert weighing.weigh_padded._cache_size() == before

  @pytest.mark.parametrize(
    ('count', 'bucket'), [(1, 8), (8, 8), (9, 16), (64, 64), (65, 128), (847, 896)]
  )
  def test_buckets(self, count, bucket):
    assert weighing.bucket(count) == bucket


class TestOverlay:
  def test_draws_the_labels(self, segmenter, varied, image):
    result = segmenter.segment(varied, 'red ball, grass')
    picture = np.asarray(result.overlay(image, alpha=1.0))[:50, :70]
    seen = (result.labels != NO_LABEL) & ~borders(result.labels, width=1)
    assert seen.sum() > 100
    same = (picture[seen] == palette(2)[result.labels[seen]]).all(axis=1)
    assert same.mean() > 0.7  # but for the names that are written there
    written = {tuple(x) for x in picture[seen][~same].tolist()}
    assert (255, 255, 255) in written or not written

  def test_another_picture(self, segmenter, encoded):
    result = segmenter.segment(encoded, 'red ball, grass')
    with pytest.raises(ValueError, match=r'\(9, 9\).*\(50, 70\)'):
      result.overlay(np.zeros((9, 9, 3), np.uint8))
