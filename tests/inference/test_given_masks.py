"""Masks in place of proposals: named by CLIP, and painted as proposals are."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_prompted
from PIL import Image
from tiny_ovseg import CONFIG, draw_params

from ovs_jax import Segmenter
from ovs_jax.core.errors import UserError
from ovs_jax.core.mask_set import MaskSet, mask_set
from ovs_jax.core.types import NO_LABEL
from ovs_jax.inference.given_masks import EncodedMasks, shrink
from ovs_jax.inference.ovseg import OvSegSystem
from ovs_jax.inference.settings import Settings
from ovs_jax.models.ovseg import Proposed

SETTINGS = Settings(
  shortest=40, longest=96, templates='single', classifier='ensemble', weight=0.7
)
NAMES = ('red ball', 'grass', 'sky')


def propose(config, params, image, size=None):
  """Twenty smooth masks."""
  draw = np.random.default_rng(1).normal
  coarse = jnp.asarray(draw(size=(20, image.shape[0] // 4, image.shape[1] // 4)))
  rows = jnp.asarray(draw(size=(20, config.clip.embed_dim)), jnp.float32)
  none = jnp.eye(1, rows.shape[1])
  return Proposed(rows, 4 * coarse.astype(jnp.float32), none)


@pytest.fixture(scope='module')
def segmenter():
  system = OvSegSystem(CONFIG, draw_params(), settings=SETTINGS, propose=propose)
  return Segmenter(system)


@pytest.fixture
def spread_names(monkeypatch, segmenter):
  """Gives names embeddings that differ as those of a trained text tower do."""
  rows = np.random.default_rng(2).normal(size=(len(NAMES), 64)).astype(np.float32)
  return set_names(monkeypatch, segmenter, rows)


def set_names(monkeypatch, segmenter, rows):
  """Gives names embeddings, and returns them."""
  rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
  for name, row in zip(NAMES, rows, strict=True):
    monkeypatch.setitem(segmenter.system.embedder.rows, ('single', name), row)
  return rows


def name_after(monkeypatch, segmenter, regions):
  """Gives names what tells the first masks from the others, so that many win."""
  regions = np.asarray(regions)
  set_names(monkeypatch, segmenter, (regions - regions.mean(axis=0))[: len(NAMES)])


@pytest.fixture(scope='module')
def image():
  """Of the network's size."""
  small = np.random.default_rng(3).integers(0, 256, (4, 5, 3)).astype(np.uint8)
  return np.asarray(Image.fromarray(small).resize((56, 40), Image.Resampling.BICUBIC))


def given(masks, rows, valid=None):
  """Returns an encoded picture whose masks and embeddings are given."""
  masks = mask_set(masks, np.shape(masks)[1:])
  valid = np.ones(len(masks), bool) if valid is None else np.array(valid)
  return EncodedMasks(masks, np.asarray(rows, np.float32), valid)


def halves():
  left = np.zeros((4, 6), bool)
  left[:, :3] = True
  return np.stack([left, ~left])


def probability(rows, of, at):
  """Returns CLIP's softmax at a temperature of 0.01."""
  logits = 100 * rows @ rows[of].astype(np.float64)
  return float(np.exp(logits[at] - np.logaddexp.reduce(logits)))


class TestOwnMasksOfTheProposer:
  @pytest.mark.parametrize('rule', ['pixels', 'demo'])
  def test_give_the_same(self, segmenter, image, monkeypatch, rule):
    proposed = segmenter.encode(image)
    name_after(monkeypatch, segmenter, proposed.encoded.regions)
    masks = np.asarray(proposed.encoded.masks)[:, :40, :56]
    back = segmenter.encode(image, masks=masks)
    assert back.valid.any()
    np.testing.assert_array_equal(back.valid, proposed.encoded.valid)
    np.testing.assert_allclose(
      back.regions, proposed.encoded.regions, rtol=1e-3, atol=1e-4
    )
    # The rule 'demo' has no classifier to choose: it is CLIP.
    how = {'rule': rule, 'classifier': 'clip', 'maps': True}
    want = segmenter.segment(proposed, NAMES, **how)
    found = segmenter.segment(back, NAMES, **how)
    np.testing.assert_array_equal(found.labels, want.labels)
    assert len(np.unique(found.labels)) > 1
    for field in ('scores', 'confidence', 'margin'):
      np.testing.assert_allclose(
        getattr(found, field), getattr(want, field), rtol=1e-3, atol=1e-4
      )
    np.testing.assert_allclose(
      found.confidence_map('sky'), want.confidence_map('sky'), rtol=1e-3, atol=1e-4
    )
    np.testing.assert_array_equal(found.proposals.labels, want.proposals.labels)
    np.testing.assert_allclose(
      found.proposals.clip, want.proposals.clip, rtol=1e-2, atol=1e-4
    )

  def test_clip_is_the_classifier_without_asking(self, segmenter, image, spread_names):
    back = segmenter.encode(image, masks=propose_masks(image))
    default = segmenter.segment(back, NAMES)
    clip = segmenter.segment(back, NAMES, classifier='clip')
    np.testing.assert_array_equal(default.scores, clip.scores)


def propose_masks(image):
  """Returns rectangles of the picture's size, of which some overlap."""
  masks = np.zeros((5, *image.shape[:2]), bool)
  for i, (y, x) in enumerate([(0, 0), (5, 9), (20, 30), (11, 2), (25, 40)]):
    masks[i, y : y + 12, x : x + 15] = True
  return masks


class TestPainting:
  def test_two_disjoint_masks(self, segmenter, spread_names):
    result = segmenter.segment(given(halves(), spread_names[[1, 0]]), NAMES)
    np.testing.assert_array_equal(result.labels, np.where(halves()[0], 1, 0))
    left = probability(spread_names, of=1, at=1)
    right = probability(spread_names, of=0, at=0)
    expected = np.where(halves()[0], left, right)
    np.testing.assert_allclose(result.scores, expected, rtol=1e-4)
    np.testing.assert_array_equal(result.proposals.boxes, [[0, 0, 3, 4], [3, 0, 6, 4]])
    np.testing.assert_array_equal(result.proposals.labels, [1, 0])
    assert np.isnan(result.proposals.proposer).all()

  def test_overlaps_add_up(self, segmenter, spread_names):
    masks = np.zeros((3, 1, 4), np.float32)
    masks[0, 0, :3] = 0.6  # grass
    masks[1, 0, 1:] = 0.5  # sky
    masks[2, 0, 2] = 0.4  # sky again: together more than grass
    rows = 10 * spread_names[[1, 2, 2]]  # lengths play no part
    result = segmenter.segment(given(masks, rows), NAMES)
    np.testing.assert_array_equal(result.labels, [[1, 1, 2, 2]])
    sure = probability(spread_names, of=1, at=1)
    assert sure > 0.99
    np.testing.assert_allclose(result.scores, [[0.6, 0.6, 0.9, 0.5]], rtol=0.01)
    # All evidence: 0.6, 0.6 + 0.5, 0.6 + 0.5 + 0.4, 0.5; "nothing" has the rest of 1.
    share = [[0.6, 0.6 / 1.1, 0.9 / 1.5, 0.5]]
    np.testing.assert_allclose(result.confidence, share, rtol=0.01)

  def test_pixels_without_a_mask_or_sure_enough_get_no_name(
    self, segmenter, spread_names
  ):
    masks = np.array([[[1, 0.3, 0]]], np.float32)
    picture = given(masks, spread_names[:1])
    found = segmenter.segment(picture, NAMES).labels
    np.testing.assert_array_equal(found, [[0, 0, NO_LABEL]])
    found = segmenter.segment(picture, NAMES, threshold=0.5).labels
    np.testing.assert_array_equal(found, [[0, NO_LABEL, NO_LABEL]])
    found = segmenter.segment(picture, NAMES[1:], background=NAMES[0]).labels
    np.testing.assert_array_equal(found, [[NO_LABEL] * 3])

  def test_empty_masks_get_no_name(self, segmenter, spread_names):
    masks = halves().astype(np.float32)
    masks[0] *= 0.2  # nowhere above the threshold of 0.4
    picture = given(masks, spread_names[[1, 0]], valid=[False, True])
    result = segmenter.segment(picture, NAMES)
    np.testing.assert_array_equal(result.labels, np.where(halves()[0], NO_LABEL, 0))
    assert len(result.proposals.labels) == 1

  def test_order_does_not_matter(self, segmenter, image, monkeypatch):
    masks = propose_masks(image)
    forth = segmenter.encode(image, masks=masks)
    name_after(monkeypatch, segmenter, forth.regions)
    back = segmenter.encode(image, masks=list(masks[::-1]))
    np.testing.assert_allclose(forth.regions, back.regions[::-1], rtol=1e-3, atol=1e-4)
    one, other = (segmenter.segment(x, NAMES) for x in (forth, back))
    np.testing.assert_array_equal(one.labels, other.labels)
    assert len(np.unique(one.labels)) > 2
    np.testing.assert_allclose(one.scores, other.scores, rtol=1e-3, atol=1e-5)

  def test_squares_leave_no_seam(self, segmenter, spread_names):
    draw = np.random.default_rng(0).random
    masks, rows = draw((40, 150, 290)).astype(np.float32), draw((40, 64)) - 0.5
    result = segmenter.segment(given(masks, rows), NAMES)
    logits = 100 * (rows / np.linalg.norm(rows, axis=1)[:, None]) @ spread_names.T
    weights = np.exp(logits - np.logaddexp.reduce(logits, axis=1)[:, None])
    scores = np.einsum('qk,qhw->khw', weights, masks)
    np.testing.assert_array_equal(result.labels, scores.argmax(axis=0))
    np.testing.assert_allclose(result.scores, scores.max(axis=0), rtol=1e-3)


class TestEach:
  def test_known_answer(self, segmenter, spread_names):
    masks = np.zeros((3, 4, 6), np.float32)
    masks[0, 1:3, 2:] = 0.5
    masks[0, 0, 0] = 0.3  # below the threshold of 0.4
    masks[1, :, :3] = 1  # overlaps the first, which plays no part
    masks = mask_set(masks, (4, 6))
    cuts = zip(masks.cuts, ['a', 7, 8], strict=True)
    masks = MaskSet((4, 6), tuple(dataclasses.replace(c, source=s) for c, s in cuts))
    rows = np.float32([spread_names[2], spread_names[0] + spread_names[1], [1] * 64])
    picture = EncodedMasks(masks, rows, np.array([True, True, False]))
    found = segmenter.segment(picture, NAMES, rule='each')
    assert found.size == (4, 6) and found.names == NAMES
    assert [mask.source for mask in found.masks] == ['a', 7, 8]
    assert [mask.area for mask in found.masks] == [8, 12, 0]
    assert [m.box for m in found.masks] == [(2, 1, 6, 3), (0, 0, 3, 4), None]
    assert found.masks[0].name == 'sky' and found.masks[0].top[0][0] == 'sky'
    sure = probability(spread_names, of=2, at=2)
    assert found.masks[0].top[0][1] == pytest.approx(sure, rel=1e-4)
    # Two names are as probable: together they have all but nothing.
    assert {name for name, _ in found.masks[1].top[:2]} == {'red ball', 'grass'}
    for _, share in found.masks[1].top[:2]:
      assert share == pytest.approx(0.5, abs=0.01)
    assert found.masks[2].name is None and found.masks[2].top == ()

  def test_background_and_threshold_take_the_name(self, segmenter, spread_names):
    picture = given(halves(), [spread_names[0] + spread_names[1], spread_names[2]])
    found = segmenter.segment(picture, NAMES, rule='each', threshold=0.6)
    assert [mask.name for mask in found.masks] == [None, 'sky']
    found = segmenter.segment(picture, NAMES[:2], background='sky', rule='each')
    assert found.masks[0].name in NAMES[:2] and found.masks[1].name is None
    assert {name for name, _ in found.masks[1].top} == set(NAMES[:2])

  def test_five_names_at_most(self, segmenter):
    names = [f'thing {i}' for i in range(9)]
    picture = given(halves(), np.random.default_rng(0).normal(size=(2, 64)))
    for mask in segmenter.segment(picture, names, rule='each').masks:
      sure = [confidence for _, confidence in mask.top]
      assert len(sure) == 5 and sure == sorted(sure, reverse=True)

  def test_paints_nothing_and_needs_masks(self, segmenter, image):
    with pytest.raises(UserError, match="the rule 'each' paints nothing"):
      picture = given(halves(), np.ones((2, 64)))
      segmenter.segment(picture, NAMES, rule='each', maps=True)
    with pytest.raises(UserError, match="the rule 'each' names masks that are given"):
      segmenter.segment(segmenter.encode(image), NAMES, rule='each')


class TestEncoding:
  def test_thousands_of_tiny_masks(self, segmenter, image, spread_names, monkeypatch):
    blocks = []
    real = np.zeros

    def zeros(shape, *rest):
      blocks.append(np.prod(shape))
      return real(shape, *rest)

    size = image.shape[:2]
    masks = real((size[0] * size[1], *size), bool).reshape(-1, size[0] * size[1])
    masks[np.arange(len(masks)), np.arange(len(masks))] = True
    masks = mask_set(masks.reshape(-1, *size), size)
    monkeypatch.setattr('ovs_jax.inference.given_masks.np.zeros', zeros)
    found = segmenter.encode(image, masks=masks)
    assert found.valid.all() and len(found.valid) == 2240
    assert max(blocks) == 32 * 64 * 64  # never all of them
    monkeypatch.undo()
    result = segmenter.segment(found, NAMES)
    assert (result.labels != NO_LABEL).all()
    assert len(result.proposals.labels) == 2240

  def test_thin_masks_are_seen(self):
    mask = np.zeros((8, 8), np.float32)
    mask[5, 2] = 1  # a sixteenth of one of the network's pixels
    expected = np.zeros((2, 2))
    expected[1, 0] = 1
    np.testing.assert_array_equal(shrink(mask, (2, 2), 0.4) > 0.4, expected > 0)
    assert not (shrink(0.3 * mask, (2, 2), 0.4) > 0.4).any()
    mask[4:, :4] = 1
    np.testing.assert_array_equal(shrink(mask, (2, 2), 0.4) > 0.4, expected > 0)

  def test_larger_photos_keep_the_masks_pixels(self, segmenter, image, spread_names):
    photo = image.repeat(3, axis=0).repeat(3, axis=1)
    masks = np.zeros((1, *photo.shape[:2]), bool)
    masks[0, 7:31, 11:101] = True
    result = segmenter.segment(segmenter.encode(photo, masks=masks), NAMES)
    np.testing.assert_array_equal(result.labels != NO_LABEL, masks[0])


class TestRefusals:
  @pytest.mark.parametrize(
    ('options', 'message'),
    [
      ({'classifier': 'ensemble'}, 'named by CLIP alone'),
      ({'classifier': 'proposer'}, 'named by CLIP alone'),
      ({'weight': 0.5}, 'named by CLIP alone'),
      ({'panoptic': True}, 'a panoptic result divides proposals'),
    ],
  )
  def test_what_needs_the_proposer(self, segmenter, options, message):
    picture = given(halves(), np.ones((2, 64)))
    with pytest.raises(UserError, match=message):
      segmenter.segment(picture, NAMES, **options)

  @pytest.mark.parametrize(
    ('changed', 'message'),
    [
      ({'mode': 'filtered'}, "the mode 'filtered' chooses among proposals"),
      ({'classifier_asked': True}, 'named by CLIP alone'),
    ],
  )
  def test_how_the_model_was_loaded(self, segmenter, image, changed, message):
    settings = dataclasses.replace(SETTINGS, **changed)
    system = OvSegSystem(CONFIG, segmenter.system.params, settings=settings)
    with pytest.raises(UserError, match=message):
      Segmenter(system).encode(image, masks=propose_masks(image))

  def test_several_images_and_windows(self, segmenter, image):
    masks = propose_masks(image)
    for images, more in (([image], {}), (image, {'window': 32})):
      with pytest.raises(UserError, match='belong to one whole image'):
        segmenter.encode(images, masks=masks, **more)

  @pytest.mark.parametrize('kind', ['clipseg', 'coseg'])
  def test_other_models(self, image, kind, tmp_path):
    other = Segmenter.load(tiny_prompted.save(tmp_path)[kind])
    with pytest.raises(UserError, match=f"masks: not for a '{kind}' checkpoint"):
      other.encode(image, masks=propose_masks(image))
