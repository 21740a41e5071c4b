"""How many classes a picture shows: what CoSeg's number of labels k comes from.

The paper takes k two standard deviations above the mean of a data set's training split
(CoSeg, section 3.3 and figure 6).
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from ovs_jax.core.files import Path, atomic_path
from ovs_jax.core.types import Int, Num, void_of


@dataclasses.dataclass(frozen=True)
class LabelCounts:
  """Pictures by their number of classes.

  Attributes:
    pictures: (n,), how many show i classes.
  """

  pictures: Int[np.ndarray, 'n']

  @property
  def mean(self) -> float:
    """Classes of a picture, on average."""
    return float(self._average(np.arange(len(self.pictures))))

  @property
  def deviation(self) -> float:
    """Their standard deviation."""
    squares = (np.arange(len(self.pictures)) - self.mean) ** 2
    return float(np.sqrt(self._average(squares)))

  @property
  def labels(self) -> int:
    """K: two deviations above the mean, rounded."""
    return round(self.mean + 2 * self.deviation)

  def _average(self, values: np.ndarray) -> np.floating[Any]:
    return np.average(values, weights=self.pictures)

  def __str__(self) -> str:
    """A line for each number, and what follows from them."""
    total, most = self.pictures.sum(), self.pictures.max()
    lines = [f'{"classes":>7}  pictures']
    lines += [
      f'{i:7}  {n:8}  {"#" * round(40 * n / most)}' for i, n in enumerate(self.pictures)
    ]
    few = self.pictures[: self.labels + 1].sum() / total
    return '\n'.join(
      [
        *lines,
        f'{total} pictures, {self.mean:.2f} classes on average, deviation '
        f'{self.deviation:.2f}',
        f'k = {self.labels}, two deviations above; {few:.1%} of the pictures show no '
        f'more: --config.systems.labels={self.labels}',
      ]
    )

  def draw(self, path: Path, title: str) -> None:
    """Writes a picture like the paper's figure 6, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout='constrained')
    axes = figure.subplots()
    axes.bar(np.arange(len(self.pictures)), self.pictures, color='#4477aa')
    for i, name in ((self.mean, 'mean'), (self.mean + 2 * self.deviation, '+ 2 dev.')):
      axes.axvline(i, color='#cc3311', linestyle='--')
      axes.annotate(f' {name} {i:.1f}', (i, 0.95 * self.pictures.max()))
    axes.set(xlabel='classes in a picture', ylabel='pictures', title=title)
    with atomic_path(path) as temporary:
      figure.savefig(temporary, dpi=120)


def count(labels: Iterable[Num[np.ndarray, '_ _']]) -> LabelCounts:
  """Counts the classes of label maps, in which void is none."""
  found: list[int] = []
  for label in labels:
    shown = np.unique(label)
    found.append(int((shown != void_of(label.dtype)).sum()))
  return LabelCounts(np.bincount(found))
