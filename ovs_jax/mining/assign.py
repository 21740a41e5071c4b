"""Which proposal does each noun name? (OVSeg, section 3.3)."""

import numpy as np

from ovs_jax.core.types import Bool, Float


def cosine(
  regions: Float[np.ndarray, 'q d'], nouns: Float[np.ndarray, 'k d']
) -> Float[np.ndarray, 'k q']:
  """Returns the cosines of every noun with every region.

  Args:
    regions: any length.
    nouns: L2-normalised.
  """
  unit = regions / np.linalg.norm(regions, axis=1, keepdims=True)
  return nouns @ unit.T


def assign(
  scores: Float[np.ndarray, 'k q'], usable: Bool[np.ndarray, 'q']
) -> list[int | None]:
  """Returns for each noun the usable proposal with the highest score, or None.

  A proposal may serve several nouns; ties go to the first proposal.
  """
  if not usable.any():
    return [None] * len(scores)
  masked = np.where(usable[None], scores, -np.inf)
  return [int(q) for q in np.argmax(masked, axis=1)]
