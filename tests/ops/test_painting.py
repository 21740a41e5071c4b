"""Labels by tiles against the plain way: fuse, resize, argmax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ovs_jax.ops.ensemble import fuse
from ovs_jax.ops.painting import View, best_classes, label_map, paint, whole
from ovs_jax.ops.resize import resize_bilinear


def weights_of(q, k, sharpness, seed=0):
  logits = sharpness * np.random.default_rng(seed).normal(size=(q, k))
  return jax.nn.softmax(jnp.asarray(logits, jnp.float32), axis=1)


def masks_of(q, size, seed=1):
  coarse = 4 * np.random.default_rng(seed).normal(size=(q, 4, 5))
  return jax.nn.sigmoid(resize_bilinear(jnp.asarray(coarse, jnp.float32), size))


def plain(weights, masks, size):
  return np.asarray(resize_bilinear(fuse(weights, masks), size))


def assert_same(labels, scores, want):
  np.testing.assert_allclose(scores, want.max(0), rtol=1e-5, atol=1e-7)
  best = np.sort(want, axis=0)
  clear = best[-1] - best[-2] > 1e-6 * best[-1]  # the rest are ties to rounding
  assert clear.mean() > 0.99
  np.testing.assert_array_equal(np.asarray(labels)[clear], want.argmax(0)[clear])


@pytest.mark.parametrize('size', [(9, 13), (5, 7), (21, 4), (1, 1), (40, 70)])
def test_tiles_give_the_resized_fusion(size):
  weights, masks = weights_of(4, 3, 1.0), masks_of(4, (5, 7))
  labels, scores = label_map(weights, masks, size, tile=16)
  assert labels.shape == size and labels.dtype == jnp.int32
  assert_same(labels, scores, plain(weights, masks, size))


@pytest.mark.parametrize('sharpness', [0.01, 3.0, 10.0])
def test_classes_that_are_left_out_win_nothing(sharpness):
  # Nearly equal weights leave nothing out, sharp ones nearly everything.
  weights, masks = weights_of(20, 150, sharpness), masks_of(20, (30, 40))
  labels, scores = label_map(weights, masks, (70, 90), tile=32, group=16)
  assert_same(labels, scores, plain(weights, masks, (70, 90)))
  assert len(np.unique(labels)) > 3


def test_first_of_equals_wins_whatever_the_order():
  weights = jnp.tile(jnp.array([[0.2, 0.5, 0.5, 0.1]]), (1, 20))
  labels, _ = label_map(weights, jnp.ones((1, 8, 8)), (8, 8), tile=8, group=4)
  np.testing.assert_array_equal(labels, np.ones((8, 8)))
  everything = best_classes(weights.T * 0, jnp.ones((1, 8, 8)), group=4)
  np.testing.assert_array_equal(everything[0], np.zeros((8, 8)))


def test_padding_of_masks_is_not_seen():
  weights, masks = weights_of(4, 6, 2.0), masks_of(4, (10, 12))
  padded = jnp.pad(masks, ((0, 0), (0, 6), (0, 20)), constant_values=0.9)
  got = label_map(weights, padded, (31, 25), inside=(10, 12), tile=16)
  want = label_map(weights, masks, (31, 25), tile=16)
  np.testing.assert_array_equal(got[0], want[0])
  np.testing.assert_allclose(got[1], want[1], rtol=1e-6)


def test_views_add_up_with_their_fades():
  weights, masks = weights_of(6, 3, 2.0), masks_of(6, (8, 8))
  up, down = np.linspace(0, 1, 20), np.linspace(1, 0, 20)
  one = np.ones(16)
  views = [
    View(masks[:3], (8, 8), (30, 16), (10, 0, 30, 16), (down, one)),
    View(masks[3:], (8, 8), (30, 16), (0, 0, 20, 16), (up, one)),
  ]
  labels, scores, others = paint(weights, views, tile=16)
  first = plain(weights[:3], masks[:3], (30, 16))[:, 10:] * down[None, :, None]
  second = plain(weights[3:], masks[3:], (30, 16))[:, :20] * up[None, :, None]
  want = (first + second).astype(np.float32)
  assert_same(labels, scores, want)
  np.testing.assert_allclose(others, np.sort(want, axis=0)[-2], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('sharpness', [0.01, 3.0, 10.0])
@pytest.mark.parametrize('count', [1, 2, 20, 150])
def test_the_second_best_score_is_that_of_another_class(count, sharpness):
  # Of 150 classes most are left out, and some come twice.
  weights, masks = weights_of(20, count, sharpness), masks_of(20, (30, 40))
  view = whole(masks, (70, 90))
  labels, scores, others = paint(weights, [view], tile=32, group=16)
  want = np.sort(plain(weights, masks, (70, 90)), axis=0)
  second = want[-2] if count > 1 else 0 * want[0]
  np.testing.assert_allclose(scores, want[-1], rtol=1e-5)
  np.testing.assert_allclose(others, second, rtol=1e-5, atol=1e-7)
  alone = label_map(weights, masks, (70, 90), tile=32, group=16)
  np.testing.assert_array_equal(labels, alone[0])


def test_seconds_are_found_where_one_class_wins_everything():
  # Every class but the first is second in a row of its own.
  rows = jnp.repeat(jnp.eye(16)[..., None], 16, axis=2)  # q h w
  weights = jnp.concatenate([jnp.ones((16, 1)), 0.5 * jnp.eye(16)], axis=1)
  labels, scores, others = paint(weights, [whole(rows, (16, 16))], tile=16, group=4)
  assert (labels == 0).all() and (scores == 1).all()
  np.testing.assert_array_equal(others, np.full((16, 16), 0.5))


def test_of_two_equal_classes_each_is_the_others_second():
  weights = jnp.array([[0.4, 0.1, 0.4]])
  labels, scores, others = paint(weights, [whole(jnp.ones((1, 8, 8)), (8, 8))], tile=8)
  assert (labels == 0).all()
  np.testing.assert_array_equal(scores, others)
