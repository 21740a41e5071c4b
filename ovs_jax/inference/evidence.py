"""How sure a label is: its name's share of all that speaks for names, or for nothing.

Every model gives names evidence at every pixel, and none of it is a probability: OVSeg
adds up proposals, which makes 0.00007 of one pixel and 1.84 of another, and masks of
CLIPSeg know nothing of each other. So the evidence of all names, those of the
background too, is added up, and "nothing" has what that sum lacks of 1:

    confidence = evidence of the name / max(1, evidence of all names)

The confidences of a pixel's names and of "nothing" sum to 1. One name alone that has a
mask of CLIPSeg is as sure as that mask is probable. By so much as the name's confidence
exceeds that of the next one, the pixel has a margin.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.types import Float


@dataclasses.dataclass(frozen=True)
class NameMaps:
  """The evidence of single names, made when it is asked for.

  Attributes:
    evidence: of the name with an index, in the picture's size, at least 0.
    total: evidence of all names, those of the background too.
  """

  evidence: Callable[[int], Float[np.ndarray, 'h w']]
  total: Float[np.ndarray, 'h w']

  def confidence(self, label: int) -> Float[np.ndarray, 'h w']:
    """Returns how sure a name is at every pixel, 0..1."""
    return share(self.evidence(label), self.total)


def share(
  evidence: Float[np.ndarray, 'h w'], total: Float[np.ndarray, 'h w']
) -> Float[np.ndarray, 'h w']:
  """Returns confidences, 0..1, or differences of them.

  Args:
    evidence: of a name, or how much more of it there is than of another.
    total: of all names.
  """
  # The two were summed in different orders: a share may round to more than 1.
  return np.minimum(evidence / np.maximum(total, 1), 1).astype(np.float32)


def check_threshold(threshold: float, what: str = 'the threshold') -> None:
  """Raises ValueError for what is no confidence.

  Args:
    threshold: below which pixels get no name.
    what: it is called.
  """
  if not (math.isfinite(threshold) and 0 <= threshold <= 1):
    raise UserError(
      f'{what} must be a confidence in 0..1, got {threshold}; 0 keeps all pixels'
    )
