"""Synonyms, background, thresholds and the demo's rule, on pictures made by hand."""

import numpy as np
import pytest
from tiny_ovseg import CONFIG, draw_params, handmade

from ovs_jax import Segmenter
from ovs_jax.core.types import NO_LABEL
from ovs_jax.inference.ovseg import OvSegSystem
from ovs_jax.inference.settings import Settings

SETTINGS = Settings(
  shortest=40, longest=96, templates='single', classifier='clip', weight=0.0
)
# Rows of text: angles in a plane, in degrees, so that cosines are known.
ANGLES = {
  'dog': 0.0,
  'puppy': 4.0,
  'cat': 10.0,
  'kitten': 8.0,
  'sky': 5.5,
  'others': 14.0,
  'dog, puppy': 1.0,
}


def direction(angle):
  row = np.zeros(CONFIG.clip.embed_dim, np.float32)
  row[:2] = np.cos(np.radians(angle)), np.sin(np.radians(angle))
  return row


@pytest.fixture(scope='module')
def segmenter():
  made = Segmenter(OvSegSystem(CONFIG, draw_params(), settings=SETTINGS))
  made.system.embedder.rows.update(
    {('single', n): direction(a) for n, a in ANGLES.items()}
  )
  return made


def picture(*angles, valid=None, soft=0.9):
  """Vertical stripes, one proposal each, of two columns; the last two are empty."""
  width = 2 * len(angles) + 2
  masks = np.zeros((len(angles), 4, width))
  for i in range(len(angles)):
    masks[i, :, 2 * i : 2 * i + 2] = soft
  return handmade(masks, [direction(a) for a in angles], valid=valid)


def probabilities(angle, names):
  logits = [100 * np.cos(np.radians(angle - ANGLES[name])) for name in names]
  shares = np.exp(np.array(logits) - max(logits))
  return shares / shares.sum()


def stripes(result):
  """Label of each stripe, and of the empty part."""
  assert (result.labels == result.labels[:1]).all()
  assert (result.labels[0, 0::2] == result.labels[0, 1::2]).all()
  return result.labels[0, 0::2].tolist()


class TestSynonyms:
  CLASSES = {'a dog': ['dog', 'puppy'], 'a cat': ['cat', 'kitten']}

  def test_max(self, segmenter):
    # 5 degrees: puppy is 1 away, kitten 3. 0: dog. 9.5: cat.
    result = segmenter.segment(picture(5, 0, 9.5), self.CLASSES, synonyms='max')
    assert result.names == ('a dog', 'a cat')
    assert stripes(result) == [0, 0, 1, NO_LABEL]
    cosines = np.cos(np.radians([[1, 3], [0, 8], [5.5, 0.5]]))
    odds = np.exp(100 * (cosines - cosines.max(axis=1, keepdims=True)))
    expected = odds / odds.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(result.proposals.clip, expected, rtol=1e-3)
    np.testing.assert_allclose(result.scores[0, 0], 0.9 * expected[0, 0], rtol=1e-3)

  def test_max_in_the_proposer(self, segmenter):
    # The handmade "no object" is the direction of 0 degrees.
    result = segmenter.segment(
      picture(5), self.CLASSES, synonyms='max', classifier='proposer'
    )
    odds = np.exp(100 * (np.cos(np.radians([1, 3, 5])) - 1))
    expected = odds / odds.sum()
    np.testing.assert_allclose(result.proposals.proposer[0], expected[:2], rtol=1e-3)

  def test_mean(self, segmenter):
    # The means lie at 2 and 9 degrees, so 5.4 is closer to the dog, 5.6 to the cat.
    result = segmenter.segment(picture(5.4, 5.6), self.CLASSES, synonyms='mean')
    assert stripes(result) == [0, 1, NO_LABEL]
    odds = np.exp(100 * np.cos(np.radians([3.4, 3.6])))
    np.testing.assert_allclose(result.proposals.clip[0], odds / odds.sum(), rtol=1e-3)
    default = segmenter.segment(picture(5.4, 5.6), self.CLASSES)
    np.testing.assert_array_equal(default.scores, result.scores)

  def test_paper(self, segmenter):
    joined = segmenter.segment(picture(5.2, 6), ['dog, puppy', 'cat'])
    result = segmenter.segment(
      picture(5.2, 6), {'dog': ['dog', 'puppy'], 'cat': []}, synonyms='paper'
    )
    assert stripes(result) == [0, 1, NO_LABEL]
    np.testing.assert_array_equal(result.scores, joined.scores)

  def test_many_words_of_few_names(self, segmenter):
    words = [f'word {i}' for i in range(20)]
    for i, word in enumerate(words):
      segmenter.system.embedder.rows['single', word] = direction(40 + i)
    result = segmenter.segment(
      picture(59, 1), {'cat': [], 'words': words}, synonyms='max'
    )
    assert stripes(result) == [1, 0, NO_LABEL]

  def test_unknown_rule(self, segmenter):
    with pytest.raises(ValueError, match="rule for synonyms 'best'.*mean"):
      segmenter.segment(picture(0), 'dog, cat', synonyms='best')


class TestBackground:
  def test_competes_and_gets_no_label(self, segmenter):
    result = segmenter.segment(picture(0, 5, 10), 'dog, cat', background=['sky'])
    assert result.names == ('dog', 'cat')
    assert stripes(result) == [0, NO_LABEL, 1, NO_LABEL]
    np.testing.assert_array_equal(result.proposals.labels, [0, NO_LABEL, 1])
    expected = [probabilities(a, ('dog', 'cat', 'sky'))[:2] for a in (0, 5, 10)]
    np.testing.assert_allclose(result.proposals.clip, expected, rtol=1e-3)
    assert result.scores[0, 2] == 0 and set(result.shares()) == {'dog', 'cat'}
    without = segmenter.segment(picture(0, 5, 10), 'dog, cat')
    assert stripes(without) == [0, 0, 1, NO_LABEL]

  def test_takes_the_place_of_others(self, segmenter):
    result = segmenter.segment(picture(0, 5), 'dog', background='sky')
    assert stripes(result) == [0, NO_LABEL, NO_LABEL]
    expected = probabilities(0, ('dog', 'sky'))[:1]
    np.testing.assert_allclose(result.proposals.clip[0], expected, rtol=1e-3)

  def test_synonyms(self, segmenter):
    result = segmenter.segment(
      picture(4, 10), 'cat, dog', background={'young': ['puppy']}, synonyms='max'
    )
    assert stripes(result) == [NO_LABEL, 0, NO_LABEL]

  def test_none(self, segmenter):
    plain = segmenter.segment(picture(0, 5), 'dog, cat')
    for nothing in (None, [], {}):
      again = segmenter.segment(picture(0, 5), 'dog, cat', background=nothing)
      np.testing.assert_array_equal(plain.scores, again.scores)

  def test_both(self, segmenter):
    with pytest.raises(ValueError, match=r"\['dog'\] are both"):
      segmenter.segment(picture(0), 'Dog, cat', background='dog')


class TestThreshold:
  def test_lower_confidences_get_no_name(self, segmenter):
    both = picture(0, 5.3)
    plain = segmenter.segment(both, 'dog, cat')
    high, low = plain.confidence[0, 0], plain.confidence[0, 2]
    assert high > low > 0
    for threshold, expected in (
      (0.0, [0, 1, NO_LABEL]),
      (float(low), [0, 1, NO_LABEL]),  # at least
      (float(low) * 1.001, [0, NO_LABEL, NO_LABEL]),
      (float(high) * 1.001, [NO_LABEL, NO_LABEL, NO_LABEL]),
    ):
      result = segmenter.segment(both, 'dog, cat', threshold=threshold)
      assert stripes(result) == expected
      assert ((result.scores > 0) == (result.labels != NO_LABEL)).all()

  @pytest.mark.parametrize('threshold', [-0.1, 1.01, float('nan'), float('inf')])
  def test_wrong(self, segmenter, threshold):
    with pytest.raises(ValueError, match='a confidence in 0..1, got'):
      segmenter.segment(picture(0), 'dog, cat', threshold=threshold)


class TestDemo:
  def test_the_best_of_each_name_is_painted(self, segmenter):
    # 0 is the best dog, 10 the best cat; 1 is a dog too, but not the best.
    result = segmenter.segment(picture(0, 1, 10), 'dog, cat', rule='demo')
    assert stripes(result) == [0, NO_LABEL, 1, NO_LABEL]
    np.testing.assert_array_equal(result.proposals.labels, [0, NO_LABEL, 1])
    # The mask is binary: the score is the probability itself.
    expected = probabilities(0, ('dog', 'cat'))[0]
    np.testing.assert_allclose(result.scores[0, 0], expected, rtol=1e-4)
    assert stripes(segmenter.segment(picture(0, 1, 10), 'dog, cat')) == [0, 0, 1, -1]

  def test_whole_rows_are_painted(self, segmenter):
    # 4 is the best cat, and yet a dog: it is painted as what it is.
    result = segmenter.segment(picture(0, 4), 'dog, cat', rule='demo')
    assert stripes(result) == [0, 0, NO_LABEL]

  def test_masks_below_the_threshold_are_blank(self, segmenter):
    soft = CONFIG.region.threshold
    for mask, expected in ((soft - 0.01, NO_LABEL), (soft + 0.01, 0)):
      result = segmenter.segment(picture(0, soft=mask), 'dog, cat', rule='demo')
      assert stripes(result) == [expected, NO_LABEL]

  def test_a_single_name(self, segmenter):
    # 'others' takes part in the probabilities, but chooses no proposal.
    result = segmenter.segment(picture(0, 14, 2), 'dog', rule='demo')
    assert stripes(result) == [0, NO_LABEL, NO_LABEL, NO_LABEL]
    expected = probabilities(0, ('dog', 'others'))[0]
    np.testing.assert_allclose(result.scores[0, 0], expected, rtol=1e-4)
    # Its best proposal may still look more like something else.
    result = segmenter.segment(picture(12, 14), 'dog', rule='demo')
    assert stripes(result) == [NO_LABEL, NO_LABEL, NO_LABEL]

  def test_background_chooses_too(self, segmenter):
    both = picture(0, 5.5)
    result = segmenter.segment(both, 'dog, cat', background='sky', rule='demo')
    assert stripes(result) == [0, NO_LABEL, NO_LABEL]

  def test_invalid_proposals(self, segmenter):
    result = segmenter.segment(
      picture(0, 10, valid=[False, True]), 'dog, cat', rule='demo'
    )
    assert stripes(result) == [NO_LABEL, 1, NO_LABEL]
    result = segmenter.segment(
      picture(0, 10, valid=[False, False]), 'dog, cat', rule='demo'
    )
    assert stripes(result) == [NO_LABEL, NO_LABEL, NO_LABEL]

  def test_clip_alone(self, segmenter):
    for options in ({'classifier': 'proposer'}, {'weight': 0.7}):
      with pytest.raises(ValueError, match="rule 'demo' takes CLIP's"):
        segmenter.segment(picture(0), 'dog, cat', rule='demo', **options)
    segmenter.segment(picture(0), 'dog, cat', rule='demo', classifier='clip')
    with pytest.raises(ValueError, match="unknown rule 'demos'.*Did you mean 'demo'"):
      segmenter.segment(picture(0), 'dog, cat', rule='demos')


def test_segments(segmenter):
  result = segmenter.segment(picture(10, 0, 10), 'dog, sky, cat')
  first, second = result.segments()
  assert (first.label, first.name, first.box) == (2, 'cat', (0, 0, 6, 4))
  assert (second.label, second.name, second.box) == (0, 'dog', (2, 0, 4, 4))
  assert first.share == 0.5 and second.share == 0.25
  cat = 0.9 * probabilities(10, ('dog', 'sky', 'cat'))[2]
  assert first.score == pytest.approx(cat, rel=1e-3)
  nothing = segmenter.segment(picture(0, valid=[False]), 'dog, sky')
  assert nothing.segments() == []


def test_text_cache(tmp_path, monkeypatch):
  params = draw_params()
  first = Segmenter(OvSegSystem(CONFIG, params, settings=SETTINGS, text_cache=tmp_path))
  rows = first.embed_names('dog, cat')
  assert len(list(tmp_path.rglob('*.npz'))) == 1
  second = Segmenter(
    OvSegSystem(CONFIG, params, settings=SETTINGS, text_cache=tmp_path)
  )

  def forbidden(*_):
    raise AssertionError('the text tower ran')

  monkeypatch.setattr('ovs_jax.models.clip.encode_prompts', forbidden)
  np.testing.assert_array_equal(second.embed_names('cat, dog'), rows[::-1])
  off = Segmenter(OvSegSystem(CONFIG, params, settings=SETTINGS, text_cache='off'))
  with pytest.raises(AssertionError, match='the text tower ran'):
    off.embed_names('dog, cat')
