"""From the values in label files to train ids, and how often each occurs."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ovs_jax.core.types import VOID, Bool, Int, Num, void_of

Labels = Num[np.ndarray, 'h w']

_RUN = 8  # pixels of a value in a row, on average, from where runs are counted


class Applied(NamedTuple):
  """What a table makes of the values of a label file.

  Attributes:
    train_ids: or the values themselves, if some may not occur.
    unknown: these values.
    counts: pixels by train id, to the one of void.
  """

  train_ids: Labels
  unknown: list[int]
  counts: Int[np.ndarray, 'v']


@dataclasses.dataclass(frozen=True, eq=False)
class ClassTable:
  """From the values in label files to train ids.

  Attributes:
    train_ids: by value; `void` where the value is no class. uint8, or uint16 where
      there are more than 255 classes.
    known: by value; whether it may occur.
  """

  train_ids: Num[np.ndarray, 'v']
  known: Bool[np.ndarray, 'v']

  @property
  def void(self) -> int:
    """The train id of pixels without a class: the largest number of the type."""
    return void_of(self.train_ids.dtype)

  def hide(self, train_ids: Sequence[int]) -> 'ClassTable':
    """Returns a table that makes these classes void."""
    hidden = self.train_ids.copy()
    hidden[np.isin(hidden, train_ids)] = self.void
    return ClassTable(hidden, self.known)

  def apply(self, values: Labels) -> Applied:
    """Returns train ids, what may not occur, and how often each train id does."""
    counts = count_values(values, len(self.known))
    unknown = np.flatnonzero(counts[: len(self.known)].astype(bool) & ~self.known)
    beyond = len(self.known) + np.flatnonzero(counts[len(self.known) :])
    if len(unknown) or len(beyond):
      return Applied(values, [int(v) for v in (*unknown, *beyond)], counts)
    same = values.dtype == self.train_ids.dtype and self._identity
    train_ids = values if same else self.train_ids[values]
    found = np.zeros(self.void + 1, np.int64)
    np.add.at(found, self.train_ids, counts)
    return Applied(train_ids, [], found)

  @functools.cached_property
  def _identity(self) -> bool:
    """Whether every value of the type that may occur is its own train id."""
    same = self.train_ids == np.arange(len(self.known))
    return bool(same[: self.void + 1][self.known[: self.void + 1]].all())


def count_values(values: Labels, least: int) -> Int[np.ndarray, 'v']:
  """Returns how often each value occurs, from 0 to the largest, or to `least` - 1.

  Neighbours mostly have the same value, so that there are few runs of equal ones:
  counting these takes a tenth of the time of counting pixels.
  """
  row = values.ravel()
  ends = np.append(np.flatnonzero(row[1:] != row[:-1]), row.size - 1)
  if len(ends) > row.size // _RUN:
    return np.bincount(row, minlength=least)
  lengths = np.diff(ends, prepend=-1)
  counts = np.bincount(row[ends], weights=lengths, minlength=least)
  return counts.astype(np.int64)


def class_table(source_values: Sequence[int], ignored: Iterable[int]) -> ClassTable:
  """Makes the table of a class list.

  Args:
    source_values: by train id; the class's value in label files.
    ignored: further values that occur and are no class.
  """
  dtype = np.uint8 if len(source_values) <= VOID else np.uint16
  allowed = {*source_values, *ignored}
  known = np.zeros(max(allowed) + 1, bool)
  known[list(allowed)] = True
  train_ids = np.full(len(known), void_of(dtype), dtype)
  train_ids[list(source_values)] = np.arange(len(source_values))
  return ClassTable(train_ids, known)
