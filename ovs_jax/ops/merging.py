"""From binary masks with labels to one label per pixel; the CoSeg paper is silent.

A: the most probable mask that claims a pixel has it, whatever the order of the masks.
B: masks are painted one over the other, the smallest last: small things stay visible.
C: every class collects the masks that resemble it (`marginalise`); no threshold.
D: no merging; a pixel may have several labels, so this is no segmentation.
A mask claims pixels with at least the threshold's probability. `ops.canvas` has A, B
and D.
"""

import jax
import jax.numpy as jnp

from ovs_jax.core.types import NO_LABEL, Array, Float, Int
from ovs_jax.ops.resize import EXACT

# The label of pixels that no mask claims. It counts as wrong and is no void pixel:
# leaving those out of the ground truth would inflate the scores.
THRESHOLD = 0.3  # CLIPSeg's and CoSeg's
RULES = dict.fromkeys('ABCD')


def mask_weights(cosines: Float[Array, 'n c'], *, tau: float) -> Float[Array, 'n k']:
  """Returns p(class | mask); what a row lacks of 1 is the share of "unlabeled"."""
  return jax.nn.softmax(cosines / tau, axis=1)[:, :-1]


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
  weights = mask_weights(cosines, tau=tau)
  best = jnp.full(probabilities.shape[1:], -1.0)
  labels = jnp.full(probabilities.shape[1:], NO_LABEL, jnp.int32)
  for start in range(0, weights.shape[1], chunk):
    part = weights[:, start : start + chunk]
    scores = jnp.einsum('nc,nhw->chw', part, probabilities, precision=EXACT)
    top = jnp.max(scores, axis=0)
    which = jnp.argmax(scores, axis=0).astype(jnp.int32) + start
    labels = jnp.where(top > best, which, labels)
    best = jnp.maximum(top, best)
  return labels, best
