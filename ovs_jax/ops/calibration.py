"""Whether labels are right as often as their confidences say.

Naeini, Cooper and Hauskrecht (AAAI 2015): pixels are sorted into bins by confidence,
and the expected calibration error is the mean over pixels of the distance between a
bin's share of right pixels and its mean confidence.
"""

import numpy as np

from ovs_jax.core.types import Float, Int

BINS = 10
_UNIT = 2**16  # confidences are added up as integers, so that their order plays no part


def count_bins(
  labels: Int[np.ndarray, 'h w'],
  confidence: Float[np.ndarray, 'h w'],
  truth: Int[np.ndarray, 'h w'],
  num_classes: int,
) -> Int[np.ndarray, '10 3']:
  """Counts the pixels that have a label and a ground truth.

  Args:
    labels: classes; pixels with any other value are left out.
    confidence: of the labels, 0..1.
    truth: classes; others are void.
    num_classes: of the data set.

  Returns:
    For each tenth of confidence the pixels, those that are right, and the sum of their
    confidences in 1/65536.
  """
  used = (labels >= 0) & (labels < num_classes)
  used &= (truth >= 0) & (truth < num_classes)
  sure = confidence[used].astype(np.float64)
  bins = np.minimum((sure * BINS).astype(np.int64), BINS - 1)
  right = (labels == truth)[used]
  units = np.round(sure * _UNIT).astype(np.int64)
  counts = np.zeros((BINS, 3), np.int64)
  np.add.at(counts, bins, np.stack([np.ones_like(units), right, units], axis=1))
  return counts


def reliability(counts: Int[np.ndarray, '10 3']) -> dict[str, object]:
  """Returns what `count_bins` says, summed over images.

  `error`, the expected calibration error in percent; `confidence` and `right`, means
  over all counted pixels in percent; `bins`, for each tenth of confidence its `pixels`
  (percent of all), mean `confidence` and share that is `right` (percent; None if no
  pixel is in it).
  """
  pixels, right, units = counts.T.astype(np.float64)
  total = max(pixels.sum(), 1)
  sure = units / _UNIT
  bins = [
    {
      'pixels': 100 * n / total,
      'confidence': 100 * c / n if n else None,
      'right': 100 * r / n if n else None,
    }
    for n, r, c in zip(pixels, right, sure, strict=True)
  ]
  return {
    'error': 100 * float(np.abs(right - sure).sum() / total),
    'confidence': 100 * float(sure.sum() / total),
    'right': 100 * float(right.sum() / total),
    'bins': bins,
  }
