"""Evaluation of CoSeg with and without training, and of CLIPSeg, by one harness.

A system (`inference.system.System`) takes pictures and names and gives labelled
masks; every merging rule, both bounds and the recall of the labels follow from them.
"""

import itertools
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ovs_jax.core import hosts
from ovs_jax.core.counts import check_counts
from ovs_jax.core.files import (
  Place,
  atomic_path,
  check_writable,
  write_json,
  write_text,
)
from ovs_jax.core.lookup import lookup
from ovs_jax.core.types import Int, Num, UInt8
from ovs_jax.core.workers import Workers
from ovs_jax.data import load_dataset, load_names, transforms
from ovs_jax.data.inputs import check_inputs
from ovs_jax.data.pipeline import Arrays, eval_batches
from ovs_jax.evaluate import mask_scores
from ovs_jax.evaluate.counted import Counted
from ovs_jax.evaluate.distractors import distractors
from ovs_jax.evaluate.system_counts import LABELS, count_image
from ovs_jax.inference.load import load_system
from ovs_jax.inference.system import System, centre_square, resize_cubic
from ovs_jax.ops.merging import RULES
from ovs_jax.text.classes import Classes

ALL_NAMES = 'clipseg'  # the system that takes every name as a prompt
PROTOCOLS = dict.fromkeys(('standard', 'paper'))
_ROWS, _HAS = 'rows/', 'has/'  # of the names of sums: counts, and where there are any


def evaluate_systems(config: Any, workdir: Place) -> dict[str, Any]:
  """Evaluates the systems of `config.systems`; writes scores.json, .md and .csv.

  The counts of each image are in counts.npz: for every SYSTEM/PROTOCOL/METHOD (n, 3, k)
  pixels that are right, true and predicted.

  Raises:
    FileNotFoundError, ValueError: no system, no checkpoint, or of another model.
    OSError: `workdir` cannot be written.
    Stopped: SIGTERM came; what is counted will not be counted again.
  """
  began = time.time()
  _check_settings(config)
  workdir = check_writable(workdir, megabytes=10)
  settings = config.systems
  coseg = [(f'config.systems.coseg.{k}', 'coseg', v) for k, v in settings.coseg.items()]
  _, builder = check_inputs(
    [
      ('config.systems.clipseg', 'clipseg', settings.clipseg),
      ('config.systems.label_clip', 'clip', settings.label_clip),
      *coseg,
    ],
    lambda: load_dataset(config.dataset),
    embedded=config.dataset.name == 'scenes',
  )
  systems = build_systems(settings)
  names = load_names(config.dataset)
  models = (settings.clipseg, settings.label_clip, *settings.coseg.values())
  counted = Counted(workdir, models=models)
  images = _count(config, builder, systems, names.names, counted)
  sums = counted.merged()[1]
  groups = {
    split: [k for k, s in enumerate(names.splits) if s == split]
    for split in sorted(set(names.splits) - {''})
  }
  report: dict[str, Any] = {
    'dataset': f'{config.dataset.name}/{config.dataset.variant}:{settings.split}',
    'vocabulary_sha256': names.sha256,
    'images': images,
    'settings': json.loads(json.dumps(settings.to_dict())),
    'systems': {},
  }
  counts = {}
  for name, protocol in itertools.product(systems, settings.protocols):
    tally = Tally(name, protocol, sums)
    found = tally.report(groups, many=settings.many, resamples=settings.resamples)
    report['systems'].setdefault(name, {})[protocol] = found
    counts |= {f'{name}/{protocol}/{m}': x for m, x in tally.counts().items()}
  report['seconds'] = round(time.time() - began, 1)
  if hosts.primary():
    with atomic_path(workdir / 'counts.npz') as temporary:
      np.savez_compressed(temporary, **counts)
    write_text(workdir / 'scores.md', markdown(report))
    write_text(workdir / 'per_class.csv', per_class(names.names, report))
    write_json(workdir / 'scores.json', report)
    print(markdown(report))
  counted.clear()
  return report['systems']


def _check_settings(config: Any) -> None:
  check_counts(config, {'eval.save_every': 1})
  for name in config.systems.protocols:
    lookup(PROTOCOLS, name, 'protocol')
  for name in config.systems.rules:
    lookup(RULES, name, 'merging rule')


def _count(
  config: Any,
  builder: Any,
  systems: Mapping[str, System],
  names: tuple[str, ...],
  counted: Counted,
) -> int:
  """Counts this host's images under every system and protocol; returns all' number."""
  settings = config.systems
  total = builder.info.splits[settings.split].num_examples
  total = min(total, settings.images) if settings.images else total

  def image_of(step: int) -> int:
    return counted.index + counted.count * step

  def add(found: list[tuple[Any, ...]]) -> None:
    for name, protocol, counts in found:
      tally = Tally(name, protocol, counted.sums)
      tally.add(counts, image_of(counted.steps), total)

  with Workers() as workers:
    look = _looker(settings, systems, names, workers)

    def work(place: int, given: tuple[int, Arrays]) -> list[tuple[Any, ...]]:
      step, batch = given
      if not batch['example_valid'][0] or image_of(step) >= total:
        return []
      return look(place, batch['image'][0], batch['label'][0].astype(np.int32))

    batches = eval_batches(
      builder,
      settings.split,
      [transforms.keep('image', 'label')],
      batch_size=1,
      start=counted.steps,
      process_index=counted.index,
      process_count=counted.count,
    )
    counted.run(
      work,
      enumerate(batches, start=counted.steps),
      add,
      total=-(-total // counted.count),
      every=config.eval.save_every,
      workers=workers,
      title=f'{config.name}: evaluate',
    )
  return total


def _looker(
  settings: Any,
  systems: Mapping[str, System],
  names: tuple[str, ...],
  workers: Workers,
) -> Callable[..., list[tuple[Any, ...]]]:
  """Returns what counts an image on the device of a place, by system and protocol."""
  classes = Classes(names, tuple((name,) for name in names))
  texts = {name: system.embed(classes) for name, system in systems.items()}
  crowds = {
    name: {n: system.embed(_among_others(names, n)) for n in settings.distractors}
    for name, system in systems.items()
    if name != ALL_NAMES  # which would decode each of them
  }
  copies = [
    {name: system.on(device) for name, system in systems.items()}
    for device in workers.devices
  ]

  def look(
    place: int, image: UInt8[np.ndarray, 'h w 3'], label: Num[np.ndarray, 'h w']
  ) -> list[tuple[Any, ...]]:
    found = []
    for name, protocol in itertools.product(systems, settings.protocols):
      paper = protocol == 'paper'
      seen = centre_view(image, label, settings.side) if paper else (image, label)
      crowd = {} if paper else crowds.get(name, {})
      system = copies[place][name]
      counts = count_image(*seen, system, texts[name], settings, crowd)
      found.append((name, protocol, counts))
    return found

  return look


def _among_others(names: tuple[str, ...], count: int) -> Classes:
  """The classes, and after them so many names of things that share no word."""
  everything = (*names, *distractors(names, count))
  return Classes(everything, tuple((name,) for name in everything))


def build_systems(settings: Any) -> dict[str, System]:
  """Loads the systems that have a checkpoint.

  Raises:
    ValueError: there is none.
  """
  systems: dict[str, System] = {}
  if settings.clipseg:
    systems['no_training'] = load_system(
      settings.clipseg,
      labels=settings.labels,
      label_clip=settings.label_clip or None,
      templates=(settings.prompt,),
      select=(settings.select,),
    )
    if settings.all_names:
      prompt = (settings.prompt,)
      systems[ALL_NAMES] = load_system(settings.clipseg, templates=prompt)
  for name, directory in settings.coseg.items():
    if directory:
      systems[name] = load_system(directory, kinds=('coseg',))
  if not systems:
    raise ValueError(
      'nothing to evaluate: set config.systems.clipseg to a CLIPSeg, or '
      f'config.systems.coseg.NAME to a CoSeg; NAMEs: {", ".join(settings.coseg)}'
    )
  return systems


def centre_view(
  image: UInt8[np.ndarray, 'h w 3'], label: Num[np.ndarray, 'h w'], side: int
) -> tuple[UInt8[np.ndarray, 's s 3'], Num[np.ndarray, 's s']]:
  """The paper's protocol: the central square of both, resized to its input."""
  square = centre_square(label)
  index = np.arange(side) * square.shape[0] // side
  return resize_cubic(centre_square(image), side), square[index][:, index]


class Tally:
  """What one system did under one protocol with all images of a split."""

  def __init__(self, name: str, protocol: str, sums: Arrays) -> None:
    """Reads and fills sums whose names begin with those of system and protocol."""
    self._prefix, self._sums = f'{name}/{protocol}/', sums

  def add(
    self, found: Mapping[str, Int[np.ndarray, '...']], place: int, total: int
  ) -> None:
    """Adds an image's counts; one of so many."""
    found, sums = dict(found), self._sums
    key = f'{self._prefix}{LABELS}'
    sums[key] = sums.get(key, 0) + found.pop(LABELS)
    for method, counts in found.items():
      key = f'{self._prefix}{_ROWS}{method}'
      if key not in sums:
        sums[key] = np.zeros((total, *counts.shape), np.int64)
        sums[f'{self._prefix}{_HAS}{method}'] = np.zeros(total, np.int64)
      sums[key][place] = counts
      sums[f'{self._prefix}{_HAS}{method}'][place] = 1

  def counts(self) -> dict[str, Int[np.ndarray, 'n 3 k']]:
    """Returns the counts of every image by method."""
    rows, has = (
      {k.removeprefix(kind): x for k, x in self._sums.items() if k.startswith(kind)}
      for kind in (f'{self._prefix}{_ROWS}', f'{self._prefix}{_HAS}')
    )
    return {method: x[has[method] > 0] for method, x in rows.items()}

  def report(
    self, groups: Mapping[str, list[int]], *, many: int, resamples: int
  ) -> dict[str, Any]:
    """Returns the scores of all methods, and how good the labels were."""
    right, present, given, images = self._sums[f'{self._prefix}{LABELS}']
    return {
      'methods': {
        name: mask_scores.scores(counts, groups, many=many, resamples=resamples)
        for name, counts in self.counts().items()
      },
      'labels': {
        'recall': 100 * right / max(present, 1),
        'precision': 100 * right / max(given, 1),
        'per_image': given / max(images, 1),
      },
    }


_COLUMNS = (
  ('miou', 'mIoU'),
  ('miou_many', 'mIoU, many classes'),
  ('miou_predicted_too', 'mIoU (detectron2 0.6)'),
  ('fwiou', 'fwIoU'),
  ('miou_per_image', 'per-image mIoU'),
  ('mean_accuracy', 'mACC'),
  ('pixel_accuracy', 'pACC'),
)


def markdown(report: Mapping[str, Any]) -> str:
  """Returns the report as Markdown, in percent."""
  lines = [f'{report["images"]} images of {report["dataset"]}.', '']
  many = report['settings']['many']
  titles = [title.replace('many', f'>= {many}') for _, title in _COLUMNS]
  lines += [
    '| system | protocol | merging | ' + ' | '.join(titles) + ' |',
    '|---' * (3 + len(titles)) + '|',
  ]
  for name, protocols in report['systems'].items():
    for protocol, found in protocols.items():
      for method, values in found['methods'].items():
        cells = [f'{values[key]:.1f}' for key, _ in _COLUMNS]
        lines.append(f'| {name} | {protocol} | {method} | ' + ' | '.join(cells) + ' |')
  lines.append('')
  for name, protocols in report['systems'].items():
    for protocol, found in protocols.items():
      labels = found['labels']
      lines.append(
        f'- {name}, {protocol}: {labels["per_image"]:.1f} labels per image; they hold '
        f'{labels["recall"]:.1f} % of the classes that are there, and '
        f'{labels["precision"]:.1f} % of them are there.'
      )
  return '\n'.join(lines) + '\n'


def per_class(names: tuple[str, ...], report: Mapping[str, Any]) -> str:
  """Returns CSV: a line per class, its IoU in percent by rule A of every system."""
  columns = {
    f'{name} {protocol}': found['methods']['A']['iou_per_class']
    for name, protocols in report['systems'].items()
    for protocol, found in protocols.items()
    if 'A' in found['methods']
  }
  lines = [','.join(['class', *columns])]
  for k, name in enumerate(names):
    lines.append(','.join([f'"{name}"', *(f'{x[k]:.2f}' for x in columns.values())]))
  return '\n'.join(lines) + '\n'
