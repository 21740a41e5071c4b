"""Merging rules: thresholds, order, ties, emptiness, sizes."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from ovs_jax.core.types import NO_LABEL
from ovs_jax.ops.canvas import Canvas, claims_by_label, probabilities, soft_labels
from ovs_jax.ops.merging import marginalise

# Three masks on four pixels.
P = np.array([[[0.9, 0.3, 0.1, 0.29]], [[0.2, 0.6, 0.1, 0.2]], [[0.9, 0.5, 0.2, 0.1]]])
P = P.astype(np.float32)
LOGITS = np.log(P / (1 - P))
LABELS = np.array([4, 2, 7], np.int32)


def paint(logits=LOGITS, labels=LABELS, *, chunk=8, size=(1, 4), **options):
  canvas = Canvas(size, **options)
  for start in range(0, len(labels), chunk):
    canvas.add(logits[start : start + chunk], labels[start : start + chunk])
  return canvas.finish()


def test_rule_a():
  labels, scores = paint()
  assert labels.tolist() == [[4, 2, -1, -1]]
  np.testing.assert_allclose(scores, [[0.9, 0.6, 0, 0]], atol=1e-6)
  # A pixel at the threshold belongs to the mask.
  at = float(probabilities(LOGITS, (1, 4))[0, 0, 1])
  assert paint(LOGITS[:1], LABELS[:1], threshold=at)[0].tolist() == [[4, 4, -1, -1]]
  above = float(np.nextafter(np.float32(at), np.float32(1)))
  assert paint(LOGITS[:1], LABELS[:1], threshold=above)[0].tolist() == [[4, -1, -1, -1]]
  assert paint(threshold=0.0)[0].tolist() == [[4, 2, 7, 4]]
  assert paint(threshold=0.95)[0].tolist() == [[NO_LABEL] * 4]


def test_rule_a_sees_neither_order_nor_chunks():
  maps = set()
  for order in itertools.permutations(range(3)):
    order = np.array(order)
    for chunk in (1, 2, 3):
      maps.add(str(paint(LOGITS[order], LABELS[order], chunk=chunk)[0].tolist()))
  assert len(maps) == 1  # though two masks are equally probable somewhere


def test_rule_b_paints_the_smallest_last():
  # They claim 2, 1 and 2 pixels; of equally large masks the later one is on top.
  for chunk in (1, 3):
    assert paint(rule='B', chunk=chunk)[0].tolist() == [[7, 2, -1, -1]]
    in_order = paint(rule='B', by_area=False, chunk=chunk)[0]
    assert in_order.tolist() == [[7, 7, -1, -1]]
  back = slice(None, None, -1)
  painted = paint(LOGITS[back], LABELS[back], rule='B', by_area=False)[0]
  assert painted.tolist() == [[4, 4, -1, -1]]


def test_nothing_predicted():
  none = np.full((3,), -1, np.int32)
  for rule in 'AB':
    assert paint(labels=none, rule=rule)[0].tolist() == [[NO_LABEL] * 4]
    assert paint(LOGITS[:0], LABELS[:0], rule=rule)[0].tolist() == [[NO_LABEL] * 4]
  assert claims_by_label(LOGITS, none, (1, 4)) == {}
  # An "unlabeled" slot claims no pixel, however sure it is.
  sure = paint(labels=np.array([-1, 2, -1], np.int32))[0]
  assert sure.tolist() == [[-1, 2, -1, -1]]
  with pytest.raises(ValueError, match='rule C does not paint'):
    Canvas((1, 4), rule='C')
  with pytest.raises(ValueError, match='unknown merging rule'):
    Canvas((1, 4), rule='E')


def test_masks_are_resized_before_the_threshold():
  logits = np.array([[[-20.0, 20.0]]], np.float32)  # 0 and 1
  labels, scores = paint(logits, LABELS[:1], size=(1, 4))
  # Bilinear at 4 pixels: 0, 0.25, 0.75, 1.
  np.testing.assert_allclose(scores, [[0, 0, 0.75, 1]], atol=1e-5)
  assert labels.tolist() == [[-1, -1, 4, 4]]
  wide = paint(logits, LABELS[:1], size=(70, 130))[0]
  assert wide.shape == (70, 130) and (wide == wide[:1]).all()


def test_rule_c():
  cosines = np.log(np.array([[0.6, 0.3, 0.1], [0.1, 0.8, 0.1]], np.float32))
  p = np.array([[[0.999999, 0.5]], [[0.2, 0.999999]]], np.float32)
  # Pixel 0: 0.6 + 0.02 against 0.3 + 0.16; pixel 1: 0.3 + 0.1 against 0.15 + 0.8.
  want = [[0.62, 0.95]]
  for chunk in (1, 32):
    labels, sums = marginalise(
      jnp.asarray(p), jnp.asarray(cosines), tau=1.0, chunk=chunk
    )
    assert labels.tolist() == [[0, 1]]
    np.testing.assert_allclose(sums, want, atol=1e-5)
  labels, sums = soft_labels(np.log(p / (1 - p)), cosines, (1, 2), tau=1.0)
  assert labels.tolist() == [[0, 1]]
  np.testing.assert_allclose(sums, want, atol=1e-5)


def test_rule_d():
  got = claims_by_label(LOGITS, np.array([0, 2, 0], np.int32), (1, 4))
  assert {k: mask.tolist() for k, mask in got.items()} == {
    0: [[True, True, False, False]],
    2: [[False, True, False, False]],
  }
