"""The files of an evaluation: tables, confusion matrices and pictures per data set."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ovs_jax.core.files import Place, atomic_path, strict_json, write_text
from ovs_jax.core.types import Int
from ovs_jax.evaluate import tables
from ovs_jax.evaluate.before_after import COUNTS
from ovs_jax.evaluate.judges import Sample
from ovs_jax.evaluate.scores import image_scores
from ovs_jax.evaluate.strips import strip
from ovs_jax.evaluate.suite_report import markdown
from ovs_jax.evaluate.tally import Arrays, Tally
from ovs_jax.text.vocabulary import Vocabulary

_WIDTH = 384  # of a picture in the sheet
_TITLE = 24  # pixels of a line of text


def write_report(
  workdir: Place, what: Mapping[str, Any], summaries: Mapping[str, Any]
) -> str:
  """Writes report.json and report.md, and returns the latter.

  In JSON a score that does not exist is null.
  """
  whole = {**what, 'datasets': summaries}
  write_text(workdir / 'report.json', strict_json(whole, indent=2) + '\n')
  report = markdown(what, summaries)
  write_text(workdir / 'report.md', report)
  return report


def write_tables(
  directory: Place,
  names: Vocabulary,
  summary: Mapping[str, Any],
  tallies: Mapping[str, Tally],
  sums: Arrays,
) -> None:
  """Writes per_class.csv, per_image.csv, counts.npz and confusion.npz of a data set.

  counts.npz has the ids of `images`, and their `counts` (n, 3, k) of the headline:
  pixels that are right, true and predicted; confusion.npz has `names`, the
  (k + 1, k + 1) matrix of every method under its name (rows predictions, columns truth;
  the last ones unassigned and void), and other sums.
  """
  write_text(directory / 'per_class.csv', per_class_table(names, summary, tallies))
  scores = image_scores(tallies[summary['headline']])
  text = tables.comma_separated(['image', 'miou'], sorted(scores.items()), decimals=4)
  write_text(directory / 'per_image.csv', text)
  headline = tallies[summary['headline']]
  with atomic_path(directory / COUNTS) as temporary:
    images = np.array(sorted(headline.images))
    np.savez_compressed(temporary, images=images, counts=headline.table())
  matrices = {name: tally.matrix for name, tally in tallies.items()}
  with atomic_path(directory / 'confusion.npz') as temporary:
    np.savez_compressed(temporary, names=np.array(names.names), **matrices, **sums)


def per_class_table(
  names: Vocabulary, summary: Mapping[str, Any], tallies: Mapping[str, Tally]
) -> str:
  """Returns CSV: for each class its group, its pixels, and all its scores in percent.

  `boundary` and `accuracy` are those of the headline, `single` where the class alone
  was asked for. An empty field means that there is no such score.
  """
  headline = summary['headline']
  pixels = tallies[headline].matrix[:, :-1].sum(axis=0)
  methods, scores = list(summary['methods']), summary['methods']
  single = summary['single_concept'] or {'iou_per_class': [math.nan] * len(names)}
  more = ('accuracy', 'boundary', 'single')
  titles = ['class', 'group', 'nearest', 'cosine', 'pixels', *methods, *more]
  rows = []
  for k, row in enumerate(summary['class_table']):
    values = [scores[m]['iou_per_class'][k] for m in methods]
    values += [
      scores[headline]['accuracy_per_class'][k],
      scores[headline]['boundary_iou_per_class'][k],
      single['iou_per_class'][k],
    ]
    known = [str(row.get(x, '')) for x in ('class', 'group', 'nearest', 'cosine')]
    rows.append([*known, int(pixels[k]), *values])
  return tables.comma_separated(titles, rows)


def choose(tally: Tally, count: int) -> list[tuple[str, str, float]]:
  """Returns `count` images each of the best, the median and the worst.

  Each is a title, its id, and the mean IoU of its classes; none comes twice.
  """
  scores = {i: x for i, x in image_scores(tally).items() if not math.isnan(x)}
  order = sorted(scores, key=lambda i: (-scores[i], i))
  middle = max((len(order) - count) // 2, 0)
  picked: dict[str, str] = {}
  for kind, ids in (
    ('best', order[:count]),
    ('worst', order[::-1][:count]),
    ('median', order[middle : middle + count]),
  ):
    for image_id in ids:
      picked.setdefault(image_id, kind)
  kinds = ('best', 'median', 'worst')
  ranked = sorted(picked, key=lambda i: (kinds.index(picked[i]), order.index(i)))
  return [(f'{picked[i]}: {i}, {scores[i]:.1f}', i, scores[i]) for i in ranked]


def write_sheet(
  directory: Place,
  drawn: Sequence[tuple[str, Sample, Int[np.ndarray, '_ _']]],
  names: Vocabulary,
) -> None:
  """Writes sheet.png: image, truth and prediction of each, below its title."""
  if not drawn:
    return
  parts = []
  for title, sample, labels in drawn:
    h, w = sample.label.shape
    size = (max(round(h * _WIDTH / w), 1), _WIDTH)
    rows, columns = ((np.arange(n) * m) // n for n, m in zip(size, (h, w), strict=True))
    image = Image.fromarray(sample.image).resize(size[::-1])
    maps = [x[rows[:, None], columns[None]] for x in (sample.label, labels)]
    parts.append((title, strip(np.asarray(image), *maps, names, scale=1)))
  width = max(part.width for _, part in parts)
  height = sum(part.height + _TITLE for _, part in parts)
  sheet = Image.new('RGB', (width, height), 'white')
  draw, y = ImageDraw.Draw(sheet), 0
  for title, part in parts:
    draw.text((2, y + 3), title, fill='black', font_size=15)
    sheet.paste(part, (0, y + _TITLE))
    y += part.height + _TITLE
  with atomic_path(directory / 'sheet.png') as temporary:
    sheet.save(temporary)
