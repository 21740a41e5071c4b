"""Class weights of proposals, compiled once for many numbers of names."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.types import Array, Bool, Float, Int
from ovs_jax.models import ovseg
from ovs_jax.models.clip_mix import Mix
from ovs_jax.ops.ensemble import average, combine
from ovs_jax.ops.selection import best_per_class

# 'pixels': all proposals add up with their soft masks, and every pixel takes its best
# class (OVSeg, section 3.1). 'demo': only the best proposal of each class is painted,
# with its binary mask and CLIP's probabilities alone, and the rest stays blank (the
# official demo for user-defined names).
RULES = ('pixels', 'demo')
EACH = 'each'  # of masks that are given: a name for each, and nothing is painted

# The proposals' class weights, and both classifiers' probabilities.
Weights = tuple[Float[Array, 'q k'], Float[Array, 'q k'], Float[Array, 'q k']]


def weigh(
  encoded: ovseg.Encoded,
  rows: Float[np.ndarray, 't d'],
  owner: Int[np.ndarray, 't'],
  *,
  choosing: int,
  rule: str,
  classifier: str,
  weight: float,
  mix: Mix | None = None,
) -> Weights:
  """Returns the proposals' class weights, and both classifiers' probabilities.

  Args:
    encoded: of one image.
    rows: L2-normalised embeddings of words, by all CLIPs.
    owner: the class of each row, ascending from 0; the best word of a class counts.
    choosing: under the rule 'demo', how many classes choose a proposal.
    rule: one of `RULES`.
    classifier: 'proposer', 'clip', or 'ensemble' of both; 'demo' takes CLIP alone.
    weight: of CLIP in the ensemble, 0..1; 0 is CLIP alone, as in the official code.
    mix: of the CLIPs (`models.clip_mix.mix_of`); None: one, with the papers'
      temperature.

  Returns:
    Columns are padded to `bucket` classes, with zeros.
  """
  count = int(owner[-1]) + 1
  size, width = bucket(len(rows)), bucket(count)
  several = len(rows) > count
  padded = np.pad(owner, (0, size - len(rows))).astype(np.int32)
  # The masks play no part here, and without them their size needs no compilation.
  return weigh_padded(
    dataclasses.replace(encoded, masks=encoded.masks[:, :1, :1]),
    jnp.asarray(np.pad(rows, ((0, size - len(rows)), (0, 0)))),
    jnp.arange(size) < len(rows),
    jnp.asarray(padded) if several else None,
    jnp.arange(width) < count,
    jnp.arange(width) < choosing,
    rule=rule,
    classifier=classifier,
    weight=float(weight),
    mix=mix,
  )


@functools.partial(jax.jit, static_argnames=('rule', 'classifier', 'weight', 'mix'))
def weigh_padded(
  encoded: ovseg.Encoded,
  text: Float[Array, 't d'],
  real_rows: Bool[Array, 't'],
  owner: Int[Array, 't'] | None,
  real: Bool[Array, 'k'],
  choosing: Bool[Array, 'k'],
  *,
  rule: str,
  classifier: str,
  weight: float,
  mix: Mix | None = None,
) -> Weights:
  """Does the work of `weigh` on padded arrays.

  `real_rows` and `real` mark rows and classes that are not padding; without an `owner`
  there is one row per class.
  """
  proposer, by_clips = ovseg.classify_each(encoded, text, mix)
  no_object = proposer[:, -1:]
  proposer = jnp.where(real_rows[None], proposer[:, :-1], -jnp.inf)
  by_clips = jnp.where(real_rows[None, None], by_clips, -jnp.inf)
  if owner is not None:
    best = functools.partial(
      jax.ops.segment_max, segment_ids=owner, num_segments=len(real)
    )
    proposer, by_clips = best(proposer.T).T, jax.vmap(lambda x: best(x.T).T)(by_clips)
  by_clip = average(by_clips, (1.0,) if mix is None else mix.weights)
  proposer = jnp.concatenate([proposer, no_object], axis=1)
  probabilities = jax.nn.softmax(by_clip, axis=1)
  if rule == 'demo':
    painted = best_per_class(probabilities, encoded.valid, choosing)
    weights = jnp.where(painted[:, None], probabilities, 0.0)
  else:
    weights = combine(
      proposer, by_clip, encoded.valid, classifier=classifier, weight=weight
    )
  # Invalid proposals count as 1 in CLIP's place, and 0 ** 0 is 1.
  weights = jnp.where(real[None], weights, 0.0)
  return weights, jax.nn.softmax(proposer, axis=1)[:, :-1], probabilities


def bucket(count: int) -> int:
  """Rounds up a number of classes: powers of 2 from 8 to 64, then multiples of 64."""
  if count > 64:
    return -(-count // 64) * 64
  return max(8, 1 << (count - 1).bit_length())
