"""Tables of scores as Markdown and as CSV, the same in every report."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence

# What other programs call mIoU comes first; keys are those of `ops.confusion`.
COMPARED = 'miou_predicted_too'
MIOUS = {
  'mIoU (detectron2 0.6)': COMPARED,
  'mIoU, classes in the truth': 'miou',
}
SCORES = {
  **MIOUS,
  'fwIoU': 'fwiou',
  'mACC': 'mean_accuracy',
  'pACC': 'pixel_accuracy',
}


def markdown(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
  """Returns the lines of a table, and a blank one."""
  lines = [f'| {" | ".join(titles)} |', '|---' * len(titles) + '|']
  return [*lines, *(f'| {" | ".join(row)} |' for row in rows), '']


def number(value: float | None) -> str:
  """Returns a score with one decimal, "-" where there is none."""
  return '-' if value is None or math.isnan(value) else f'{value:.1f}'


def interval(bounds: Sequence[float]) -> str:
  """Returns "[low, high]"."""
  return f'[{number(bounds[0])}, {number(bounds[1])}]'


def of_labels(title: str, labels: Mapping[str, float]) -> str:
  """Returns a line of a list on what `scores.label_scores` returned."""
  return (
    f'- {title}: {labels["per_image"]:.1f} labels per image; they hold '
    f'{labels["recall"]:.1f} % of the classes that are there, and '
    f'{labels["precision"]:.1f} % of them are there.'
  )


def comma_separated(
  titles: Sequence[str], rows: Iterable[Sequence[object]], *, decimals: int = 2
) -> str:
  """Returns CSV with a line of titles; a float that is NaN becomes an empty field."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow(titles)
  writer.writerows([_field(x, decimals) for x in row] for row in rows)
  return text.getvalue()


def _field(value: object, decimals: int) -> object:
  if not isinstance(value, float):
    return value
  return '' if math.isnan(value) else f'{value:.{decimals}f}'
