"""The report of a pipeline: what was measured, how long it took, and pictures."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import (
  Place,
  atomic_path,
  check_writable,
  modified,
  place,
  read_mapping,
  strict_json,
  write_text,
)
from ovs_jax.data import load_names
from ovs_jax.evaluate import tables
from ovs_jax.evaluate.strips import strip
from ovs_jax.evaluate.tables import number
from ovs_jax.settings import Settings
from ovs_jax.text import vocabulary

PHOTOS, NAMES = 'scenes', 'names.txt'  # beside the report
_MODEL = 'ovseg_mpt'  # the stage of the quickstart that makes one
_COLUMNS = {
  **tables.MIOUS,
  'seen': 'miou_seen',
  'unseen': 'miou_unseen',
  'pixels right': 'pixel_accuracy',
}


def report(config: Settings, workdir: Place) -> dict[str, Any]:
  """Writes report.md, report.json and pictures, into the pipeline's directory.

  Raises:
    FileNotFoundError: an evaluation is missing.
    OSError: the directory cannot be written.
  """
  run = check_writable(config.report.run or workdir, megabytes=20)
  frozen, adapted = config.report.frozen, config.report.adapted
  scores = {name: _scores(d) for name, d in (('frozen', frozen), ('mpt', adapted))}
  rows = table_rows(scores['frozen'], scores['mpt'])
  stages = stage_seconds(run)
  mined = _optional(run / 'mine' / 'done.json').get('result', {})
  names = load_names(config.dataset)
  pictures = draw(place(adapted), config.report.method, names)
  for i, picture in enumerate(pictures):
    with atomic_path(run / f'picture_{i}.png') as temporary:
      picture.save(temporary)
  plot_losses(run)
  keep_photos(place(adapted), run / PHOTOS, names)
  summary = {
    'seed': config.seed,
    'dataset': scores['mpt']['dataset'],
    'vocabulary_sha256': scores['mpt']['vocabulary_sha256'],
    'images': scores['mpt']['images'],
    'rows': rows,
    'crops': {name: scores[name]['crops'] for name in scores},
    'stages': stages,
    'mining': mined,
  }
  write_text(run / 'report.json', strict_json(summary, indent=2) + '\n')
  write_text(run / 'report.md', markdown(summary, len(pictures)))
  print(markdown(summary, 0))
  print(f'This is {run / "report.md"}, with pictures.')
  if (run / _MODEL).is_dir():
    photos = run / PHOTOS
    print(
      f'To segment its pictures again: python -m ovs_jax.predict --checkpoint='
      f'{run / _MODEL} --image={photos} --names-file={photos / NAMES}'
    )
  return {'rows': rows}


def keep_photos(evaluation: Place, target: Place, names: vocabulary.Vocabulary) -> None:
  """Writes the kept images without anything on them, and the names that they show."""
  with (evaluation / 'pictures.npz').open('rb') as file, np.load(file) as kept:
    images, labels = kept['image'], kept['label']
  for i, image in enumerate(images):
    with atomic_path(target / f'scene_{i}.png') as temporary:
      Image.fromarray(image).save(temporary)
  shown = [name for i, name in enumerate(names.names) if (labels == i).any()]
  write_text(target / NAMES, '\n'.join(shown) + '\n')


def table_rows(
  frozen: Mapping[str, Any], adapted: Mapping[str, Any]
) -> list[dict[str, Any]]:
  """Returns the lines of the mIoU table, in percent."""
  methods = [name for name in frozen['methods'] if name.startswith('ensemble')]
  lines = [
    ('proposer alone', frozen, 'proposer'),
    ('frozen CLIP alone', frozen, 'clip'),
    ('MPT CLIP alone', adapted, 'clip'),
  ]
  for name in methods:
    weight = name.removeprefix('ensemble_')
    lines.append((f'proposer and frozen CLIP, lambda {weight}', frozen, name))
    lines.append((f'proposer and MPT CLIP, lambda {weight}', adapted, name))
  lines += [
    ('oracle: true masks and frozen CLIP', frozen, 'oracle_masks'),
    ('oracle: true masks and MPT CLIP', adapted, 'oracle_masks'),
    ('oracle: proposals and true class', frozen, 'oracle_classes'),
    ('proposer alone, seen names only', frozen, 'proposer_seen'),
    ('oracle: proposals and true class, seen only', frozen, 'oracle_classes_seen'),
  ]
  keys = ('miou', 'miou_seen', 'miou_unseen', 'miou_predicted_too', 'pixel_accuracy')
  return [
    {'method': title, **{key: _number(source['methods'][name][key]) for key in keys}}
    for title, source, name in lines
    if name in source['methods']
  ]


def _number(value: float | None) -> float | None:
  """A score, or None for that of no classes, which JSON cannot hold."""
  return None if value is None or np.isnan(value) else value


def markdown(summary: Mapping[str, Any], pictures: int) -> str:
  """Returns the report as Markdown, with links to so many pictures."""
  lines = [
    '# Report',
    '',
    f'{summary["images"]} images of {summary["dataset"]}, seed {summary["seed"]}, '
    f'class list {summary["vocabulary_sha256"][:12]}. Percent.',
    '',
    *tables.markdown(
      ['segmentation', *_COLUMNS],
      (
        [row['method'], *(number(row[key]) for key in _COLUMNS.values())]
        for row in summary['rows']
      ),
    ),
  ]
  groups = ('all', 'seen', 'unseen')
  crops = (
    [f'{title}, {label}', *(number(summary['crops'][name][masks][g]) for g in groups)]
    for masks, title in (('true_mask', 'true masks'), ('proposal', 'proposals'))
    for name, label in (('frozen', 'frozen CLIP'), ('mpt', 'MPT CLIP'))
  )
  lines += tables.markdown(['masked crops, accuracy', *groups], crops)
  mined = summary['mining']
  if mined:
    nouns = mined['nouns']
    lines += [
      f'Mined {mined["pairs"]} pairs of {mined["unique_nouns"]} nouns from '
      f'{mined["images"]} images; nouns by {nouns["backend"]} {nouns["version"]}.',
      '',
    ]
  seconds = {**summary['stages'], 'total': sum(summary['stages'].values())}
  rows = ([name, f'{value:.0f}'] for name, value in seconds.items())
  lines += tables.markdown(['stage', 'seconds'], rows)
  if pictures:
    lines += ['Input, truth, prediction (proposer and MPT CLIP):', '']
    lines += [f'![picture {i}](picture_{i}.png)\n' for i in range(pictures)]
    lines += ['![losses](losses.png)']
  return '\n'.join(lines).rstrip('\n') + '\n'


def stage_seconds(run: Place) -> dict[str, float]:
  """Returns the seconds of every finished stage, in the order they ended."""
  done = sorted(run.glob('*/done.json'), key=modified)
  return {
    path.parent.name: read_mapping(path, seconds=(int, float))['seconds']
    for path in done
  }


def plot_losses(run: Place) -> None:
  """Draws the loss of every training stage below `run` into losses.png."""
  from matplotlib.figure import Figure

  logs = sorted(run.glob('*/metrics.jsonl'), key=modified)
  if not logs:
    return
  figure = Figure(figsize=(4 * len(logs), 3), layout='constrained')
  for axes, path in zip(
    figure.subplots(1, len(logs), squeeze=False)[0], logs, strict=True
  ):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    axes.plot([x['step'] for x in lines], [x['loss'] for x in lines])
    axes.set(title=path.parent.name, xlabel='step', ylabel='loss')
  with atomic_path(run / 'losses.png') as temporary:
    figure.savefig(temporary)


def draw(
  evaluation: Place, method: str, names: vocabulary.Vocabulary
) -> list[Image.Image]:
  """Returns a strip for each kept image: input, truth, prediction, legend.

  Raises:
    ValueError: the evaluation has no label maps of `method`.
  """
  pictures = []
  with (evaluation / 'pictures.npz').open('rb') as file, np.load(file) as kept:
    if method not in kept:
      known = ', '.join(name for name in kept if name not in ('image', 'label'))
      raise UserError(f'{evaluation} kept no label maps of {method!r}; known: {known}')
    for image, label, guess in zip(
      kept['image'], kept['label'], kept[method], strict=True
    ):
      pictures.append(strip(image, label, guess, names))
  return pictures


def _scores(directory: str) -> Any:
  path = place(directory) / 'scores.json'
  if not path.is_file():
    raise FileNotFoundError(
      f'{path} not found; run the evaluation that config.report names first'
    )
  return read_mapping(path)


def _optional(path: Place) -> dict[str, Any]:
  return read_mapping(path) if path.is_file() else {}
