"""Losses, as the papers define them."""

import jax
import jax.numpy as jnp
import optax

from ovs_jax.core.masks import SIZES
from ovs_jax.core.types import Array, Bool, Float, Int
from ovs_jax.ops.resize import EXACT, resize_bilinear

FOCAL_ALPHA = 0.25  # with gamma 2, which is written out below
NO_OBJECT_WEIGHT = 0.1  # of the no-object class in the cross entropy
_LEAST_SHARE = 1e-5  # of attention, below which its loss grows no more
# Weights of the set loss: cross entropy, focal, dice (OVSeg section 4.1).
SET_WEIGHTS = {'ce': 1.0, 'mask': 20.0, 'dice': 1.0}


def focal_loss(
  logits: Float[Array, '*b n'], targets: Float[Array, '*b n']
) -> Float[Array, '*b']:
  """Sigmoid focal loss, mean over the last axis (pixels).

  Written out for binary targets and gamma 2: five times faster than optax's general
  form on a CPU, and it is most of the proposer's loss.
  """
  p = jax.nn.sigmoid(logits)
  cross_entropy = jax.nn.softplus(logits) - logits * targets
  miss = p + targets - 2 * p * targets  # 1 - probability of the truth
  alpha = (1 - FOCAL_ALPHA) + (2 * FOCAL_ALPHA - 1) * targets
  return jnp.mean(alpha * miss * miss * cross_entropy, axis=-1)


def dice_loss(
  logits: Float[Array, '*b n'], targets: Float[Array, '*b n']
) -> Float[Array, '*b']:
  """`1 - (2 * overlap + 1) / (sum + sum + 1)` over the last axis (pixels)."""
  p = jax.nn.sigmoid(logits)
  overlap = 2 * jnp.sum(p * targets, axis=-1)
  total = jnp.sum(p, axis=-1) + jnp.sum(targets, axis=-1)
  return 1 - (overlap + 1) / (total + 1)


def set_losses(
  logits: Float[Array, 'b q k'],
  mask_logits: Float[Array, 'b q y x'],
  labels: Int[Array, 'b t'],
  masks: Float[Array, 'b t h w'],
  valid: Bool[Array, 'b t'],
  queries: Int[Array, 'b t'],
  counts: Float[Array, 'b t'] | None = None,
) -> dict[str, Float[Array, '']]:
  """MaskFormer's losses of one decoder layer, before their weights.

  Args:
    logits: class logits; the last column is "no object".
    mask_logits: at stride 4; brought to the targets' size here.
    labels: class of each target.
    masks: binary targets; pixels without a label are 0 in all of them.
    valid: which targets are real.
    queries: the query matched to each target (`ops.matching.match`).
    counts: how much the mask of each target counts (`size_counts`); None: 1.

  Returns:
    `ce` (mean weighted by class weight), `mask` (focal) and `dice`, both summed over
    the matched pairs and divided by the number of targets in the batch (at least 1).
  """
  b, q, k = logits.shape
  # Padded targets are written to a query that does not exist, and dropped. Row by row,
  # and not by a list of rows: devices that share a batch then need no others' rows.
  slots = jnp.where(valid, queries, q)
  put = jax.vmap(lambda own, at, what: own.at[at].set(what, mode='drop'))
  classes = put(jnp.full((b, q), k - 1), slots, labels)
  weights = jnp.where(classes == k - 1, NO_OBJECT_WEIGHT, 1.0)
  ce = optax.softmax_cross_entropy_with_integer_labels(logits, classes)
  matched = jnp.take_along_axis(mask_logits, queries[..., None, None], axis=1)
  matched = resize_bilinear(matched, masks.shape[-2:])
  matched = matched.reshape(*matched.shape[:2], -1)  # b t n
  targets = masks.reshape(*masks.shape[:2], -1)
  count = jnp.maximum(jnp.sum(valid), 1)
  each = valid if counts is None else jnp.where(valid, counts, 0.0)
  return {
    'ce': jnp.sum(weights * ce) / jnp.sum(weights),
    'mask': jnp.sum(each * focal_loss(matched, targets)) / count,
    'dice': jnp.sum(each * dice_loss(matched, targets)) / count,
  }


def size_counts(
  masks: Float[Array, 'b t h w'], valid: Bool[Array, 'b t'], balance: float
) -> Float[Array, 'b t']:
  """Returns how much each target's mask counts, so that rare sizes count more.

  Args:
    masks: binary targets; their share of the image is their size (`core.masks.SIZES`).
    valid: which targets are real.
    balance: 0: all count 1; 1: the sizes that a batch has count alike, however many
      masks of each there are.

  Returns:
    Numbers with a mean of 1 over the real targets; 0 for the others.
  """
  edges = jnp.array(list(SIZES.values()))
  size = jnp.searchsorted(edges, jnp.mean(masks, axis=(2, 3)), side='right') - 1
  own = jax.nn.one_hot(size, len(edges)) * valid[..., None]
  together = jnp.sum(own, axis=(0, 1))
  each = own @ jnp.maximum(together, 1.0) ** -balance
  return each * jnp.sum(valid) / jnp.maximum(jnp.sum(each), 1e-9)


def naming_loss(
  logits: Float[Array, 'b t k'], labels: Int[Array, 'b t'], valid: Bool[Array, 'b t']
) -> tuple[Float[Array, ''], Float[Array, '']]:
  """Returns the mean cross entropy of the valid targets, and the share named right.

  Both are 0 without targets.
  """
  ce = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  count = jnp.maximum(jnp.sum(valid), 1)
  right = valid & (jnp.argmax(logits, axis=-1) == labels)
  return jnp.sum(jnp.where(valid, ce, 0.0)) / count, jnp.sum(right) / count


def attention_loss(
  weights: Float[Array, 'b h q n'],
  parts: Float[Array, 'b t n'],
  valid: Bool[Array, 'b t'],
  queries: Int[Array, 'b t'],
) -> tuple[Float[Array, ''], Float[Array, '']]:
  """Asks every head of a query to look at the target that it is matched with.

  Args:
    weights: of the cross-attention.
    parts: which part of each cell a target covers.
    valid: which targets are real.
    queries: the query matched to each target (`ops.matching.match`).

  Returns:
    Minus the logarithm of the attention that falls on the target, and that attention,
    0..1; both are means over heads and valid targets, and 0 without targets.
  """
  weights = jnp.take_along_axis(weights, queries[:, None, :, None], axis=2)  # b h t n
  share = jnp.einsum('bhtn,btn->bth', weights, parts)
  share = jnp.where(valid[..., None], share, 0.0)
  loss = jnp.where(valid[..., None], -jnp.log(share + _LEAST_SHARE), 0.0)
  count = jnp.maximum(jnp.sum(valid), 1) * weights.shape[1]
  return jnp.sum(loss) / count, jnp.sum(share) / count


def contrastive_loss(
  image: Float[Array, 'b d'], text: Float[Array, 'b d'], scale: Float[Array, '']
) -> tuple[Float[Array, ''], Float[Array, '']]:
  """CLIP's symmetric InfoNCE over the batch, and the share of right matches.

  Rows with equal texts count as each other's negatives, as in CLIP and OVSeg. That
  raises the loss but turns no gradient: their columns of logits are equal.

  Args:
    image: L2-normalised embeddings; row i belongs to row i of `text`.
    text: L2-normalised embeddings.
    scale: multiplies the cosines (the exponential of CLIP's `logit_scale`).
  """
  logits = scale * jnp.matmul(image, text.T, precision=EXACT)
  target = jnp.arange(logits.shape[0])
  loss = optax.softmax_cross_entropy_with_integer_labels
  both = jnp.mean(loss(logits, target)) + jnp.mean(loss(logits.T, target))
  return both / 2, jnp.mean(jnp.argmax(logits, axis=1) == target)
