"""The oracle analyses of OVSeg's introduction: which half of the pipeline fails?

True masks with CLIP's classes show what classification costs; proposals with true
classes show what the masks cost.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.types import Array, Bool, Float, Int, Num, Params
from ovs_jax.models import ovseg
from ovs_jax.ops.ensemble import class_logits
from ovs_jax.ops.regions import crop_regions
from ovs_jax.ops.resize import EXACT

MIN_OVERLAP = 0.5  # IoU from which a proposal counts as showing a true mask


def true_masks(
  label: Int[Array, 'h w'], num_classes: int, max_targets: int
) -> tuple[Int[Array, 't'], Float[Array, 't h w'], Bool[Array, 't']]:
  """Returns the classes of a label map, their masks and which are real.

  Of more than `max_targets` classes those with the most pixels stay.
  """
  counts = jnp.bincount(
    jnp.where(label < num_classes, label, num_classes).reshape(-1),
    length=num_classes + 1,
  )[:-1]
  amount, classes = jax.lax.top_k(counts, min(max_targets, num_classes))
  masks = (label[None] == classes[:, None, None]).astype(jnp.float32)
  return classes, masks, amount > 0


def classify_masks(
  model: ovseg.OvSegConfig,
  params: Params,
  image: Num[Array, 'h w 3'],
  masks: Float[Array, 't h w'],
  text: Float[Array, 'k d'],
) -> Int[Array, 't']:
  """Returns CLIP's best class for each given mask."""
  regions = crop_regions(image, masks, model.region)
  embeddings = ovseg.embed_regions(model, params, regions)
  return jnp.argmax(class_logits(embeddings, text), axis=1)


def paint(
  masks: Float[Array, 't h w'], classes: Int[Array, 't'], valid: Bool[Array, 't']
) -> Int[Array, 'h w']:
  """Writes the class of each (disjoint) mask where the mask is; elsewhere 0."""
  values = jnp.where(valid, classes, 0)
  return jnp.sum(masks.astype(jnp.int32) * values[:, None, None], axis=0)


def true_classes(
  encoded: ovseg.Encoded, label: Int[Array, 'h w'], num_classes: int
) -> Int[Array, 'h w']:
  """Labels every pixel by the proposals, each with the true class it covers most.

  A proposal weighs as much as that class fills its mask, so that proposals which
  straddle classes give way to clean ones.
  """
  truth = jax.nn.one_hot(label.reshape(-1), num_classes)  # n k
  binary = (encoded.masks > 0.5).astype(jnp.float32)
  binary = binary.reshape(binary.shape[0], -1)  # q n
  inside = jnp.matmul(binary, truth, precision=EXACT)  # q k
  purity = jnp.max(inside, axis=1) / jnp.maximum(jnp.sum(inside, axis=1), 1)
  weights = jax.nn.one_hot(jnp.argmax(inside, axis=1), num_classes)
  weights = weights * jnp.where(encoded.valid, purity, 0.0)[:, None]
  scores = jnp.einsum('qk,qhw->khw', weights, encoded.masks, precision=EXACT)
  return jnp.argmax(scores, axis=0)


def best_proposals(
  encoded: ovseg.Encoded, masks: Float[Array, 't h w'], valid: Bool[Array, 't']
) -> tuple[Int[Array, 't'], Bool[Array, 't']]:
  """Returns for each true mask the proposal that overlaps it most.

  The second result says whether their IoU reaches `MIN_OVERLAP`.
  """
  binary = (encoded.masks > 0.5).astype(jnp.float32)
  binary = binary.reshape(binary.shape[0], -1)  # q n
  target = masks.reshape(masks.shape[0], -1)  # t n
  both = jnp.matmul(target, binary.T, precision=EXACT)  # t q
  either = jnp.sum(target, axis=1)[:, None] + jnp.sum(binary, axis=1)[None] - both
  iou = both / jnp.maximum(either, 1)
  return jnp.argmax(iou, axis=1), valid & (jnp.max(iou, axis=1) >= MIN_OVERLAP)


def split_errors(
  label: Int[np.ndarray, 'h w'],
  prediction: Int[np.ndarray, 'h w'],
  true_classes: Int[np.ndarray, 'h w'],
  true_vocabulary: Int[np.ndarray, 'h w'],
  num_classes: int,
) -> Int[np.ndarray, '4']:
  """Counts labelled pixels: right; and wrong by mask, vocabulary or class.

  Args:
    label: the truth; values outside 0..num_classes-1 are void.
    prediction: of the model.
    true_classes: of its proposals, each with its true class. Where these are wrong,
      the mask is to blame.
    true_vocabulary: of the model that was told which classes the image shows. Where it
      is right, a name that the image does not show was to blame.
    num_classes: of the data set.
  """
  known = (label >= 0) & (label < num_classes)
  right = known & (prediction == label)
  mask = known & ~right & (true_classes != label)
  rest = known & ~right & ~mask
  vocabulary = rest & (true_vocabulary == label)
  return np.array([x.sum() for x in (right, mask, vocabulary, rest & ~vocabulary)])
