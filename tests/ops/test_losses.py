"""Losses by hand and by a plain computation."""

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.ops import losses as ops
from ovs_jax.ops.losses import (
  attention_loss,
  contrastive_loss,
  dice_loss,
  focal_loss,
  naming_loss,
)

set_losses = jax.jit(ops.set_losses)


def test_focal_and_dice_by_hand():
  logits, target = jnp.array([2.0, -1, 0, 3]), jnp.array([1.0, 0, 0, 1])
  np.testing.assert_allclose(focal_loss(logits, target), 0.0368592, rtol=1e-5)
  np.testing.assert_allclose(dice_loss(logits, target), 0.1669971, rtol=1e-5)


def example():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(2, 4, 3)).astype(np.float32)
  masks = rng.normal(size=(2, 4, 3, 5)).astype(np.float32)
  labels = np.array([[1, 0, 0], [0, 0, 0]], np.int32)
  targets = (rng.random((2, 3, 3, 5)) < 0.4).astype(np.float32)
  valid = np.array([[True, True, False], [False] * 3])
  queries = np.array([[2, 0, 1], [0, 1, 2]], np.int32)
  return [jnp.asarray(x) for x in (logits, masks, labels, targets, valid, queries)]


def test_set_losses_by_hand():
  logits, masks, labels, targets, valid, queries = example()
  losses = set_losses(logits, masks, labels, targets, valid, queries)
  classes = np.full((2, 4), 2)
  classes[0, 2], classes[0, 0] = 1, 0
  log_p = np.asarray(jax.nn.log_softmax(logits))
  nll = -np.take_along_axis(log_p, classes[..., None], axis=-1)[..., 0]
  weights = np.where(classes == 2, 0.1, 1.0)
  np.testing.assert_allclose(
    losses['ce'], (weights * nll).sum() / weights.sum(), rtol=1e-5
  )
  chosen = masks[0, jnp.array([2, 0])].reshape(2, -1)
  truth = targets[0, :2].reshape(2, -1)
  np.testing.assert_allclose(
    losses['mask'], focal_loss(chosen, truth).mean(), rtol=1e-5
  )
  np.testing.assert_allclose(losses['dice'], dice_loss(chosen, truth).mean(), rtol=1e-5)


def test_padded_targets_change_nothing():
  logits, masks, labels, targets, valid, queries = example()
  want = set_losses(logits, masks, labels, targets, valid, queries)
  other = set_losses(
    logits,
    masks,
    labels.at[0, 2].set(1),
    targets.at[:, 2].set(1.0),
    valid,
    queries.at[0, 2].set(2),
  )
  for name in want:
    np.testing.assert_array_equal(want[name], other[name])


def test_no_targets_leave_only_the_classification():
  logits, masks, labels, targets, valid, queries = example()
  losses = set_losses(logits, masks, labels, targets, valid & False, queries)
  assert losses['mask'] == losses['dice'] == 0
  want = -np.asarray(jax.nn.log_softmax(logits))[..., 2].mean()
  np.testing.assert_allclose(losses['ce'], want, rtol=1e-5)


def test_sizes_count_alike_however_many_masks_they_have():
  masks = np.zeros((2, 3, 10, 10), np.float32)
  for at, area in (((0, 0), 50), ((0, 1), 5), ((0, 2), 9), ((1, 0), 2), ((1, 1), 99)):
    masks[at].flat[:area] = 1  # one large, three medium; the last is padding
  valid = np.array([[True, True, True], [True, False, False]])
  for balance, large, medium in ((0.0, 1, 1), (1.0, 2, 2 / 3), (0.5, 1.46410, 0.84530)):
    found = jax.jit(ops.size_counts, static_argnums=2)(masks, valid, balance)
    want = [[large, medium, medium], [medium, 0, 0]]
    np.testing.assert_allclose(found, want, rtol=1e-5)
  none = ops.size_counts(jnp.asarray(masks), jnp.zeros((2, 3), bool), 1.0)
  assert not none.any()


def test_masks_count_as_they_are_told():
  logits, masks, labels, targets, valid, queries = example()
  given = (logits, masks, labels, targets)
  first, second = (
    set_losses(*given, valid & (jnp.arange(3) == k)[None], queries) for k in range(2)
  )
  counts = jnp.array([[1.6, 0.4, 7.0], [3.0, 3.0, 3.0]])
  found = set_losses(*given, valid, queries, counts)
  for name in ('mask', 'dice'):
    want = (1.6 * first[name] + 0.4 * second[name]) / 2
    np.testing.assert_allclose(found[name], want, rtol=1e-5)
  assert found['ce'] == set_losses(*given, valid, queries)['ce']


def test_extreme_logits_stay_finite():
  logits = jnp.array([200.0, -200.0])
  for target in (jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])):
    value, grad = jax.value_and_grad(lambda x, t=target: focal_loss(x, t))(logits)
    assert np.isfinite(value) and np.isfinite(grad).all()


def test_naming_counts_valid_targets_alone():
  logits = np.array([[[2.0, 0.0], [0.0, 1.0], [9.0, 0.0]]], np.float32)
  labels, valid = np.array([[0, 0, 1]]), np.array([[True, True, False]])
  loss, accuracy = jax.jit(naming_loss)(logits, labels, valid)
  want = (np.log1p(np.exp(-2.0)) + np.log1p(np.exp(1.0))) / 2
  np.testing.assert_allclose(loss, want, rtol=1e-6)
  assert accuracy == 0.5
  assert jax.jit(naming_loss)(logits, labels, np.zeros((1, 3), bool)) == (0, 0)


def test_attention_on_targets_by_hand():
  # Two heads, three queries, four cells; query 2 is matched with the first target.
  weights = jnp.full((1, 2, 3, 4), 0.25)
  rows = jnp.array([[0.5, 0.3, 0.2, 0.0], [0.1, 0.1, 0.8, 0.0]])
  weights = weights.at[0, :, 2].set(rows)
  parts = jnp.array([[[1.0, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]])
  queries = jnp.array([[2, 0]])
  shares = [0.5 + 0.15, 0.1 + 0.05]
  loss, share = jax.jit(attention_loss)(
    weights, parts, jnp.array([[True, False]]), queries
  )
  np.testing.assert_allclose(loss, -np.mean(np.log(shares)), rtol=1e-4)
  np.testing.assert_allclose(share, np.mean(shares), rtol=1e-6)
  loss, share = attention_loss(weights, parts, jnp.array([[True, True]]), queries)
  np.testing.assert_allclose(loss, -np.mean(np.log([*shares, 0.25, 0.25])), rtol=1e-4)
  np.testing.assert_allclose(share, np.mean([*shares, 0.25, 0.25]), rtol=1e-6)
  nothing = attention_loss(weights, parts, jnp.zeros((1, 2), bool), queries)
  assert nothing == (0, 0)


def test_contrastive_loss_by_hand():
  image = jnp.eye(2)
  text = jnp.array([[1.0, 0.0], [0.6, 0.8]])
  loss, accuracy = contrastive_loss(image, text, jnp.float32(2.0))
  # Logits [[2, 1.2], [0, 1.6]]; columns [2, 0] and [1.2, 1.6].
  rows = np.log1p(np.exp(-0.8)) + np.log1p(np.exp(-1.6))
  columns = np.log1p(np.exp(-2.0)) + np.log1p(np.exp(-0.4))
  np.testing.assert_allclose(loss, (rows + columns) / 4, rtol=1e-5)
  assert accuracy == 1


def test_equal_texts_are_negatives_that_turn_no_gradient():
  unit = jnp.array([[1.0, 0.0], [1.0, 0.0]])
  loss, accuracy = contrastive_loss(unit, unit, jnp.float32(100.0))
  np.testing.assert_allclose(loss, np.log(2), rtol=1e-5)
  assert accuracy == 0.5
  scale = jnp.float32(100.0)
  gradient = jax.grad(lambda image: contrastive_loss(image, unit, scale)[0])(unit)
  np.testing.assert_allclose(gradient[0] + gradient[1], 0, atol=1e-5)
