"""Pilots: queries that are shown one mask each, beside the others."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ovs_jax.core.types import Array, Params
from ovs_jax.models.query_decoder import QueryDecoder, coverage, mean_blocks, under

QUERIES, SIDE = 5, 4  # cells to a side of the grid, of 4 pixels each


def decoder() -> QueryDecoder:
  return QueryDecoder(
    num_queries=QUERIES,
    width=16,
    heads=4,
    feed_forward=32,
    layers=2,
    dropout=0.0,
    dtype=jnp.float32,
  )


@functools.cache
def inputs() -> tuple[Params, Array, Array]:
  """Returns parameters, features of two images and three masks of each."""
  rng = np.random.default_rng(0)
  features = jnp.asarray(rng.normal(size=(2, SIDE, SIDE, 8)), jnp.float32)
  masks = np.zeros((2, 3, 4 * SIDE, 4 * SIDE), np.float32)
  masks[:, 0, :8, :4] = 1  # two cells
  masks[:, 1, 8:, 6:] = 1  # cells, and half of some
  masks[:, 2, 1, 2] = 1  # one pixel
  drawn = decoder().init(jax.random.key(0), features, False)['params']
  keys = jax.random.split(jax.random.key(1), len(jax.tree.leaves(drawn)))
  keys = jax.tree.unflatten(jax.tree.structure(drawn), list(keys))
  shaken = jax.tree.map(
    lambda x, k: x + 0.3 * jax.random.normal(k, x.shape), drawn, keys
  )
  return shaken, features, jnp.asarray(masks)


@functools.cache
def program(collect: bool = False) -> Any:
  mutable = ['intermediates'] if collect else []

  def run(params: Params, features: Array, masks: Array | None) -> Any:
    given = (features, False, None, masks)
    out, state = decoder().apply({'params': params}, *given, mutable=mutable)
    return (out, state) if collect else out

  return jax.jit(run)


def test_the_other_queries_do_not_notice() -> None:
  params, features, masks = inputs()
  alone = program()(params, features, None)
  assert alone.shape == (2, 2, QUERIES, 16)
  both = program()(params, features, masks)
  assert both.shape == (2, 2, QUERIES + 3, 16)
  np.testing.assert_allclose(both[:, :, :QUERIES], alone, atol=1e-5)


def test_pilots_see_what_is_under_their_mask_alone() -> None:
  params, features, masks = inputs()
  before = program()(params, features, masks)
  outside = features.at[:, 2:].add(1.0).at[:, :, 1:].add(1.0)  # but for two cells
  after = program()(params, outside, masks)
  np.testing.assert_allclose(after[:, :, QUERIES], before[:, :, QUERIES], atol=1e-5)
  assert np.abs(after - before)[:, :, QUERIES + 1].max() > 0.1
  assert np.abs(after - before)[:, :, :QUERIES].max() > 0.1


def test_pilots_do_not_see_each_other() -> None:
  params, features, masks = inputs()
  before = program()(params, features, masks)
  after = program()(params, features, masks[:, ::-1])
  np.testing.assert_allclose(
    after[:, :, QUERIES:], before[:, :, QUERIES:][:, :, ::-1], atol=1e-5
  )


def test_where_queries_look_is_kept() -> None:
  params, features, masks = inputs()
  _, state = program(collect=True)(params, features, masks)
  for layer in ('layer_0', 'layer_1'):
    (weights,) = state['intermediates'][layer]['cross_attn']['weights']
    assert weights.shape == (2, 4, QUERIES + 3, SIDE * SIDE)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)
    shown = np.asarray(under(masks, SIDE))[:, None]
    assert not np.asarray(weights)[:, :, QUERIES:][
      np.broadcast_to(~shown, (2, 4, 3, 16))
    ].any()


def test_cells_by_hand() -> None:
  masks = inputs()[2]
  part = np.asarray(coverage(masks, SIDE))[0].reshape(3, SIDE, SIDE)
  want = np.zeros((3, SIDE, SIDE))
  want[0, :2, 0] = 1
  want[1, 2:, 1:] = [0.5, 1, 1]
  want[2, 0, 0] = 1 / 16
  np.testing.assert_allclose(part, want)
  np.testing.assert_array_equal(
    np.asarray(under(masks, SIDE))[0], (want > 0).reshape(3, -1)
  )
  # An empty mask hides nothing.
  assert np.asarray(under(0 * masks, SIDE)).all()
  np.testing.assert_allclose(mean_blocks(masks, 8)[0, 1], [[0, 0], [0.25, 1]])
  with pytest.raises(ValueError, match='16x16 pixels are no squares of 3x3'):
    mean_blocks(masks, 3)
