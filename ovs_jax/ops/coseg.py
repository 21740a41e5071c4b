"""CoSeg's targets and losses: slots sorted by area, contrasted labels, binary masks."""

import jax
import jax.numpy as jnp
import optax

from ovs_jax.core.lookup import lookup
from ovs_jax.core.types import Array, Bool, Float, Int
from ovs_jax.ops.losses import dice_loss, focal_loss
from ovs_jax.ops.matching import assign
from ovs_jax.ops.resize import EXACT, resize_nearest

_FAR = -1e9  # instead of minus infinity, whose gradients are not numbers
DUPLICATES = dict.fromkeys(('literal', 'dedup', 'mask_pads'))
DIRECTIONS = dict.fromkeys(('pred2gt', 'gt2pred', 'both'))


def area_targets(
  label: Int[Array, 'b h w'], num_slots: int, num_classes: int
) -> tuple[Int[Array, 'b n'], Bool[Array, 'b n h w']]:
  """Sorts the classes of label maps by their area, largest first.

  Args:
    label: class ids below `num_classes`; other values belong to no class.
    num_slots: classes kept per image; the smallest ones beyond are dropped.
    num_classes: also the id of "unlabeled", which fills slots without a class.

  Returns:
    The id of every slot (of equal areas the lower id comes first), and its pixels,
    none for "unlabeled".
  """

  def one(label: Array) -> tuple[Array, Array]:
    inside = (label >= 0) & (label < num_classes)
    counted = jnp.where(inside, label, num_classes).reshape(-1)
    areas = jnp.zeros(num_classes + 1, jnp.int32).at[counted].add(1)[:num_classes]
    order = jnp.argsort(-areas, stable=True)[:num_slots]
    ids = jnp.where(areas[order] > 0, order, num_classes)
    ids = jnp.pad(
      ids, (0, num_slots - ids.shape[0]), constant_values=num_classes
    ).astype(jnp.int32)
    return ids, (label[None] == ids[:, None, None]) & inside[None]

  return jax.vmap(one)(label)


def language_loss(
  tokens: Float[Array, 'b n d'],
  ids: Int[Array, 'b n'],
  anchors: Float[Array, 'c d'],
  *,
  tau: float,
  duplicates: str,
  direction: str,
  weights: Float[Array, 'b n'] | None = None,
) -> Float[Array, '']:
  """Contrasts the tokens of an image with the texts of its own slots (L_lang).

  Args:
    tokens: predicted, of any length.
    ids: label of each slot; the last anchor is "unlabeled".
    anchors: L2-normalised text embeddings.
    tau: temperature.
    duplicates: 'literal' lets equal targets be each other's negatives, as printed in
      the paper: n pads then cost at least log(n) each. 'dedup' keeps one column per
      label. 'mask_pads' leaves pads out altogether.
    direction: what is the anchor: 'pred2gt' the prediction, 'gt2pred' the text (as the
      paper's formula reads), or 'both' (their mean).
    weights: of the slots; None is 1 each.

  Returns:
    The mean over the slots that count.
  """
  lookup(DUPLICATES, duplicates, 'treatment of duplicates')
  lookup(DIRECTIONS, direction, 'direction')
  n = ids.shape[1]
  cosines = jnp.einsum('bnd,bmd->bnm', _unit(tokens), anchors[ids], precision=EXACT)
  logits = cosines / tau
  same = ids[:, :, None] == ids[:, None, :]  # b n n
  first = jnp.argmax(same, axis=2)  # the first slot with the same label
  own = jnp.broadcast_to(jnp.arange(n)[None], ids.shape)
  column = jnp.ones(ids.shape, bool)
  target, row = own, column
  if duplicates == 'dedup':
    column, target = first == own, first
  if duplicates == 'mask_pads':
    column = row = ids != anchors.shape[0] - 1
  weights = jnp.ones(ids.shape) if weights is None else weights
  total = []
  if direction != 'gt2pred':
    total.append(_cross_entropy(logits, column, target, row * weights))
  if direction != 'pred2gt':
    back = jnp.swapaxes(logits, 1, 2)
    total.append(_cross_entropy(back, column, own, (row & column) * weights))
  return sum(total) / len(total)


def vocabulary_loss(
  tokens: Float[Array, 'b n d'],
  ids: Int[Array, 'b n'],
  anchors: Float[Array, 'c d'],
  *,
  tau: float,
  weights: Float[Array, 'b n'] | None = None,
) -> Float[Array, '']:
  """Classifies tokens among all anchors, as inference does.

  Args:
    tokens: of the slots.
    ids: the right anchor of each slot.
    anchors: L2-normalised embeddings of the vocabulary.
    tau: temperature of the softmax.
    weights: of the slots in the mean; None is 1 for all.
  """
  cosines = jnp.einsum('bnd,cd->bnc', _unit(tokens), anchors, precision=EXACT)
  weights = jnp.ones(ids.shape) if weights is None else weights
  column = jnp.ones((ids.shape[0], anchors.shape[0]), bool)
  return _cross_entropy(cosines / tau, column, ids, weights)


def _cross_entropy(
  logits: Float[Array, 'b n c'],
  column: Bool[Array, 'b c'],
  target: Int[Array, 'b n'],
  weights: Float[Array, 'b n'],
) -> Float[Array, '']:
  logits = jnp.where(column[:, None, :], logits, _FAR)
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, target)
  return jnp.sum(losses * weights) / jnp.maximum(jnp.sum(weights), 1e-6)


def mask_losses(
  logits: Float[Array, 'b n h w'],
  masks: Bool[Array, 'b n h w'],
  *,
  ignore: Bool[Array, 'b h w'] | None = None,
  empty_weight: float = 1.0,
  wanted: tuple[str, ...] = ('dice', 'focal'),
) -> dict[str, Float[Array, '']]:
  """Compares predicted masks with binary ones, before the weights of the losses.

  Args:
    logits: of the slots.
    masks: all False for slots without a class.
    ignore: pixels that count in no slot; None counts all of them, so that unlabeled
      ones are negatives everywhere, as in the paper.
    empty_weight: of slots without a class in the cross entropy; 1 in the paper.
    wanted: the losses to compute beside `bce`.

  Returns:
    `bce`, a mean over all slots and pixels; `dice` and `focal`, if wanted, means over
    the slots with a class.
  """
  y = masks.astype(jnp.float32)
  filled = jnp.any(masks, axis=(2, 3))  # b n
  weights = jnp.where(filled, 1.0, empty_weight)[:, :, None, None]
  weights = jnp.broadcast_to(weights, y.shape)
  if ignore is not None:
    weights = jnp.where(ignore[:, None], 0.0, weights)
    logits = jnp.where(ignore[:, None], _FAR, logits)
    y = jnp.where(ignore[:, None], 0.0, y)
  entropy = jax.nn.softplus(logits) - logits * y
  flat = (*y.shape[:2], -1)
  count = jnp.maximum(jnp.sum(filled), 1)
  others = {}
  for name, loss in (('dice', dice_loss), ('focal', focal_loss)):
    if name not in wanted:
      continue
    each = loss(logits.reshape(flat), y.reshape(flat))
    others[name] = jnp.sum(jnp.where(filled, each, 0.0)) / count
  bce = jnp.sum(entropy * weights) / jnp.maximum(jnp.sum(weights), 1e-6)
  return {'bce': bce, **others}


def match_slots(
  tokens: Float[Array, 'b n d'],
  logits: Float[Array, 'b n h w'],
  ids: Int[Array, 'b n'],
  masks: Bool[Array, 'b n h w'],
  anchors: Float[Array, 'c d'],
  *,
  weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
  side: int = 56,
) -> tuple[Int[Array, 'b n'], Bool[Array, 'b n h w']]:
  """Gives targets to slots by the cheapest assignment instead of by area.

  Args:
    tokens: predicted, of any length.
    logits: predicted masks.
    ids: targets; slots whose id is that of the last anchor are no targets.
    masks: of the targets.
    anchors: L2-normalised text embeddings, "unlabeled" last.
    weights: of 1 - cosine, mean cross entropy and dice in the cost.
    side: to which masks are subsampled for the cost.

  Returns:
    `ids` and `masks` in the order of the slots; the others are "unlabeled" and empty.
  """
  none = anchors.shape[0] - 1
  size = tuple(min(side, s) for s in logits.shape[2:])
  small = resize_nearest(jax.lax.stop_gradient(logits), size)
  target = resize_nearest(masks.astype(jnp.float32), size)
  tokens = _unit(jax.lax.stop_gradient(tokens))

  @jax.vmap
  def costs(token: Array, x: Array, label: Array, y: Array) -> Array:
    x, y = x.reshape(x.shape[0], -1), y.reshape(y.shape[0], -1)  # n p
    p = jax.nn.sigmoid(x)
    # sum(softplus(x)) - <x, y> is the cross entropy of all pairs at once.
    entropy = jnp.sum(jax.nn.softplus(x), axis=1)[:, None]
    entropy = (entropy - jnp.matmul(x, y.T, precision=EXACT)) / x.shape[1]
    overlap = 2 * jnp.matmul(p, y.T, precision=EXACT)
    total = jnp.sum(p, axis=1)[:, None] + jnp.sum(y, axis=1)[None]
    far = 1 - jnp.matmul(token, anchors[label].T, precision=EXACT)
    dice = 1 - (overlap + 1) / (total + 1)
    return weights[0] * far + weights[1] * entropy + weights[2] * dice

  valid, n = ids != none, ids.shape[1]
  slots = jnp.where(valid, assign(costs(tokens, small, ids, target), valid), n)
  put = jax.vmap(lambda at: jnp.full(n, n).at[at].set(jnp.arange(n), mode='drop'))
  chosen = put(slots)  # b n: the target of each slot; n is none
  taken, chosen = chosen < n, jnp.minimum(chosen, n - 1)
  ids = jnp.where(taken, jnp.take_along_axis(ids, chosen, axis=1), none)
  masks = jnp.take_along_axis(masks, chosen[:, :, None, None], axis=1)
  return ids, masks & taken[:, :, None, None]


def log_areas(masks: Bool[Array, 'b n h w']) -> Float[Array, 'b n']:
  """Returns the logarithm of each mask's share of the image; empty ones count 1."""
  share = jnp.sum(masks, axis=(2, 3)) / (masks.shape[2] * masks.shape[3])
  return jnp.log(jnp.where(share > 0, share, 1.0))


def _unit(x: Float[Array, 'b n d']) -> Float[Array, 'b n d']:
  return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-12)
