"""Fewer crops through CLIP, with the same labels, proven, or with nearly the same."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.types import Array, Float
from ovs_jax.inference.encode import EncodedImage
from ovs_jax.inference.weigh import Weights
from ovs_jax.models import ovseg
from ovs_jax.ops.bounds import certain_pixels
from ovs_jax.ops.resize import EXACT

MIN_OBJECT = 0.05  # below it the proposer all but says "no object"
MAX_OVERLAP = 0.8  # IoU above which the less probable of two proposals is left out
_STEP = 8  # crops between two looks at what is proven

Weigh = Callable[[ovseg.Encoded], Weights]


def filtered(picture: EncodedImage, weigh: Weigh) -> Weights:
  """Weighs the proposals that are probably an object, and each object once.

  Args:
    picture: with crops; those that are needed are embedded.
    weigh: from proposals and their embeddings to what `weigh.weigh` returns.

  Returns:
    The same, with weights 0 for the proposals that are left out.
  """
  encoded = picture.encoded
  _, proposer, _ = weigh(encoded)
  score = np.asarray(jnp.sum(proposer, axis=1))
  valid = np.asarray(encoded.valid)
  overlap = np.asarray(_overlaps(encoded.masks))
  keep = valid & (score >= MIN_OBJECT)
  for q in np.argsort(-score, kind='stable'):
    if keep[q]:
      keep &= (
        (overlap[q] <= MAX_OVERLAP) | (score > score[q]) | (np.arange(len(keep)) == q)
      )
  picture.crops.embed(keep)
  weights, proposer, by_clip = weigh(
    dataclasses.replace(encoded, regions=picture.crops.rows)
  )
  by_clip = jnp.where(jnp.asarray(keep | ~valid)[:, None], by_clip, jnp.nan)
  return jnp.where(jnp.asarray(keep)[:, None], weights, 0.0), proposer, by_clip


def certified(
  picture: EncodedImage, weigh: Weigh, count: int, *, classifier: str, weight: float
) -> Weights:
  """Embeds crops until every pixel's label is proven.

  CLIP's probabilities lie in 0..1, so a proposal whose crop was not seen adds between 0
  and its mask times its ceiling to a class. A pixel is proven once the lower bound of
  one class's score is above the upper bounds of all others. Proposals come in the order
  of what they could add to pixels that are not proven.

  Args:
    picture: with crops; those that are needed are embedded.
    weigh: from proposals and their embeddings to what `weigh.weigh` returns, by
      the rule 'pixels'.
    count: of classes; what comes after them is padding.
    classifier: that `weigh` uses.
    weight: that `weigh` uses.

  Returns:
    Lower bounds of the weights. They give the labels that all crops give, but not the
    scores.
    CLIP's probabilities are NaN for crops that were not seen.
  """
  encoded, crops = picture.encoded, picture.crops
  valid = np.asarray(encoded.valid)
  alone = dataclasses.replace(encoded, valid=jnp.zeros_like(encoded.valid))
  if classifier == 'proposer':
    weights, proposer, by_clip = weigh(encoded)
    return weights, proposer, jnp.full_like(by_clip, jnp.nan)
  by_clip_alone = classifier == 'clip' or weight == 0
  while True:
    seen = dataclasses.replace(encoded, regions=crops.rows)
    weights, proposer, by_clip = weigh(seen)
    # Without a valid crop the ensemble takes 1 for CLIP's probability: the ceiling.
    if by_clip_alone:
      ceiling = jnp.ones_like(weights) * (jnp.arange(weights.shape[1]) < count)[None]
    else:
      ceiling = weigh(alone)[0]
    known = jnp.asarray(crops.seen | ~valid)[:, None]
    by_clip = jnp.where(known, by_clip, jnp.nan)
    least = jnp.where(known, weights, 0.0)
    most = jnp.where(known, weights, ceiling)
    left = np.flatnonzero(valid & ~crops.seen)
    if not len(left):
      return weights, proposer, by_clip
    open_, reach = certain_pixels(
      least, most, encoded.masks, picture.size, inside=picture.network_size
    )
    if not int(open_):
      return least, proposer, by_clip
    influence = np.asarray(reach * jnp.max(ceiling, axis=1))[left]
    wanted = np.zeros(len(valid), bool)
    wanted[left[np.argsort(-influence, kind='stable')[:_STEP]]] = True
    crops.embed(wanted)


@jax.jit
def _overlaps(masks: Float[Array, 'q h w']) -> Float[Array, 'q q']:
  """IoU of all pairs, on every second pixel."""
  binary = (masks[:, ::2, ::2] > 0.5).astype(jnp.float32)
  binary = binary.reshape(len(masks), -1)
  both = jnp.matmul(binary, binary.T, precision=EXACT)
  area = jnp.sum(binary, axis=1)
  return both / jnp.maximum(area[:, None] + area[None] - both, 1)
