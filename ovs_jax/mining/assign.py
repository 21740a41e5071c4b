"""Which proposal does each noun name? (OVSeg, section 3.3)."""

from collections.abc import Callable

import numpy as np

from ovs_jax.core.types import Bool, Float

_SCALE = 100.0  # of CLIP's cosines before a softmax


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


def _softmax(x: Float[np.ndarray, 'k q'], axis: int) -> Float[np.ndarray, 'k q']:
  e = np.exp(_SCALE * (x - x.max(axis=axis, keepdims=True)))
  return e / e.sum(axis=axis, keepdims=True)


# What proposals are ranked by, from the cosines with the usable ones. The paper does
# not say; all but 'nouns' give the same choice, and differ under a minimum score.
SCORES: dict[str, Callable[[Float[np.ndarray, 'k q']], Float[np.ndarray, 'k q']]] = {
  'cosine': lambda x: x,
  'proposals': lambda x: _softmax(x, 1),  # how much one proposal stands out
  'nouns': lambda x: _softmax(x, 0),  # how much a proposal prefers the noun
}


def rank(
  cosines: Float[np.ndarray, 'k q'], usable: Bool[np.ndarray, 'q'], score: str
) -> Float[np.ndarray, 'k q']:
  """Returns the scores of every noun for every proposal; 0 for unusable ones.

  Args:
    cosines: of nouns with proposals.
    usable: which proposals may be chosen.
    score: of `SCORES`.
  """
  scores = np.zeros_like(cosines)
  if usable.any():
    scores[:, usable] = SCORES[score](cosines[:, usable])
  return scores


def assign(
  scores: Float[np.ndarray, 'k q'],
  usable: Bool[np.ndarray, 'q'],
  *,
  exclusive: bool = False,
) -> list[int | None]:
  """Returns for each noun the usable proposal with the highest score, or None.

  Ties go to the first proposal.

  Args:
    scores: of every noun for every proposal.
    usable: which proposals may be chosen.
    exclusive: whether a proposal serves one noun only, the one with the highest score
      first; nouns that find none left get None.
  """
  if not usable.any():
    return [None] * len(scores)
  masked = np.where(usable[None], scores, -np.inf)
  if not exclusive:
    return [int(q) for q in np.argmax(masked, axis=1)]
  chosen: list[int | None] = [None] * len(scores)
  for _ in range(min(len(scores), int(usable.sum()))):
    k, q = (int(i) for i in np.unravel_index(np.argmax(masked), masked.shape))
    chosen[k] = q
    masked[k], masked[:, q] = -np.inf, -np.inf
  return chosen
