"""Mode `evaluate_systems`: CoSeg with and without training, and CLIPSeg, side by side.

Every system counts as in mode `benchmark` (`evaluate.suite`), under one protocol or
two: pictures whole and as they are, or the centre as the paper cuts it out.
"""

import dataclasses
import itertools
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ovs_jax.core import hosts
from ovs_jax.core.errors import UserError
from ovs_jax.core.files import (
  Place,
  atomic_path,
  check_writable,
  write_json,
  write_text,
)
from ovs_jax.core.limits import plain
from ovs_jax.core.workers import Workers
from ovs_jax.data.inputs import check_inputs
from ovs_jax.evaluate import suite, tables
from ovs_jax.evaluate.counted import Counted
from ovs_jax.evaluate.judges import (
  DISTRACTED,
  SPLIT,
  TRUE_CLASSES,
  TRUE_MASKS,
  TRUE_VOCABULARY,
  Plan,
  Several,
  distracted,
)
from ovs_jax.evaluate.scores import (
  error_split,
  groups_of,
  label_scores,
  scores_of,
  scores_of_many,
)
from ovs_jax.evaluate.sources import Source, Target, load_source
from ovs_jax.evaluate.subjects import merging_of, system_of
from ovs_jax.evaluate.system_judge import HEADLINE, LABELS, SystemJudge
from ovs_jax.evaluate.tally import Arrays, Tally
from ovs_jax.inference.system import MaskSystem
from ovs_jax.settings import Settings, Systems
from ovs_jax.text import vocabulary

ALL_NAMES = 'clipseg'  # the system that takes every name as a prompt
_ORACLES = {
  TRUE_VOCABULARY: 'oracle labels',
  TRUE_MASKS: 'oracle masks',
  TRUE_CLASSES: 'oracle classes',
}
Report = dict[str, Any]


def evaluate_systems(config: Settings, workdir: Place) -> Report:
  """Evaluates the systems of `config.systems`; writes scores.json, .md and .csv.

  The counts of each image are in counts.npz: for every SYSTEM/PROTOCOL/METHOD (n, 3, k)
  pixels that are right, true and predicted, images in the order of the data set.

  Raises:
    FileNotFoundError, ValueError: no system, no checkpoint, or of another model.
    OSError: `workdir` cannot be written.
    Stopped: SIGTERM came; what is counted will not be counted again.
  """
  began = time.time()
  workdir = check_writable(workdir, megabytes=10)
  settings = config.systems
  source = _source(config)
  systems = build_systems(settings)
  models = (settings.clipseg, settings.label_clip, *vars(settings.coseg).values())
  counted = Counted(workdir, models=models)
  with Workers() as workers:
    judge = judge_of(settings, systems, source.names, workers)
    title = f'{config.name}: evaluate'
    tallies, sums = suite.count_all(
      config, judge, source, counted, title=title, workers=workers
    )
  report: Report = {
    'dataset': f'{config.dataset.name}/{config.dataset.variant}:{settings.split}',
    'vocabulary_sha256': source.names.sha256,
    'images': source.images,
    'settings': json.loads(json.dumps(plain(settings))),
    'systems': scores_by_system(settings, systems, source.names, tallies, sums),
  }
  report['seconds'] = round(time.time() - began, 1)
  if hosts.primary():
    counts = {
      f'{prefix}/{title}': tally.table()
      for prefix in map('/'.join, itertools.product(systems, settings.protocols))
      for title, tally in methods_of(tallies, f'{prefix}/')
    }
    with atomic_path(workdir / 'counts.npz') as temporary:
      np.savez_compressed(temporary, **counts)
    write_text(workdir / 'scores.md', markdown(report))
    write_text(workdir / 'per_class.csv', per_class(source.names.names, report))
    write_json(workdir / 'scores.json', report)
    print(markdown(report))
  counted.clear()
  return report['systems']


def _source(config: Settings) -> Source:
  """Returns the data set, once all checkpoints are there."""
  settings, dataset = config.systems, config.dataset
  wanted = [
    ('config.systems.clipseg', 'clipseg', settings.clipseg),
    ('config.systems.label_clip', 'clip', settings.label_clip),
    *(
      (f'config.systems.coseg.{k}', 'coseg', v) for k, v in vars(settings.coseg).items()
    ),
  ]
  target = Target(dataset.name, dataset.variant, settings.split)
  source = check_inputs(
    wanted, lambda: load_source(config, target), embedded=dataset.name == 'scenes'
  )
  count = min(source.images, settings.images or source.images)
  return dataclasses.replace(source, images=count)


def build_systems(settings: Systems) -> dict[str, MaskSystem]:
  """Loads the systems that have a checkpoint.

  Raises:
    ValueError: there is none, or a setting of others.
  """
  if settings.labels_from:
    raise UserError(
      'config.systems.labels_from is of the mode benchmark, which keeps labels, too; '
      'leave it out'
    )
  if settings.view != 'squash' and not any(vars(settings.coseg).values()):
    raise UserError(
      f'config.systems.view is {settings.view!r}, what a CoSeg sees, and there is '
      'none; leave it out'
    )
  systems: dict[str, MaskSystem] = {}
  if settings.clipseg:
    systems['no_training'] = system_of(settings, settings.clipseg, kind='clipseg')
    if settings.all_names:
      systems[ALL_NAMES] = system_of(
        settings, settings.clipseg, kind='clipseg', every=True
      )
  for name, directory in vars(settings.coseg).items():
    if directory:
      systems[name] = system_of(settings, directory, kind='coseg')
  if not systems:
    raise UserError(
      'nothing to evaluate: set config.systems.clipseg to a CLIPSeg, or '
      f'config.systems.coseg.NAME to a CoSeg; NAMEs: {", ".join(vars(settings.coseg))}'
    )
  return systems


def judge_of(
  settings: Systems,
  systems: Mapping[str, MaskSystem],
  names: vocabulary.Vocabulary,
  workers: Workers,
) -> Several:
  """Returns what counts an image under every system and protocol.

  Irrelevant names are tried on whole pictures, and not with `ALL_NAMES`, which would
  make a mask of each of them.

  Args:
    settings: `config.systems`.
    systems: by name.
    names: the class list.
    workers: see `SystemJudge`.
  """

  def judge(name: str, protocol: str) -> SystemJudge:
    paper = protocol == 'paper'
    many = () if paper or name == ALL_NAMES else tuple(sorted(settings.distractors))
    plan = Plan((), many, 0, near=None, single_concepts=False)
    return SystemJudge(
      systems[name],
      names,
      plan,
      merging_of(settings, side=settings.side if paper else 0),
      workers=workers,
      prefix=f'{name}/{protocol}/',
    )

  return Several(
    [judge(*pair) for pair in itertools.product(systems, settings.protocols)]
  )


def methods_of(
  tallies: Mapping[str, Tally], prefix: str
) -> Iterator[tuple[str, Tally]]:
  """Yields what was counted under a system and protocol, by its name in reports."""
  for key, tally in tallies.items():
    if not key.startswith(prefix) or not tally.images:
      continue
    name = key.removeprefix(prefix)
    if name == distracted(0):  # rule A once more
      continue
    if name.startswith(DISTRACTED):
      name = f'A, {name.removeprefix(DISTRACTED)} more names'
    yield _ORACLES.get(name, name), tally


def scores_by_system(
  settings: Systems,
  systems: Mapping[str, MaskSystem],
  names: vocabulary.Vocabulary,
  tallies: Mapping[str, Tally],
  sums: Arrays,
) -> Report:
  """Returns the scores of all methods by system and protocol, in percent.

  Besides those of `scores.scores_of` each has `miou_many` (see `scores_of_many`) and
  `miou_interval`. `labels` says how good the labels of images were, and `errors`, where
  bounds were asked for, what is to blame under rule A.

  Args:
    settings: `config.systems`.
    systems: by name.
    names: the class list.
    tallies: of `judge_of`, of all hosts.
    sums: likewise.
  """
  groups, report = groups_of(names), {}
  for system, protocol in itertools.product(systems, settings.protocols):
    prefix = f'{system}/{protocol}/'
    found = {'methods': {}, 'labels': label_scores(sums[f'{prefix}{LABELS}'])}
    for method, tally in methods_of(tallies, prefix):
      scores = scores_of(tally, groups, replicates=settings.resamples)
      scores |= scores_of_many(tally, settings.many, replicates=settings.resamples)
      if settings.resamples:
        scores['miou_interval'] = list(scores['intervals'].get('miou', (np.nan,) * 2))
      found['methods'][method] = scores
    if settings.bounds:
      found['errors'] = error_split(sums[f'{prefix}{SPLIT}'])
    report.setdefault(system, {})[protocol] = found
  return report


def markdown(report: Mapping[str, Any]) -> str:
  """Returns the report as Markdown, in percent."""
  columns = {
    **tables.MIOUS,
    f'the same, images with >= {report["settings"]["many"]} classes': 'miou_many',
    **tables.SCORES,
    'per-image mIoU': 'miou_per_image',
    'boundary IoU': 'boundary_iou',
  }
  found = {
    (system, protocol): x
    for system, protocols in report['systems'].items()
    for protocol, x in protocols.items()
  }
  rows = [
    [*place, method, *(tables.number(values[key]) for key in columns.values())]
    for place, x in found.items()
    for method, values in x['methods'].items()
  ]
  lines = [f'{report["images"]} images of {report["dataset"]}.', '']
  lines += tables.markdown(['system', 'protocol', 'merging', *columns], rows)
  lines += [tables.of_labels(', '.join(p), x['labels']) for p, x in found.items()]
  return '\n'.join(lines) + '\n'


def per_class(names: tuple[str, ...], report: Mapping[str, Any]) -> str:
  """Returns CSV: a line per class, its IoU in percent by rule A of every system."""
  columns = {
    f'{system} {protocol}': found['methods'][HEADLINE]['iou_per_class']
    for system, protocols in report['systems'].items()
    for protocol, found in protocols.items()
  }
  rows = zip(names, *columns.values(), strict=True)
  return tables.comma_separated(['class', *columns], rows)
