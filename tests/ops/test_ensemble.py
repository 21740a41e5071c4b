"""The ensemble's numbers, and label maps by blocks."""

import jax.numpy as jnp
import numpy as np
import pytest

from ovs_jax.ops.ensemble import average, check_weights, class_logits, combine

# The softmax of these rows is [.66524, .24473, .09003] and [.26894, .73106].
PROPOSER = jnp.log(jnp.array([[0.66524, 0.24473, 0.09003]] * 2))
CLIP = jnp.log(jnp.array([[0.26894, 0.73106]] * 2))
VALID = jnp.array([True, False])


def test_worked_example():
  got = combine(PROPOSER, CLIP, VALID, classifier='ensemble', weight=0.7)
  np.testing.assert_allclose(got[0], [0.35290, 0.52647], atol=1e-5)
  # An invalid proposal keeps p_proposer ** 0.3.
  np.testing.assert_allclose(got[1], [0.88490, 0.65555], atol=1e-5)


@pytest.mark.parametrize('classifier, weight', [('clip', 0.7), ('ensemble', 0.0)])
def test_clip_alone_drops_invalid_proposals(classifier, weight):
  got = combine(PROPOSER, CLIP, VALID, classifier=classifier, weight=weight)
  np.testing.assert_allclose(got, [[0.26894, 0.73106], [0, 0]], atol=1e-5)


def test_proposer_alone_drops_no_object():
  got = combine(PROPOSER, CLIP, VALID, classifier='proposer', weight=0.7)
  np.testing.assert_allclose(got, [[0.66524, 0.24473]] * 2, atol=1e-5)


def test_bad_settings_are_errors():
  with pytest.raises(ValueError, match='known: ensemble, clip, proposer'):
    combine(PROPOSER, CLIP, VALID, classifier='both', weight=0.5)
  with pytest.raises(ValueError, match=r'0\.\.1, got 1.5'):
    combine(PROPOSER, CLIP, VALID, classifier='ensemble', weight=1.5)


def test_class_logits_are_cosines_times_a_hundred():
  text = jnp.array([[1.0, 0.0], [0.0, 1.0]])
  got = class_logits(jnp.array([[3.0, 4.0], [-2.0, 0.0]]), text)
  np.testing.assert_allclose(got, [[60, 80], [-100, 0]], rtol=1e-5)


def test_a_tower_may_have_a_temperature_of_its_own():
  text = jnp.array([[1.0, 0.0], [0.6, 0.8]])
  rows = jnp.array([[3.0, 4.0]])
  np.testing.assert_allclose(class_logits(rows, text, 10.0), [[6.0, 10.0]], rtol=1e-6)


def test_probabilities_are_averaged_and_not_logits():
  # 0.25 * [.2, .8] + 0.75 * [.9, .1], and a class that plays no part.
  first = jnp.array([[jnp.log(0.2) + 3, jnp.log(0.8) + 3, -jnp.inf]])
  second = jnp.array([[jnp.log(0.9) - 7, jnp.log(0.1) - 7, -jnp.inf]])
  got = jnp.exp(average(jnp.stack([first, second]), (0.25, 0.75)))
  np.testing.assert_allclose(got, [[0.725, 0.275, 0]], rtol=1e-5)
  got = jnp.exp(average(jnp.stack([first, second]), (1.0, 0.0)))
  np.testing.assert_allclose(got, [[0.2, 0.8, 0]], rtol=1e-5)
  # Where one all but excludes a class, the other still counts.
  far = jnp.array([[[0.0, 400.0]], [[400.0, 0.0]]])
  np.testing.assert_allclose(jnp.exp(average(far, (0.3, 0.7))), [[0.7, 0.3]], rtol=1e-5)
  np.testing.assert_array_equal(average(first[None], (1.0,)), first)


@pytest.mark.parametrize(
  'weights', [(1.0,), (1.0, 1.0, 1.0), (2.0, -1.0), (0.0, 0.0), (1.0, float('nan'))]
)
def test_weights_of_clips_that_cannot_be(weights):
  with pytest.raises(ValueError, match='expected 2, one for each CLIP') as caught:
    check_weights(weights, 2)
  assert '\n' not in str(caught.value)
  check_weights((0.0, 3.0), 2)
  check_weights((), 2)
