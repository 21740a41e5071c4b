"""Fewer crops through CLIP, with nearly the same labels."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.types import Array, Float
from ovs_jax.inference.encode import EncodedImage
from ovs_jax.inference.weigh import Weights
from ovs_jax.models import ovseg
from ovs_jax.ops.resize import EXACT

MIN_OBJECT = 0.05  # below it the proposer all but says "no object"
MAX_OVERLAP = 0.8  # IoU above which the less probable of two proposals is left out

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


@jax.jit
def _overlaps(masks: Float[Array, 'q h w']) -> Float[Array, 'q q']:
  """IoU of all pairs, on every second pixel."""
  binary = (masks[:, ::2, ::2] > 0.5).astype(jnp.float32)
  binary = binary.reshape(len(masks), -1)
  both = jnp.matmul(binary, binary.T, precision=EXACT)
  area = jnp.sum(binary, axis=1)
  return both / jnp.maximum(area[:, None] + area[None] - both, 1)
