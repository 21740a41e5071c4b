"""The matcher against SciPy's assignment and a plain cost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from ovs_jax.ops.matching import match

QUERIES, TARGETS, CLASSES, SIZE = 7, 4, 5, (6, 8)


def problem(seed, valid):
  rng = np.random.default_rng(seed)
  b = len(valid)
  logits = rng.normal(size=(b, QUERIES, CLASSES)).astype(np.float32)
  masks = 3 * rng.normal(size=(b, QUERIES, *SIZE)).astype(np.float32)
  labels = rng.integers(0, CLASSES - 1, (b, TARGETS)).astype(np.int32)
  targets = rng.random((b, TARGETS, 4 * SIZE[0], 4 * SIZE[1])) < 0.3
  real = np.arange(TARGETS) < np.array(valid)[:, None]
  return logits, masks, labels, targets.astype(np.float32), real


def plain_cost(logits, masks, labels, targets):
  """One loop per pair, in float64, as the paper writes it."""
  e = np.exp(logits.astype(np.float64))
  share = e / e.sum(-1, keepdims=True)
  cost = np.zeros((len(logits), len(labels)))
  for q, mask in enumerate(masks.astype(np.float64)):
    p = 1 / (1 + np.exp(-mask))
    for t, label in enumerate(labels):
      y = targets[t][::4, ::4]
      hit = np.where(y == 1, p, 1 - p)
      focal = np.where(y == 1, 0.25, 0.75) * (1 - hit) ** 2 * -np.log(hit)
      dice = 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)
      cost[q, t] = -share[q, label] + 20 * focal.mean() + dice
  return cost


@pytest.mark.parametrize('seed', range(5))
def test_equals_scipy_with_padded_targets(seed):
  valid = (4, 2, 0, 1)
  args = problem(seed, valid)
  got = np.asarray(jax.jit(match)(*map(jnp.asarray, args)))
  for b, count in enumerate(valid):
    logits, masks, labels, targets, _ = (x[b] for x in args)
    cost = plain_cost(logits, masks, labels[:count], targets[:count])
    rows, columns = linear_sum_assignment(cost)
    np.testing.assert_array_equal(got[b, columns], rows)
    assert len(set(got[b])) == TARGETS  # one query per target, padded ones too


def test_no_gradient_flows_through_the_assignment():
  args = list(map(jnp.asarray, problem(0, (2,))))
  grad = jax.jit(jax.grad(lambda x: jnp.sum(match(x, *args[1:]) * 1.0)))(args[0])
  assert not grad.any()


def test_too_many_targets_are_an_error():
  logits, masks, labels, targets, real = map(jnp.asarray, problem(0, (4,)))
  with pytest.raises(ValueError, match='4 targets for 3 queries'):
    match(logits[:, :3], masks[:, :3], labels, targets, real)
