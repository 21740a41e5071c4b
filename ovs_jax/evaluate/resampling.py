"""Scores of resampled data sets and seeds, and whether one is above another.

Every quantity follows from three integers per image and class: what is right, true and
predicted, in pixels or in crops. All quantities are resampled alike, image by image and
seed by seed, so that differences of two are paired.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ovs_jax.core.types import Float, Int, Num
from ovs_jax.ops.confusion import class_iou

LEVEL = (2.5, 97.5)  # percentiles between which 95 % of the resampled values lie
_ALPHA, _Z = 0.05, 1.96  # level of verdicts, and its quantile of a normal distribution
HOLDS, FAILS, UNDECIDED, NOT_RUN = 'holds', 'does not hold', 'undecided', 'not run'


@dataclasses.dataclass(frozen=True)
class Quantity:
  """One number of an evaluation.

  Attributes:
    stage: whose counts.npz has it.
    method: the name of the counts there.
    statistic: `iou` (mean over classes) or `accuracy` (the same, of right to true).
    group: of the classes: `all`, or a split of the class list.
    present: least and most classes of an image that counts.
  """

  stage: str
  method: str
  statistic: str = 'iou'
  group: str = 'all'
  present: tuple[int, int] = (0, 10**6)


@dataclasses.dataclass(frozen=True)
class Gain:
  """What `higher` has more than `lower`."""

  lower: Quantity
  higher: Quantity


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A quantity in percent; NaN where no image counts.

  Attributes:
    value: mean over seeds.
    low: of the 95 % interval over images (and seeds, if there are several).
    high: see `low`.
    seeds: the value of each seed.
  """

  value: float
  low: float
  high: float
  seeds: tuple[float, ...]

  @classmethod
  def of(cls, draws: Float[np.ndarray, 's r']) -> 'Estimate':
    """Reads what `Resampler.draws` returned."""
    values = _over_seeds(draws[:, 1:])
    known = values[~np.isnan(values)]
    low, high = np.percentile(known, LEVEL) if len(known) else (np.nan, np.nan)
    seeds = tuple(float(x) for x in draws[:, 0])
    return cls(float(np.mean(seeds)), float(low), float(high), seeds)


def resampled(
  counts: Int[np.ndarray, 'n 3 k'], *, replicates: int, seed: int = 0
) -> Float[np.ndarray, 'r 3 k']:
  """Returns the sums over the images of resampled data sets.

  Each has as many images, drawn with replacement; which ones depends on the number of
  images, of replicates and the seed alone.

  Args:
    counts: of each image, at least one.
    replicates: resampled data sets.
    seed: of the drawing.
  """
  n = len(counts)
  generator = np.random.default_rng(seed)
  times = generator.multinomial(n, np.full(n, 1 / n), size=replicates)
  # Exact: whole numbers far below 2**53.
  sums = times.astype(np.float64) @ counts.reshape(n, -1).astype(np.float64)
  return sums.reshape(replicates, *counts.shape[1:])


class Resampler:
  """Draws images with replacement, the same for every quantity."""

  def __init__(
    self,
    counts: Sequence[Mapping[str, Mapping[str, Int[np.ndarray, 'n 3 k']]]],
    groups: Mapping[str, Sequence[int]],
    *,
    replicates: int = 1000,
  ) -> None:
    """Keeps the counts.

    Args:
      counts: of every seed, by stage and method.
      groups: classes by name.
      replicates: resampled data sets.
    """
    self._counts, self._groups = counts, groups
    self._replicates = replicates

  def known(self, quantity: Quantity | Gain) -> bool:
    """Whether all seeds have the counts."""
    if isinstance(quantity, Gain):
      return self.known(quantity.lower) and self.known(quantity.higher)
    return all(quantity.method in c.get(quantity.stage, {}) for c in self._counts)

  def draws(self, quantity: Quantity | Gain) -> Float[np.ndarray, 's r']:
    """Returns for each seed the value in percent, then the resampled ones."""
    if isinstance(quantity, Gain):
      return self.draws(quantity.higher) - self.draws(quantity.lower)
    found = [c[quantity.stage][quantity.method] for c in self._counts]
    return np.stack([self._values(counts, quantity) for counts in found])

  def _values(
    self, counts: Int[np.ndarray, 'n 3 k'], quantity: Quantity
  ) -> Float[np.ndarray, 'r']:
    amount = (counts[:, 1] > 0).sum(axis=1)
    low, high = quantity.present
    used = counts[(amount >= low) & (amount <= high)]
    if not len(used):
      return np.full(1 + self._replicates, np.nan)
    whole = used.sum(axis=0, dtype=np.float64, keepdims=True)
    sums = np.concatenate([whole, resampled(used, replicates=self._replicates)])
    members = self._groups.get(quantity.group)
    sums = sums if members is None else sums[..., list(members)]
    return 100 * _mean(sums, quantity.statistic)


def _mean(sums: Num[np.ndarray, 'r 3 k'], statistic: str) -> Float[np.ndarray, 'r']:
  """Mean over the classes that are there; of none of them, NaN."""
  right, truth, predicted = sums[:, 0], sums[:, 1], sums[:, 2]
  if statistic == 'iou':
    values = class_iou(right, truth, predicted)
  else:
    values = np.where(truth > 0, right / np.maximum(truth, 1), np.nan)
  present = (truth > 0).sum(axis=1)
  return np.where(
    present > 0, np.nansum(values, axis=1) / np.maximum(present, 1), np.nan
  )


def _over_seeds(draws: Float[np.ndarray, 's r']) -> Float[np.ndarray, 'r']:
  """Means over seeds drawn with replacement; of one seed, its own values.

  The pictures of a draw are the same for all seeds, as they are in the evaluations.
  """
  count, replicates = draws.shape
  rng = np.random.default_rng(1)
  chosen = rng.integers(count, size=(replicates, count))
  return np.mean(draws[chosen, np.arange(replicates)[:, None]], axis=1)


@dataclasses.dataclass(frozen=True)
class Verdict:
  """What is known of the claim that one quantity is below another.

  Attributes:
    word: `HOLDS`, `FAILS` or `UNDECIDED`.
    difference: the higher one less the lower one, on the same pictures and seeds.
    p: of no difference, two-sided, after Holm's correction.
    seeds_needed: with which it would be decided, if the difference and the spreads
      stay; 0 if no number suffices, and None if one seed alone was run.
  """

  word: str
  difference: Estimate
  p: float
  seeds_needed: int | None


def verdicts(differences: Sequence[Float[np.ndarray, 's r']]) -> list[Verdict]:
  """Judges together all relations of a claim.

  A relation holds, or does not, where the difference is above 0, or below, at a level
  of 5 % after Holm's correction (1979) for the number of relations.

  Args:
    differences: draws of what should be positive.
  """
  found = [Estimate.of(draws) for draws in differences]
  corrected = holm([_p_value(_over_seeds(draws[:, 1:])) for draws in differences])
  made = []
  for draws, one, p in zip(differences, found, corrected, strict=True):
    word = UNDECIDED
    if p <= _ALPHA:
      word = HOLDS if one.value > 0 else FAILS
    made.append(Verdict(word, one, p, seeds_needed(draws)))
  return made


def _p_value(draws: Float[np.ndarray, 'r']) -> float:
  """Twice the share of draws on the other side of 0, as percentile intervals do."""
  known = draws[~np.isnan(draws)]
  if not len(known):
    return 1.0
  below, above = ((known <= 0).sum(), (known >= 0).sum())
  return min(1.0, 2 * float(min(below, above)) / len(known))


def holm(p_values: Sequence[float]) -> list[float]:
  """Returns p-values corrected for their number, step down."""
  count, most = len(p_values), 0.0
  corrected = [0.0] * count
  for rank, i in enumerate(np.argsort(p_values, kind='stable').tolist()):
    most = max(most, min(1.0, (count - rank) * p_values[i]))
    corrected[i] = most
  return corrected


def seeds_needed(draws: Float[np.ndarray, 's r']) -> int | None:
  """Returns how many seeds a difference needs to be told from 0; see `Verdict`.

  Its variance is that of the pictures, which seeds share, and that over seeds divided
  by their number.
  """
  if len(draws) < 2:
    return None
  mean, spread = draws[:, 0].mean(), draws[:, 0].var(ddof=1)
  pictures = np.nanvar(draws[:, 1:].mean(axis=0))
  left = (mean / _Z) ** 2 - pictures
  return max(1, int(np.ceil(spread / left))) if left > 0 else 0
