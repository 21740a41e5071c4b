"""Confidences computed by hand: the label's share of all evidence and of nothing."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tiny_ovseg import CONFIG, draw_params, handmade

from ovs_jax import Segmenter
from ovs_jax.core.types import NO_LABEL
from ovs_jax.inference.encode import EncodedWindows
from ovs_jax.inference.ovseg import OvSegSystem
from ovs_jax.inference.panoptic import divide
from ovs_jax.inference.prompted import LabelledMasks
from ovs_jax.inference.settings import Settings
from ovs_jax.inference.system import MaskChunk, Texts
from ovs_jax.text.classes import parse_background, parse_classes

SETTINGS = Settings(
  shortest=40, longest=96, templates='single', classifier='clip', weight=0.0
)
# CLIP's probabilities of names are those of cosines: at these angles 0.8 and 0.2.
ODDS = np.log(4) / 100


def direction(cosine):
  row = np.zeros(CONFIG.clip.embed_dim, np.float32)
  row[:2] = cosine, np.sqrt(1 - cosine**2)
  return row


@pytest.fixture(scope='module')
def segmenter():
  """Its names have the cosines 1 and 1 - ODDS with what shows a dog."""
  made = Segmenter(OvSegSystem(CONFIG, draw_params(), settings=SETTINGS))
  rows = made.system.embedder.rows
  rows['single', 'dog'] = direction(1.0)
  rows['single', 'cat'] = direction(1.0 - ODDS)
  return made


def ovseg(*masks, size=None):
  """Rows of pixels, each from one proposal that shows a dog: 0.8 dog, 0.2 cat."""
  masks = np.array(masks, np.float32)[:, None]
  return handmade(masks, [direction(1.0)] * len(masks), size=size)


class TestOvSeg:
  # Of four pixels, three have proposals: one, two, and a faint one.
  PICTURE = ovseg([0.5, 1.0, 0.05, 0.0], [0.0, 1.0, 0.0, 0.0])

  def test_share_of_all_names_and_of_nothing(self, segmenter):
    result = segmenter.segment(self.PICTURE, 'dog, cat')
    np.testing.assert_allclose(result.scores[0], [0.4, 1.6, 0.04, 0], rtol=1e-4)
    # Evidence 0.5, of which 0.4 for the dog: nothing has the other half of 1.
    np.testing.assert_allclose(result.confidence[0], [0.4, 0.8, 0.04, 0], rtol=1e-4)
    assert result.labels[0].tolist() == [0, 0, 0, NO_LABEL]

  def test_threshold(self, segmenter):
    for threshold, want in (
      (0.0, [0, 0, 0, NO_LABEL]),
      (0.3, [0, 0, NO_LABEL, NO_LABEL]),
      (0.5, [NO_LABEL, 0, NO_LABEL, NO_LABEL]),
      (0.81, [NO_LABEL] * 4),
      (1.0, [NO_LABEL] * 4),
    ):
      result = segmenter.segment(self.PICTURE, 'dog, cat', threshold=threshold)
      assert result.labels[0].tolist() == want, threshold
      assert ((result.confidence > 0) == (result.labels >= 0)).all()

  def test_of_segments_and_names(self, segmenter):
    result = segmenter.segment(self.PICTURE, 'dog, cat')
    [segment] = result.segments()
    want = pytest.approx((0.4 + 0.8 + 0.04) / 3, rel=1e-4)
    assert segment.confidence == want
    assert result.confidences() == {'dog': want, 'cat': 0.0}
    assert result.mask('dog').tolist() == [[True, True, True, False]]
    assert not result.mask('cat').any()
    with pytest.raises(ValueError, match="unknown name 'dogs'"):
      result.mask('dogs')

  def test_margin_to_the_second_name(self, segmenter):
    for names, background in (('dog, cat', None), ('dog', 'cat')):
      result = segmenter.segment(self.PICTURE, names, background=background)
      np.testing.assert_allclose(result.margin[0], [0.3, 0.6, 0.03, 0], rtol=2e-4)
      [segment] = result.segments()
      assert segment.margin == pytest.approx((0.3 + 0.6 + 0.03) / 3, rel=1e-4)
    cut = segmenter.segment(self.PICTURE, 'dog, cat', threshold=0.5)
    np.testing.assert_allclose(cut.margin[0], [0, 0.6, 0, 0], rtol=1e-4)

  def test_a_map_per_name(self, segmenter):
    result = segmenter.segment(self.PICTURE, 'dog, cat', maps=True)
    dog, cat = result.confidence_map('dog'), result.confidence_map('cat')
    np.testing.assert_allclose(dog[0], [0.4, 0.8, 0.04, 0], rtol=1e-4)
    np.testing.assert_allclose(cat[0], [0.1, 0.2, 0.01, 0], rtol=1e-4)
    with pytest.raises(ValueError, match='ask for them with maps=True'):
      segmenter.segment(self.PICTURE, 'dog, cat').confidence_map('dog')

  def test_background_is_evidence_too(self, segmenter):
    result = segmenter.segment(self.PICTURE, 'cat', background='dog', maps=True)
    assert (result.labels == NO_LABEL).all() and (result.confidence == 0).all()
    cat = result.confidence_map('cat')
    np.testing.assert_allclose(cat[0], [0.1, 0.2, 0.01, 0], rtol=1e-4)

  def test_the_demos_rule_paints_binary_masks(self, segmenter):
    result = segmenter.segment(ovseg([0.9, 0.3]), 'dog, cat', rule='demo')
    np.testing.assert_allclose(result.confidence[0], [0.8, 0], rtol=1e-4)

  def test_masks_are_resized(self, segmenter):
    result = segmenter.segment(ovseg([1.0, 0.0], size=(1, 4)), 'dog, cat')
    # Evidence 1, 0.75, 0.25, 0, bilinear.
    np.testing.assert_allclose(result.confidence[0], [0.8, 0.6, 0.2, 0], atol=1e-4)

  def test_no_proposal_shows_anything(self, segmenter):
    picture = handmade(np.ones((1, 1, 2)), [direction(1.0)], valid=[False])
    result = segmenter.segment(picture, 'dog, cat', maps=True)
    assert (result.confidence == 0).all() and result.confidences()['dog'] == 0
    assert (result.confidence_map('dog') == 0).all()

  def test_windows(self, segmenter, monkeypatch):
    monkeypatch.setattr(
      EncodedWindows, 'masks', lambda s, i: s.windows[i].encoded.masks
    )
    one = handmade(np.full((2, 4, 4), 0.9), [direction(1.0)] * 2)
    picture = EncodedWindows((4, 6), ((0, 0), (0, 2)), (one, one), (4, 4))
    result = segmenter.segment(picture, 'dog, cat', maps=True)
    np.testing.assert_allclose(result.scores, np.full((4, 6), 1.44), rtol=1e-4)
    np.testing.assert_allclose(result.confidence, np.full((4, 6), 0.8), rtol=1e-4)
    np.testing.assert_allclose(result.margin, np.full((4, 6), 0.6), rtol=1e-3)
    cat = result.confidence_map('cat')
    np.testing.assert_allclose(cat, np.full((4, 6), 0.2), rtol=1e-3)

  def test_of_segments_with_ids(self):
    weights = jnp.array([[0.2, 0.1], [0.0, 0.9]])
    masks = np.zeros((2, 4, 4))
    masks[0, :, :2], masks[1, :, 2:] = 1, 1
    picture = handmade(masks, np.eye(2, CONFIG.clip.embed_dim))
    both = divide(picture, weights, ['dog', 'cat'], trained=True)
    sure = {s.name: s.confidence for s in both.segments}
    assert sure == {'dog': pytest.approx(0.2), 'cat': pytest.approx(0.9)}
    one = divide(picture, weights, ['dog', 'cat'], trained=True, threshold=0.3)
    assert [s.name for s in one.segments] == ['cat']
    np.testing.assert_array_equal(one.ids[0], [0, 0, 1, 1])


def test_pictures_need_not_be_encoded_first(segmenter, tmp_path):
  pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3)).astype(np.uint8)
  Image.fromarray(pixels).save(tmp_path / 'photo.png')
  want = segmenter.segment(segmenter.encode(pixels), 'dog, cat')
  for photo in (pixels, Image.fromarray(pixels), tmp_path / 'photo.png'):
    found = segmenter.segment(photo, 'dog, cat')
    np.testing.assert_array_equal(found.confidence, want.confidence)


class Drawn(LabelledMasks):
  """Masks of given probabilities, of CLIPSeg (names ask for them) or CoSeg (slots)."""

  def __init__(self, kind, *chunks, cosines=None):
    self.kind, self.chunks, self.cosines = kind, chunks, cosines

  def embed(self, classes, *, templates=None, synonyms='mean'):
    return Texts(len(classes), np.arange(len(classes)), None, None)

  def masks(self, encoded, texts, allowed=None):
    for rows, labels in self.chunks:
      p = np.array(rows, np.float64)[:, None]
      with np.errstate(divide='ignore'):
        logits = np.log(p) - np.log1p(-p)
      yield MaskChunk(logits.astype(np.float32), np.array(labels), self.cosines)


class Photo:
  size = (1, 3)


def segment(system, names='a, b', background=None, **options):
  classes = parse_classes(names)
  behind = parse_background(background, classes)
  return system.segment(Photo(), classes, behind, **options)


class TestClipSeg:
  SYSTEM = Drawn('clipseg', ([[0.9, 0.5, 0.2]], [0]), ([[0.6, 0.4, 0.1]], [1]))

  def test_share_of_all_names_and_of_nothing(self):
    result = segment(self.SYSTEM, maps=True)
    # Evidence 1.5, 0.9 and 0.3; no mask claims the last pixel at 0.3.
    assert result.labels.tolist() == [[0, 0, NO_LABEL]]
    np.testing.assert_allclose(result.confidence, [[0.6, 0.5, 0]], rtol=1e-5)
    np.testing.assert_allclose(result.margin, [[0.2, 0.1, 0]], rtol=1e-5)
    np.testing.assert_allclose(result.confidence_map('b'), [[0.4, 0.4, 0.1]], rtol=2e-3)
    assert result.confidences() == {'a': pytest.approx(0.55), 'b': 0}

  @pytest.mark.parametrize(
    ('threshold', 'want'),
    [
      (0.0, [0, 0, 0]),
      (0.2, [0, 0, 0]),
      (0.3, [0, 0, NO_LABEL]),
      (0.55, [0, NO_LABEL, NO_LABEL]),
      (0.7, [NO_LABEL] * 3),  # although the mask has the pixel with 0.9
    ],
  )
  def test_threshold(self, threshold, want):
    assert segment(self.SYSTEM, threshold=threshold).labels.tolist() == [want]

  def test_one_name_is_as_sure_as_its_mask(self):
    system = Drawn('clipseg', ([[0.9, 0.5, 0.2]], [0]))
    result = segment(system, 'a', threshold=0.0)
    np.testing.assert_allclose(result.confidence, [[0.9, 0.5, 0.2]], rtol=1e-5)

  def test_the_best_word_of_a_name_counts(self):
    chunks = ([[0.9, 0.0, 0.0], [0.2, 0.0, 0.0]], [1, 0]), ([[0.7, 0.0, 0.0]], [0])
    result = segment(Drawn('clipseg', *chunks), maps=True)
    assert result.confidence[0, 0] == pytest.approx(0.9 / 1.6)
    assert result.margin[0, 0] == pytest.approx(0.2 / 1.6)
    assert result.confidence_map('a')[0, 0] == pytest.approx(0.7 / 1.6, rel=2e-3)

  def test_background_is_evidence_too(self):
    result = segment(self.SYSTEM, 'a', background='b')
    np.testing.assert_allclose(result.confidence, [[0.6, 0.5, 0]], rtol=1e-5)
    np.testing.assert_allclose(result.margin, [[0.2, 0.1, 0]], rtol=1e-5)

  def test_several_names_may_claim_a_pixel(self):
    result = segment(self.SYSTEM, rule='D', threshold=0.4)
    assert result.mask('a').tolist() == [[True, True, False]]
    assert result.mask('b').tolist() == [[True, True, False]]
    sure = {s.name: s.confidence for s in result.segments()}
    assert sure == {'a': pytest.approx(0.7), 'b': pytest.approx(0.5)}
    assert all(s.margin == s.confidence for s in result.segments())

  def test_nothing_is_asked_for(self):
    result = segment(Drawn('clipseg'), maps=True)
    assert (result.confidence == 0).all() and (result.confidence_map('a') == 0).all()


class TestCoSeg:
  # Slots of the name a, of no name, of b, and of a again.
  SLOTS = (
    [[0.9, 0.0, 0.8], [0.3, 0.0, 0.4], [0.2, 0.5, 0.0], [0.4, 0.4, 0.0]],
    [0, NO_LABEL, 1, 0],
  )
  # p(name | slot) is 3 / 4 and 1 / 8 and 1 / 8 of "unlabeled".
  COSINES = np.array([[np.log(6) * 0.08, 0, 0]] * 4, np.float32)

  def test_slots_of_one_name_count_once(self):
    result = segment(Drawn('coseg', self.SLOTS, cosines=self.COSINES), maps=True)
    assert result.labels.tolist() == [[0, 1, 0]]
    # Evidence of a, of b, and of slots without a name: 0.9 + 0.2 + 0.3, ...
    want = [[0.9 / 1.4, 0.5, 0.8 / 1.2]]
    np.testing.assert_allclose(result.confidence, want, rtol=1e-5)
    # To b, to a, and to nobody: slots without a name are nobody's.
    np.testing.assert_allclose(result.margin, [[0.5, 0.1, 0.8 / 1.2]], rtol=1e-5)
    want = [[0.9 / 1.4, 0.4, 0.8 / 1.2]]
    np.testing.assert_allclose(result.confidence_map('a'), want, rtol=2e-3)

  def test_painted_in_order(self):
    system = Drawn('coseg', self.SLOTS, cosines=self.COSINES)
    result = segment(system, rule='B', threshold=0.4)
    # The last slot has the first two pixels: with 0.4 of 1.4, too little, and of 0.9.
    assert result.labels.tolist() == [[NO_LABEL, 0, 0]]
    np.testing.assert_allclose(result.confidence, [[0, 0.4, 0.8 / 1.2]], rtol=1e-5)
    # There the name has less than the one below it.
    np.testing.assert_allclose(result.margin, [[0, -0.1, 0.8 / 1.2]], rtol=1e-5)

  def test_masks_that_count_for_several_names(self):
    system = Drawn('coseg', self.SLOTS, cosines=self.COSINES)
    result = segment(system, rule='C', maps=True)
    total = np.array([[1.8, 0.9, 1.2]])
    assert result.labels.tolist() == [[0, 0, 0]]
    want = 0.75 * total / np.maximum(total, 1)
    np.testing.assert_allclose(result.confidence, want, rtol=1e-4)
    np.testing.assert_allclose(result.confidence_map('b'), want / 6, rtol=1e-4)
    np.testing.assert_allclose(result.margin, want * 5 / 6, rtol=1e-4)
    cut = segment(system, rule='C', threshold=0.7)
    assert cut.labels.tolist() == [[0, NO_LABEL, 0]]
