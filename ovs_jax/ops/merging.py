"""From binary masks with labels to one label per pixel; the CoSeg paper is silent."""

import jax
import jax.numpy as jnp

from ovs_jax.core.lookup import lookup
from ovs_jax.core.types import Array, Bool, Float, Int
from ovs_jax.ops.resize import EXACT

# The label of pixels that no mask claims. It counts as wrong and is no void pixel:
# leaving those out of the ground truth would inflate the scores.
UNASSIGNED = -1
THRESHOLD = 0.3  # CLIPSeg's and CoSeg's
RULES = dict.fromkeys('ABCD')


def merge(
  rule: str,
  probabilities: Float[Array, 'n h w'],
  labels: Int[Array, 'n'],
  *,
  threshold: float = THRESHOLD,
) -> Int[Array, 'h w']:
  """Merges the masks of one image by rule A or B.

  Args:
    rule: 'A' gives a pixel to the most probable mask, whatever the order of masks.
      'B' paints masks in their order, later ones over earlier ones: with slots sorted
      by area, small things stay visible.
    probabilities: of the masks.
    labels: of the masks; negative ones are left out.
    threshold: a mask claims pixels with at least this probability.

  Returns:
    Labels, `UNASSIGNED` where no mask reaches the threshold.
  """
  lookup(RULES, rule, 'merging rule')
  if rule not in 'AB':
    other = {'C': 'marginalise', 'D': 'multilabel'}[rule]
    raise ValueError(f'rule {rule} needs other inputs; call {other}')
  if not labels.shape[0]:
    return jnp.full(probabilities.shape[1:], UNASSIGNED, jnp.int32)
  claims = (probabilities >= threshold) & (labels >= 0)[:, None, None]
  if rule == 'A':
    p = jnp.where(claims, probabilities, -1.0)
    best = p == jnp.max(p, axis=0, keepdims=True)
    # Of equally probable masks the lowest label, so that their order plays no part.
    last = jnp.iinfo(jnp.int32).max
    chosen = jnp.min(jnp.where(best & claims, labels[:, None, None], last), axis=0)
  else:
    place = jnp.arange(1, labels.shape[0] + 1)[:, None, None]
    chosen = labels[jnp.maximum(jnp.max(jnp.where(claims, place, 0), axis=0) - 1, 0)]
  return jnp.where(jnp.any(claims, axis=0), chosen, UNASSIGNED).astype(jnp.int32)


def marginalise(
  probabilities: Float[Array, 'n h w'],
  cosines: Float[Array, 'n c'],
  *,
  tau: float,
  chunk: int = 32,
) -> tuple[Int[Array, 'h w'], Float[Array, 'h w']]:
  """Rule C: the class of the largest sum over masks of p(class | mask) p(mask).

  Args:
    probabilities: of the masks.
    cosines: of the masks' tokens with the classes; the last one is "unlabeled", which
      takes its share and is never given.
    tau: temperature of p(class | mask).
    chunk: classes whose maps are in memory at once.

  Returns:
    Labels and their sums.
  """
  weights = jax.nn.softmax(cosines / tau, axis=1)[:, :-1]
  best = jnp.full(probabilities.shape[1:], -1.0)
  labels = jnp.full(probabilities.shape[1:], UNASSIGNED, jnp.int32)
  for start in range(0, weights.shape[1], chunk):
    part = weights[:, start : start + chunk]
    scores = jnp.einsum('nc,nhw->chw', part, probabilities, precision=EXACT)
    top = jnp.max(scores, axis=0)
    which = jnp.argmax(scores, axis=0).astype(jnp.int32) + start
    labels = jnp.where(top > best, which, labels)
    best = jnp.maximum(top, best)
  return labels, best


def multilabel(
  probabilities: Float[Array, 'n h w'],
  labels: Int[Array, 'n'],
  num_classes: int,
  *,
  threshold: float = THRESHOLD,
) -> Bool[Array, 'c h w']:
  """Rule D: no merging. A pixel may have several labels, so this is no segmentation."""
  claims = (probabilities >= threshold) & (labels >= 0)[:, None, None]
  is_class = labels[:, None] == jnp.arange(num_classes)[None]  # n c
  hit = jnp.einsum(
    'nc,nhw->chw', is_class.astype(jnp.float32), claims.astype(jnp.float32)
  )
  return hit > 0


def top_labels(
  image: Float[Array, 'b d'], text: Float[Array, 'c d'], k: int
) -> tuple[Int[Array, 'b k'], Float[Array, 'b k']]:
  """Returns the labels that fit whole images best, and their cosines, in order.

  Args:
    image: L2-normalised embeddings.
    text: L2-normalised embeddings.
    k: labels per image; all of them if there are fewer.
  """
  cosines = jnp.matmul(image, text.T, precision=EXACT)
  scores, labels = jax.lax.top_k(cosines, min(k, text.shape[0]))
  return labels.astype(jnp.int32), scores


def label_recall(
  labels: Int[Array, 'b k'], truth: Int[Array, 'b h w'], num_classes: int
) -> tuple[Int[Array, ''], Int[Array, '']]:
  """Counts the classes in the ground truth, and those of them among the labels.

  Args:
    labels: chosen for each image; negative ones are none.
    truth: class ids; others than 0 to `num_classes` - 1 are no class.
    num_classes: of the ground truth.

  Returns:
    Found and present, summed over the images: recall@k is their ratio.
  """

  def one(labels: Array, truth: Array) -> tuple[Array, Array]:
    inside = (truth >= 0) & (truth < num_classes)
    flat = jnp.where(inside, truth, num_classes).reshape(-1)
    present = jnp.zeros(num_classes + 1, bool).at[flat].set(True)[:num_classes]
    place = jnp.where(labels >= 0, labels, num_classes)
    chosen = jnp.zeros(num_classes + 1, bool).at[place].set(True)[:num_classes]
    return jnp.sum(present & chosen), jnp.sum(present)

  found, present = jax.vmap(one)(labels, truth)
  return jnp.sum(found), jnp.sum(present)
