"""The matcher against SciPy's assignment and a plain cost."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax.assignment import _hungarian_algorithm as library
from scipy.optimize import linear_sum_assignment

from ovs_jax.core import sharding
from ovs_jax.ops.matching import assign, match

LAYERS, QUERIES, TARGETS, CLASSES, SIZE = 2, 7, 4, 5, (6, 8)


def problem(seed, valid):
  rng = np.random.default_rng(seed)
  b = len(valid)
  logits = rng.normal(size=(LAYERS, b, QUERIES, CLASSES)).astype(np.float32)
  masks = 3 * rng.normal(size=(LAYERS, b, QUERIES, *SIZE)).astype(np.float32)
  labels = rng.integers(0, CLASSES - 1, (b, TARGETS)).astype(np.int32)
  targets = rng.random((b, TARGETS, 4 * SIZE[0], 4 * SIZE[1])) < 0.3
  real = np.arange(TARGETS) < np.array(valid)[:, None]
  return logits, masks, labels, targets.astype(np.float32), real


def plain_cost(logits, masks, labels, targets):
  """The sum of the parts."""
  return plain_parts(logits, masks, labels, targets).sum(0)


def plain_parts(logits, masks, labels, targets):
  """Class, focal and dice, in a loop per pair, in float64, as the paper writes them."""
  e = np.exp(logits.astype(np.float64))
  share = e / e.sum(-1, keepdims=True)
  cost = np.zeros((3, len(logits), len(labels)))
  for q, mask in enumerate(masks.astype(np.float64)):
    p = 1 / (1 + np.exp(-mask))
    for t, label in enumerate(labels):
      y = targets[t][::4, ::4]
      hit = np.where(y == 1, p, 1 - p)
      focal = np.where(y == 1, 0.25, 0.75) * (1 - hit) ** 2 * -np.log(hit)
      dice = 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)
      cost[:, q, t] = -share[q, label], 20 * focal.mean(), dice
  return cost


@pytest.mark.parametrize('seed', range(5))
def test_equals_scipy_with_padded_targets_in_every_layer(seed):
  valid = (4, 2, 0, 1)
  args = problem(seed, valid)
  got = np.asarray(jax.jit(match)(*map(jnp.asarray, args)))
  logits, masks, labels, targets, real = args
  for layer in range(LAYERS):
    for b, count in enumerate(valid):
      cost = plain_cost(
        logits[layer, b], masks[layer, b], labels[b, :count], targets[b, :count]
      )
      rows, columns = linear_sum_assignment(cost)
      np.testing.assert_array_equal(got[layer, b, columns], rows)
  assert not got[:, ~real].any()


def test_each_part_of_the_cost_decides():
  rng = np.random.default_rng(0)
  b, size = 1000, 8
  logits = rng.normal(size=(1, b, 2, CLASSES)).astype(np.float32)
  # Masks of all sizes and certainties, as soft as those of an early step.
  level = rng.normal(-1, 0.5, size=(1, b, 2, 1, 1))
  masks = (level + rng.normal(size=(1, b, 2, size, size))).astype(np.float32)
  labels = rng.integers(0, CLASSES - 1, (b, 1)).astype(np.int32)
  share = rng.random((b, 1, 1, 1))
  targets = (rng.random((b, 1, 4 * size, 4 * size)) < share).astype(np.float32)
  args = (logits, masks, labels, targets, np.ones((b, 1), bool))
  got = np.asarray(match(*map(jnp.asarray, args)))
  costs = [
    plain_parts(*x) for x in zip(logits[0], masks[0], labels, targets, strict=True)
  ]
  parts = np.array(costs)[..., 0]  # b 3 q
  np.testing.assert_array_equal(got[0, :, 0], parts.sum(1).argmin(1))
  for i in range(3):  # without any of them, others would be matched
    assert (np.delete(parts, i, 1).sum(1).argmin(1) != got[0, :, 0]).sum() > 5


def drawn(b=64, q=30, t=12):
  """Costs, and targets of which any are real."""
  rng = np.random.default_rng(0)
  valid = rng.random((b, t)) < rng.random((b, 1))
  valid[0], valid[1] = True, False
  return rng.normal(size=(b, q, t)).astype(np.float32), valid


def without_own_columns(cost, valid):
  """Padded targets cost the same with every query, and compete for them."""

  def one(cost):
    queries, targets = optax.assignment.hungarian_algorithm(cost)
    return jnp.zeros(cost.shape[1], jnp.int32).at[targets].set(queries)

  return jax.vmap(one)(jnp.where(valid[:, None], cost, 0.0))


def test_padded_targets_change_no_query_of_the_others():
  cost, valid = drawn()
  got = np.asarray(jax.jit(assign)(cost, valid))
  want = np.asarray(jax.jit(without_own_columns)(cost, valid))
  np.testing.assert_array_equal(got, np.where(valid, want, 0))
  for b in range(len(cost)):
    rows, columns = linear_sum_assignment(cost[b][:, valid[b]])
    np.testing.assert_array_equal(got[b, valid[b]][columns], rows)


def turns(monkeypatch, function, cost, valid):
  """How often the loops of the search turn for one image."""
  counted, original = [], jax.lax.while_loop

  def loop(condition, body, state):
    def counting(state):
      jax.debug.callback(lambda: counted.append(1))
      return body(state)

    return original(condition, counting, state)

  with monkeypatch.context() as patched:
    patched.setattr(library.lax, 'while_loop', loop)
    patched.setattr(jax, 'vmap', lambda f: lambda *x: f(*(a[0] for a in x))[None])
    jax.block_until_ready(jax.jit(function)(cost, valid))
  jax.effects_barrier()
  return len(counted)


def test_a_padded_target_costs_one_turn(monkeypatch):
  cost, valid = drawn(b=2, q=10, t=8)[0][:1], np.arange(8)[None] < 2
  alone = turns(monkeypatch, without_own_columns, cost[..., :2], valid[:, :2])
  before = turns(monkeypatch, without_own_columns, cost, valid)
  # One turn of the search, and one back.
  assert turns(monkeypatch, assign, cost, valid) == alone + 2 * 6
  assert before > alone + 4 * 6


@pytest.mark.parametrize('shape', [(8, 1), (4, 2), (1, 8)])
def test_devices_match_their_own_images_without_each_other(shape):
  args = problem(3, (4, 2, 0, 1, 3, 4, 4, 1))
  want = jax.jit(match)(*map(jnp.asarray, args))
  mesh = sharding.make_mesh(*shape)
  layers, rows = (
    jax.NamedSharding(mesh, jax.P(*axes)) for axes in ((None, 'data'), ('data',))
  )
  placed = jax.device_put(args, (layers, layers, rows, rows, rows))
  with jax.set_mesh(mesh):
    program = jax.jit(match).lower(*placed).compile()
  np.testing.assert_array_equal(program(*placed), want)
  assert 'all-' not in program.as_text()


def test_costs_that_are_no_numbers_end_the_search():
  cost, valid = drawn(b=6)
  for i, bad in enumerate((np.nan, np.inf, -np.inf)):
    cost[2 * i], cost[2 * i + 1, 3] = bad, bad
  found = np.asarray(jax.jit(assign)(cost, valid))
  assert found.min() >= 0 and found.max() < cost.shape[1]


def test_no_gradient_flows_through_the_assignment():
  args = list(map(jnp.asarray, problem(0, (2,))))
  grad = jax.jit(jax.grad(lambda x: jnp.sum(match(x, *args[1:]) * 1.0)))(args[0])
  assert not grad.any()


def test_too_many_targets_are_an_error():
  logits, masks, labels, targets, real = map(jnp.asarray, problem(0, (4,)))
  with pytest.raises(ValueError, match='4 targets for 3 queries'):
    match(logits[:, :, :3], masks[:, :, :3], labels, targets, real)
