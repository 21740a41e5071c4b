"""Targets and losses of CoSeg, against cases worked out by hand."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from ovs_jax.core.types import VOID
from ovs_jax.ops import coseg

EYE = jnp.eye(3)


def lang(tokens, ids, anchors=EYE, **changes):
  options = {'tau': 0.08, 'duplicates': 'literal', 'direction': 'pred2gt', **changes}
  return float(
    coseg.language_loss(jnp.asarray(tokens), jnp.asarray(ids), anchors, **options)
  )


def test_targets_are_sorted_by_area():
  label = np.full((1, 4, 4), VOID)
  label[0, 0] = 5  # four pixels
  label[0, 1, :2] = 2  # two, as many as class 1
  label[0, 1, 2:] = 1
  label[0, 2, 0] = 0
  ids, masks = coseg.area_targets(jnp.asarray(label), 5, 6)
  assert ids.tolist() == [[5, 1, 2, 0, 6]]
  assert masks.sum(axis=(2, 3)).tolist() == [[4, 2, 2, 1, 0]]
  assert masks[0, 0, 0].all() and masks[0, 1, 1].tolist() == [0, 0, 1, 1]
  ids, masks = coseg.area_targets(jnp.asarray(label), 2, 6)
  assert ids.tolist() == [[5, 1]]  # the smallest are dropped
  ids, masks = coseg.area_targets(jnp.full((1, 2, 2), VOID), 8, 6)
  assert ids.tolist() == [[6] * 8] and not masks.any()


def test_pads_cost_the_logarithm_of_their_number():
  # e1 and two pads e2, predicted perfectly.
  tokens = EYE[jnp.array([[0, 2, 2]])]
  assert lang(tokens, [[0, 2, 2]]) == pytest.approx(0.46210, abs=1e-5)
  assert lang(tokens, [[0, 2, 2]], duplicates='dedup') == pytest.approx(4e-6, abs=1e-6)
  assert lang(tokens, [[0, 2, 2]], duplicates='mask_pads') == pytest.approx(0, abs=1e-6)
  # The length of tokens plays no part.
  assert lang(7 * tokens, [[0, 2, 2]]) == pytest.approx(0.46210, abs=1e-5)
  # One label and twelve pads: log 12 on each pad, nothing on the label.
  ids = [[0] + [2] * 12]
  loss = lang(EYE[jnp.array(ids)], ids)
  assert loss == pytest.approx(12 / 13 * math.log(12), abs=1e-4)


def test_directions_of_the_language_loss():
  tokens = jnp.array([[[1.0, 0, 0], [1, 0, 0]]])
  ids = [[0, 1]]
  # Cosines 1 0 / 1 0: rows give log(1 + e) - 1 and log(1 + e), columns log 2.
  forward = math.log(1 + math.e) - 0.5
  options = {'tau': 1.0}
  assert lang(tokens, ids, **options) == pytest.approx(forward, abs=1e-6)
  back = lang(tokens, ids, direction='gt2pred', **options)
  assert back == pytest.approx(math.log(2), abs=1e-6)
  both = lang(tokens, ids, direction='both', **options)
  assert both == pytest.approx((forward + math.log(2)) / 2, abs=1e-6)
  # As the formula is printed, pads compete and cannot be satisfied.
  perfect = EYE[jnp.array([[0, 2, 2]])]
  floor = lang(perfect, [[0, 2, 2]], direction='gt2pred')
  assert floor == pytest.approx(2 / 3 * math.log(2), abs=1e-4)
  dedup = lang(perfect, [[0, 2, 2]], direction='gt2pred', duplicates='dedup')
  assert dedup == pytest.approx(0, abs=1e-5)
  with pytest.raises(ValueError, match="Did you mean 'dedup'"):
    lang(tokens, ids, duplicates='dedupe')


def test_vocabulary_loss():
  tokens = jnp.array([[[2.0, 0, 0]]])
  loss = coseg.vocabulary_loss(tokens, jnp.array([[1]]), EYE, tau=1.0)
  assert float(loss) == pytest.approx(math.log(math.e + 2), abs=1e-5)
  weights = jnp.array([[1.0, 0.0]])
  two = jnp.array([[[2.0, 0, 0], [0, 0, 1.0]]])
  ids = jnp.array([[1, 0]])
  loss = coseg.vocabulary_loss(two, ids, EYE, tau=1.0, weights=weights)
  assert float(loss) == pytest.approx(math.log(math.e + 2), abs=1e-5)


def test_mask_losses():
  # The constant p = 0.05 where 5 % are positive.
  masks = np.zeros((1, 2, 10, 10), bool)
  masks[0, 0, 0] = True
  logits = jnp.full(masks.shape, math.log(0.05 / 0.95))
  losses = coseg.mask_losses(logits, jnp.asarray(masks))
  assert float(losses['bce']) == pytest.approx(0.19852, abs=1e-5)
  # Dice of the filled mask only: 1 - (2 * 0.5 + 1) / (5 + 10 + 1).
  assert float(losses['dice']) == pytest.approx(1 - 2 / 16, abs=1e-5)
  focal = 0.25 * 0.95**2 * -math.log(0.05) * 0.1
  focal += 0.75 * 0.05**2 * -math.log(0.95) * 0.9
  assert float(losses['focal']) == pytest.approx(focal, abs=1e-6)
  light = coseg.mask_losses(logits, jnp.asarray(masks), empty_weight=0.0)
  want = -(0.1 * math.log(0.05) + 0.9 * math.log(0.95))
  assert float(light['bce']) == pytest.approx(want, abs=1e-5)
  # Without the rows of class 0, everything left is negative.
  ignore = jnp.asarray(masks[:, 0])
  left = coseg.mask_losses(logits, jnp.asarray(masks), ignore=ignore)
  assert float(left['bce']) == pytest.approx(-math.log(0.95), abs=1e-5)
  empty = coseg.mask_losses(logits, jnp.zeros(masks.shape, bool))
  assert float(empty['dice']) == float(empty['focal']) == 0


def test_matching_undoes_a_permutation():
  rng = np.random.default_rng(0)
  label = jnp.asarray(rng.integers(0, 3, (2, 6, 6)))
  ids, masks = coseg.area_targets(label, 5, 3)
  anchors = jnp.eye(4)
  order = jnp.array([3, 0, 4, 2, 1])
  tokens = anchors[ids][:, order]
  logits = jnp.where(masks, 9.0, -9.0)[:, order]
  got_ids, got_masks = coseg.match_slots(tokens, logits, ids, masks, anchors)
  np.testing.assert_array_equal(got_ids, ids[:, order])
  np.testing.assert_array_equal(got_masks, masks[:, order])
  assert sorted(got_ids[0].tolist()) == sorted(ids[0].tolist())


def test_log_areas():
  masks = jnp.zeros((1, 2, 2, 2), bool).at[0, 0, 0, 0].set(True)
  np.testing.assert_allclose(coseg.log_areas(masks), [[math.log(0.25), 0]], atol=1e-6)
