"""Bipartite matching of queries to targets (MaskFormer, section 3.2), on device."""

import jax
import jax.numpy as jnp
import optax

from ovs_jax.core.errors import UserError
from ovs_jax.core.sharding import on_own_rows
from ovs_jax.core.types import Array, Bool, Float, Int
from ovs_jax.ops.losses import FOCAL_ALPHA
from ovs_jax.ops.resize import EXACT, resize_nearest

# Weights of the matching cost, OVSeg's and MaskFormer's: class, focal, dice.
CLASS_COST, FOCAL_COST, DICE_COST = 1.0, 20.0, 1.0
_FAR = 1e30  # costs more than any query; finite, so that sums of it are numbers


def match(
  logits: Float[Array, 'l b q k'],
  mask_logits: Float[Array, 'l b q y x'],
  labels: Int[Array, 'b t'],
  masks: Float[Array, 'b t h w'],
  valid: Bool[Array, 'b t'],
) -> Int[Array, 'l b t']:
  """Returns the query of each target under the cheapest one-to-one assignment.

  All decoder layers are matched at once: the loops of the assignment run in step.
  Every device matches its own images, and waits for no other.

  Args:
    logits: class logits of every decoder layer.
    mask_logits: of every decoder layer; any size.
    labels: class of each target.
    masks: binary targets, subsampled here to the size of `mask_logits`.
    valid: which targets are real. The query of a padded one is 0 and means nothing.

  Raises:
    ValueError: more (padded) targets than queries.
  """
  if labels.shape[1] > logits.shape[2]:
    raise UserError(
      f'{labels.shape[1]} targets for {logits.shape[2]} queries; matching needs at '
      'least as many queries: raise num_queries or lower max_targets'
    )
  small = resize_nearest(masks, mask_logits.shape[-2:])
  given = (logits, mask_logits, labels, small, valid)
  given = jax.tree.map(jax.lax.stop_gradient, given)
  return on_own_rows(_match, given, axes=(1, 1, 0, 0, 0), out=1)


def _match(
  logits: Float[Array, 'l b q k'],
  mask_logits: Float[Array, 'l b q y x'],
  labels: Int[Array, 'b t'],
  masks: Float[Array, 'b t y x'],
  valid: Bool[Array, 'b t'],
) -> Int[Array, 'l b t']:
  def cost(layer: tuple[Array, Array]) -> Array:
    return jax.vmap(_cost)(*layer, labels, masks)

  # Layer after layer: the costs are small, what they are made of is not.
  costs = jax.lax.map(cost, (logits, mask_logits))  # l b q t
  return jax.vmap(jax.vmap(_assign), in_axes=(0, None))(costs, valid)


def assign(cost: Float[Array, 'b q t'], valid: Bool[Array, 'b t']) -> Int[Array, 'b t']:
  """Returns the query of each valid target under the cheapest assignment.

  Every device assigns its own rows. Needs at least as many queries as valid targets;
  the others get 0, which means nothing.
  """
  return on_own_rows(jax.vmap(_assign), (cost, valid), axes=(0, 0), out=0)


def _assign(cost: Float[Array, 'q t'], valid: Bool[Array, 't']) -> Int[Array, 't']:
  """Gives each padded target a query of its own, outside of the real ones.

  Otherwise they compete for real queries at equal cost, and the k-th of them makes k
  turns of the search. So it makes one, and finds what it is given for nothing.
  """
  num_queries, count = cost.shape
  own = jnp.where(jnp.diag(~valid), 0.0, _FAR)  # t t
  cost = jnp.concatenate([jnp.where(valid[None], cost, _FAR), own])  # q_and_t t
  queries, targets = optax.assignment.hungarian_algorithm(cost)
  found = jnp.zeros(count, jnp.int32).at[targets].set(queries.astype(jnp.int32))
  return jnp.where(valid & (found < num_queries), found, 0)


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
