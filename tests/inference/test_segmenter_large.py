"""Several pictures at once, windows, and segments with ids."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tiny_ovseg import CONFIG, draw_params, handmade

from ovs_jax import Segmenter
from ovs_jax.core.types import NO_LABEL
from ovs_jax.inference.encode import EncodedWindows, window_starts
from ovs_jax.inference.label import fades, intervals, label_windows
from ovs_jax.inference.ovseg import OvSegSystem
from ovs_jax.inference.panoptic import divide
from ovs_jax.inference.settings import Settings

SETTINGS = Settings(
  shortest=40, longest=96, templates='single', classifier='ensemble', weight=0.7
)
NAMES = 'red ball, grass'


def blobs(h, w, seed=3):
  small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3)).astype(np.uint8)
  return np.asarray(Image.fromarray(small).resize((w, h), Image.Resampling.BICUBIC))


@pytest.fixture(scope='module')
def segmenter():
  return Segmenter(OvSegSystem(CONFIG, draw_params(), settings=SETTINGS))


def test_a_list_gives_what_each_picture_gives_alone(segmenter):
  pictures = [blobs(50, 70), blobs(64, 48, 4), blobs(50, 70, 5)]
  together = segmenter.encode(pictures)
  assert [one.size for one in together] == [(50, 70), (64, 48), (50, 70)]
  for picture, one in zip(pictures, together, strict=True):
    alone = segmenter.encode(picture)
    np.testing.assert_array_equal(one.encoded.masks, alone.encoded.masks)
    valid = np.asarray(alone.encoded.valid)
    np.testing.assert_allclose(
      np.asarray(one.encoded.regions)[valid],
      np.asarray(alone.encoded.regions)[valid],
      rtol=1e-4,
      atol=1e-4,
    )
    # Those that nobody looks at are marked, not computed.
    np.testing.assert_array_equal(np.asarray(one.encoded.regions)[~valid], 1)
  assert segmenter.encode([]) == []


class TestWindows:
  def test_starts_are_spread_and_overlap(self):
    assert window_starts(10, 10, 0.25) == [0]
    assert window_starts(11, 10, 0.25) == [0, 1]
    assert window_starts(100, 40, 0.25) == [0, 30, 60]
    assert window_starts(101, 40, 0.25) == [0, 20, 41, 61]

  @pytest.mark.parametrize('starts', [[0], [0, 30, 60], [0, 20, 41, 60]])
  def test_fades_sum_to_one_and_have_no_jump(self, starts):
    side = 40 if len(starts) > 1 else 100
    _, table = fades(100, starts, side)
    np.testing.assert_allclose(table.sum(axis=0), 1, rtol=1e-6)
    for row, start in zip(table, starts, strict=True):
      assert not row[:start].any() and not row[start + side :].any()
    assert np.abs(np.diff(table, axis=1)).max() < 0.12

  def test_intervals_have_constant_windows(self):
    _, table = fades(100, [0, 30, 60], 40)
    assert intervals(table) == [
      (0, 30, [0]),
      (30, 40, [0, 1]),
      (40, 60, [1]),
      (60, 70, [1, 2]),
      (70, 100, [2]),
    ]

  def test_windows_that_agree_show_no_seam(self):
    # Each window has what it cuts out of one large picture: the result must be that
    # of the large picture.
    h, w, side = 40, 100, 40
    y, x = np.mgrid[:h, :w]
    whole = np.stack([0.5 + 0.5 * np.sin(x / 9), 0.5 + 0.5 * np.cos(y / 7 + x / 11)])
    starts = window_starts(w, side, 0.25)
    logits = np.log(whole.clip(1e-3, 1 - 1e-3) / (1 - whole.clip(1e-3, 1 - 1e-3)))
    parts = [
      handmade(logits[:, :, s : s + side], np.eye(2, 64), size=(h, side))
      for s in starts
    ]
    corners = tuple((0, s) for s in starts)
    picture = EncodedWindows((h, w), corners, tuple(parts), (h, side))
    weights = jnp.array([[0.9, 0.1], [0.2, 0.8]])
    labels, scores, others = label_windows(picture, [weights] * len(starts))
    want = np.einsum('qk,qhw->khw', weights, whole.clip(1e-3, 1 - 1e-3))
    np.testing.assert_allclose(scores, want.max(0), rtol=1e-4)
    np.testing.assert_allclose(others, want.min(0), rtol=1e-4)
    clear = np.abs(want[0] - want[1]) > 1e-4
    np.testing.assert_array_equal(labels[clear], want.argmax(0)[clear])
    assert 0.2 < labels.mean() < 0.8

  def test_windows_that_disagree_give_way_gradually(self):
    side, w = 40, 70
    parts = [
      handmade(np.full((1, 8, side), 9.0), np.eye(1, 64), size=(8, side))
      for _ in range(2)
    ]
    picture = EncodedWindows((8, w), ((0, 0), (0, 30)), tuple(parts), (8, side))
    weights = [jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 1.0]])]
    labels, scores, _ = label_windows(picture, weights)
    np.testing.assert_array_equal(labels[0], np.arange(w) >= 35)
    assert np.abs(np.diff(scores, axis=1)).max() < 0.11
    assert scores.min() == pytest.approx(0.55, abs=0.01)

  def test_a_large_picture(self, segmenter):
    picture = segmenter.encode(blobs(60, 100), window=60)
    assert picture.corners == ((0, 0), (0, 40))
    result = segmenter.segment(picture, NAMES)
    assert result.labels.shape == (60, 100)
    assert set(np.unique(result.labels)) <= {NO_LABEL, 0, 1}
    boxes = result.proposals.boxes
    assert boxes[:, 2].max() > 60 and (boxes[:, 2] <= 100 + 1e-3).all()
    valid = sum(int(one.encoded.valid.sum()) for one in picture.windows)
    assert len(boxes) == len(result.proposals.clip) == valid

  def test_a_picture_that_fits_is_not_cut(self, segmenter):
    whole, cut = (segmenter.encode(blobs(50, 70), window=w) for w in (None, 70))
    np.testing.assert_array_equal(whole.encoded.masks, cut.encoded.masks)

  @pytest.mark.parametrize(
    ('options', 'message'),
    [
      ({'window': 31}, 'at least 32 pixels'),
      ({'window': 64, 'overlap': 0.6}, r'share in 0\.\.0\.5'),
    ],
  )
  def test_mistakes(self, segmenter, options, message):
    with pytest.raises(ValueError, match=message):
      segmenter.encode(blobs(50, 70), **options)

  @pytest.mark.parametrize('options', [{'rule': 'demo'}, {'panoptic': True}])
  def test_what_needs_a_whole_picture(self, segmenter, options):
    part = handmade(np.zeros((1, 4, 4)), np.eye(1, 64))
    picture = EncodedWindows((4, 4), ((0, 0),), (part,), (4, 4))
    with pytest.raises(ValueError, match='whole picture'):
      segmenter.segment(picture, NAMES, **options)


class TestPanoptic:
  def three(self):
    """Left and right half, and a copy of the left that is hidden by it."""
    left = np.zeros((4, 6))
    left[:, :3] = 0.9
    right = np.zeros((4, 6))
    right[:, 3:] = 0.8
    return handmade([left, right, left * 0.9], np.eye(3, 64), size=(8, 12))

  def test_one_segment_per_proposal_that_is_seen(self):
    weights = jnp.array([[0.9, 0.1, 0.0], [0.6, 0.1, 0.0], [0.5, 0.4, 0.0]])
    found = divide(self.three(), weights, ['cat', 'dog'], trained=False)
    assert not found.trained
    # Both halves are of the same name, and stay two segments.
    assert [(s.id, s.name, s.area) for s in found.segments] == [
      (1, 'cat', 48),
      (2, 'cat', 48),
    ]
    np.testing.assert_array_equal(found.ids[:, 0], 1)
    np.testing.assert_array_equal(found.ids[:, 11], 2)
    assert found.segments[0].box[:2] == (0, 0)
    assert found.segments[1].score == pytest.approx(0.6)

  def test_background_and_faint_masks_have_no_segment(self):
    weights = jnp.array([[0.1, 0.2, 0.9], [0.6, 0.1, 0.0], [0.0, 0.1, 0.0]])
    found = divide(self.three(), weights, ['cat', 'dog'], trained=True)
    assert [s.name for s in found.segments] == ['cat'] and found.trained
    assert not found.ids[:, 0].any()  # the third class is background
    faint = self.three()
    inner = dataclasses.replace(faint.encoded, masks=faint.encoded.masks * 0.5)
    faint = dataclasses.replace(faint, encoded=inner)
    assert not divide(faint, weights, ['cat', 'dog'], trained=True).segments

  def test_of_a_picture(self, segmenter):
    picture = segmenter.encode(blobs(50, 70))
    result = segmenter.segment(picture, NAMES, panoptic=True)
    panoptic = result.panoptic
    assert panoptic.ids.shape == (50, 70) and not panoptic.trained
    for segment in panoptic.segments:
      assert (panoptic.ids == segment.id).sum() == segment.area
      assert segment.name == result.names[segment.label]
    assert segmenter.segment(picture, NAMES).panoptic is None
