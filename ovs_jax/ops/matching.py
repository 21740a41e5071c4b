"""Bipartite matching of queries to targets (MaskFormer, section 3.2), on device."""

import jax
import jax.numpy as jnp
import optax

from ovs_jax.core.types import Array, Bool, Float, Int
from ovs_jax.ops.losses import FOCAL_ALPHA
from ovs_jax.ops.resize import EXACT, resize_nearest

# Weights of the matching cost, OVSeg's and MaskFormer's: class, focal, dice.
CLASS_COST, FOCAL_COST, DICE_COST = 1.0, 20.0, 1.0


def match(
  logits: Float[Array, 'b q k'],
  mask_logits: Float[Array, 'b q y x'],
  labels: Int[Array, 'b t'],
  masks: Float[Array, 'b t h w'],
  valid: Bool[Array, 'b t'],
) -> Int[Array, 'b t']:
  """Returns the query of each target under the cheapest one-to-one assignment.

  Padded targets get a query too (any), and change nothing for the others: their
  cost is the same with every query.

  Raises:
    ValueError: more (padded) targets than queries.
  """
  if labels.shape[1] > logits.shape[1]:
    raise ValueError(
      f'{labels.shape[1]} targets for {logits.shape[1]} queries; matching needs at '
      'least as many queries: raise num_queries or lower max_targets'
    )
  small = resize_nearest(masks, mask_logits.shape[-2:])
  cost = jax.vmap(_cost)(logits, mask_logits, labels, small)  # b q t
  cost = jnp.where(valid[:, None, :], cost, 0.0)
  return jax.vmap(_assign)(jax.lax.stop_gradient(cost))


def _cost(
  logits: Float[Array, 'q k'],
  mask_logits: Float[Array, 'q y x'],
  labels: Int[Array, 't'],
  masks: Float[Array, 't y x'],
) -> Float[Array, 'q t']:
  num_pixels = masks.shape[1] * masks.shape[2]
  x = mask_logits.reshape(mask_logits.shape[0], -1)  # q n
  target = masks.reshape(masks.shape[0], -1).T  # n t
  p = jax.nn.sigmoid(x)
  class_cost = -jax.nn.softmax(logits, axis=-1)[:, labels]
  positive = FOCAL_ALPHA * (1 - p) ** 2 * jax.nn.softplus(-x)
  negative = (1 - FOCAL_ALPHA) * p**2 * jax.nn.softplus(x)
  focal = jnp.matmul(positive, target, precision=EXACT)
  focal = focal + jnp.matmul(negative, 1 - target, precision=EXACT)
  inter = 2 * jnp.matmul(p, target, precision=EXACT)
  total = jnp.sum(p, axis=1)[:, None] + jnp.sum(target, axis=0)[None, :]
  dice = 1 - (inter + 1) / (total + 1)
  return CLASS_COST * class_cost + FOCAL_COST * focal / num_pixels + DICE_COST * dice


def _assign(cost: Float[Array, 'q t']) -> Int[Array, 't']:
  queries, targets = optax.assignment.hungarian_algorithm(cost)
  return jnp.zeros(cost.shape[1], jnp.int32).at[targets].set(queries.astype(jnp.int32))
