"""Two evaluations of the same images side by side: what is better, and how surely.

Intervals are over resampled images, which are the same for both, so that the interval
of a gain is that of paired differences.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Place
from ovs_jax.core.types import Float, Int
from ovs_jax.evaluate import tables
from ovs_jax.evaluate.resampling import LEVEL, resampled
from ovs_jax.evaluate.scores import groups_of
from ovs_jax.ops.confusion import class_iou
from ovs_jax.text.vocabulary import Vocabulary

COUNTS = 'counts.npz'  # of a data set's evaluation
WHOLE = 'all classes'  # mIoU (detectron2 0.6)
_KINDS = {'thing': 'things', 'stuff': 'stuff'}
_PARTS = ('before', 'after', 'gain')
Row = dict[str, Any]


def read_counts(directory: Place) -> tuple[tuple[str, ...], Int[np.ndarray, 'n 3 k']]:
  """Returns the ids of an evaluation's images, and what was counted in each."""
  with np.load(directory / COUNTS) as stored:
    return tuple(stored['images'].tolist()), stored['counts']


def compare(
  before: Place, after: Place, names: Vocabulary, *, replicates: int = 1000
) -> list[Row]:
  """Returns a row for all classes, for things and stuff, and for every class.

  Each has a `title`, and `before`, `after` and `gain` in percent, as `[value, low,
  high]`; NaN where no image shows a class.

  Args:
    before: directory of the one evaluation of a data set.
    after: of the other.
    names: the class list.
    replicates: resampled data sets.

  Raises:
    ValueError: they are of different images.
  """
  (ids, one), (others, two) = read_counts(before), read_counts(after)
  if ids != others or one.shape != two.shape:
    raise UserError(
      f'{before} and {after} are evaluations of different images or classes; evaluate '
      'both on one split of one data set'
    )
  draws = []
  for counts in (one, two):
    whole = counts.sum(axis=0, dtype=np.int64)[None].astype(np.float64)
    sums = np.concatenate([whole, resampled(counts, replicates=replicates)])
    draws.append(_scores(sums, names))
  return [
    {'title': title, **_estimates(draws[0][title], draws[1][title])}
    for title in draws[0]
  ]


def _scores(
  sums: Float[np.ndarray, 'r 3 k'], names: Vocabulary
) -> Mapping[str, Float[np.ndarray, 'r']]:
  """What every row of sums comes to, by title."""
  right, true, predicted = sums.transpose(1, 0, 2)
  iou = 100 * class_iou(right, true, predicted)
  named = np.maximum((true + predicted > 0).sum(axis=1), 1)
  found = {WHOLE: np.nansum(iou, axis=1) / named}
  kinds = groups_of(names)
  with warnings.catch_warnings():
    warnings.simplefilter('ignore', RuntimeWarning)  # of means of nothing
    for kind, title in _KINDS.items():
      if kind in kinds:
        found[title] = np.nanmean(iou[:, kinds[kind]], axis=1)
  return found | {name: iou[:, i] for i, name in enumerate(names.names)}


def _estimates(
  one: Float[np.ndarray, 'r'], two: Float[np.ndarray, 'r']
) -> dict[str, list[float]]:
  found = {}
  for name, x in zip(_PARTS, (one, two, two - one), strict=True):
    known = x[1:][~np.isnan(x[1:])]
    low, high = np.percentile(known, LEVEL) if len(known) else (np.nan, np.nan)
    found[name] = [float(x[0]), float(low), float(high)]
  return found


def markdown(rows: Sequence[Row]) -> list[str]:
  """Returns the lines of a table; classes that no image shows are left out."""
  shown = [row for row in rows if not np.isnan(row['before'][0])]
  return tables.markdown(
    ['IoU, percent', *_PARTS],
    [[row['title'], *(_cell(row[part], part) for part in _PARTS)] for row in shown],
  )


def _cell(estimate: Sequence[float], part: str) -> str:
  value = tables.number(estimate[0])
  sign = '+' if part == 'gain' and estimate[0] > 0 else ''
  return f'{sign}{value} {tables.interval(estimate[1:])}'
