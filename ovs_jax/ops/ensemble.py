"""From two classifiers per proposal to one label per pixel (OVSeg, section 3.1)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.types import Array, Bool, Float, Int
from ovs_jax.ops.resize import EXACT, linear_taps

TEMPERATURE = 100.0  # 1 / 0.01, the papers' tau; fixed, not learned
CLASSIFIERS = ('ensemble', 'clip', 'proposer')


def class_logits(
  embeddings: Float[Array, '*b d'], text: Float[Array, 'k d']
) -> Float[Array, '*b k']:
  """Cosines times `TEMPERATURE`.

  Args:
    embeddings: of proposals or regions, any length.
    text: L2-normalised class embeddings.
  """
  unit = embeddings / jnp.linalg.norm(embeddings, axis=-1, keepdims=True)
  return TEMPERATURE * jnp.matmul(unit, text.T, precision=EXACT)


def combine(
  proposer_logits: Float[Array, '*b q k1'],
  clip_logits: Float[Array, '*b q k'],
  valid: Bool[Array, '*b q'],
  *,
  classifier: str,
  weight: float,
) -> Float[Array, '*b q k']:
  """Returns the class weight of every proposal.

  The proposer's softmax includes "no object" (the last column), so its rows sum to at
  most 1; CLIP's runs over the classes alone. The product is not renormalised.

  Args:
    proposer_logits: K + 1 columns, the last one "no object".
    clip_logits: K columns.
    valid: proposals with any pixel above the mask threshold.
    classifier: 'ensemble' gives p_proposer^(1-weight) * p_clip^weight, in which an
      invalid proposal has p_clip = 1; 'clip' gives p_clip and drops invalid
      proposals; 'proposer' gives p_proposer.
    weight: lambda, in 0..1. At 0 the official code means CLIP alone, not the
      proposer alone, and so does 'ensemble' here.
  """
  if classifier not in CLASSIFIERS:
    raise ValueError(
      f'unknown classifier {classifier!r}; known: {", ".join(CLASSIFIERS)}'
    )
  if not 0 <= weight <= 1:
    raise ValueError(f'the ensemble weight must lie in 0..1, got {weight}')
  proposer = jax.nn.softmax(proposer_logits, axis=-1)[..., :-1]
  if classifier == 'proposer':
    return proposer
  clip = jax.nn.softmax(clip_logits, axis=-1)
  if classifier == 'clip' or weight == 0:
    return jnp.where(valid[..., None], clip, 0.0)
  clip = jnp.where(valid[..., None], clip, 1.0)
  return proposer ** (1 - weight) * clip**weight


def fuse(
  weights: Float[Array, 'q k'], masks: Float[Array, 'q h w']
) -> Float[Array, 'k h w']:
  """Sums the soft masks of all proposals, each with its class weights."""
  return jnp.einsum('qk,qhw->khw', weights, masks, precision=EXACT)


def label_map(
  weights: Float[Array, 'q k'],
  masks: Float[Array, 'q h w'],
  size: tuple[int, int],
  *,
  block: int = 128,
) -> tuple[Int[np.ndarray, 'H W'], Float[np.ndarray, 'H W']]:
  """Fuses, resizes bilinearly to `size` and takes the best class of every pixel.

  Works on `block` rows at a time, so memory grows with proposals, not with classes:
  resizing is linear and commutes with the sum over proposals.

  Returns:
    The class indices (int32) and their scores.
  """
  low, high, weight = linear_taps(masks.shape[1], size[0])
  columns = linear_taps(masks.shape[2], size[1])
  labels, scores = [], []
  for start in range(0, size[0], block):
    # The last block is moved up instead of cut, so that one program serves all.
    first = max(min(start, size[0] - block), 0)
    rows = slice(first, first + block)
    best, score = _block_labels(
      weights, masks, (low[rows], high[rows], weight[rows]), columns
    )
    labels.append(np.asarray(best)[start - first :])
    scores.append(np.asarray(score)[start - first :])
  return np.concatenate(labels), np.concatenate(scores)


@functools.partial(jax.jit)
def _block_labels(
  weights: Float[Array, 'q k'],
  masks: Float[Array, 'q h w'],
  rows: tuple[Array, Array, Array],
  columns: tuple[Array, Array, Array],
) -> tuple[Int[Array, 'r W'], Float[Array, 'r W']]:
  def lerp(x: Array, taps: tuple[Array, Array, Array], axis: int) -> Array:
    low, high, weight = taps
    shape = [1] * x.ndim
    shape[axis] = -1
    t = weight.reshape(shape)
    return (1 - t) * jnp.take(x, low, axis) + t * jnp.take(x, high, axis)

  scores = fuse(weights, lerp(lerp(masks, rows, 1), columns, 2))
  return jnp.argmax(scores, axis=0).astype(jnp.int32), jnp.max(scores, axis=0)
