"""Evaluation of CoSeg with and without training, and of CLIPSeg, by one harness.

A system (`models.labelled_masks.System`) takes pictures and names and gives labelled
masks; every merging rule, both bounds and the recall of the labels follow from them.
"""

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ovs_jax.core.files import (
  Place,
  atomic_path,
  check_writable,
  write_json,
  write_text,
)
from ovs_jax.core.inputs import check_inputs
from ovs_jax.core.lookup import lookup
from ovs_jax.core.runlog import progress
from ovs_jax.core.types import Bool, Int, Num, UInt8
from ovs_jax.data import load_dataset, load_names, transforms
from ovs_jax.data.pipeline import eval_batches
from ovs_jax.evaluate import mask_scores
from ovs_jax.evaluate.distractors import distractors
from ovs_jax.models.labelled_masks import (
  MaskChunk,
  System,
  Texts,
  centre_square,
  resize_cubic,
)
from ovs_jax.models.systems import load_system
from ovs_jax.ops import canvas as canvases
from ovs_jax.ops.merging import RULES, UNASSIGNED
from ovs_jax.text.classes import Classes

ALL_NAMES = 'clipseg'  # the system that takes every name as a prompt
PROTOCOLS = dict.fromkeys(('standard', 'paper'))
_FEW = 64  # masks up to which rules that need all of them at once are run


def evaluate_systems(config: Any, workdir: Place) -> dict[str, Any]:
  """Evaluates the systems of `config.systems`; writes scores.json, .md and .csv.

  The counts of each image are in counts.npz: for every SYSTEM/PROTOCOL/METHOD (n, 3, k)
  pixels that are right, true and predicted.

  Raises:
    FileNotFoundError, ValueError: no system, no checkpoint, or of another model.
    OSError: `workdir` cannot be written.
  """
  began = time.time()
  workdir = check_writable(workdir, megabytes=10)
  settings = config.systems
  for name in settings.protocols:
    lookup(PROTOCOLS, name, 'protocol')
  for name in settings.rules:
    lookup(RULES, name, 'merging rule')
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
  tallies, images = _count(config, builder, systems, names.names)
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
  for (name, protocol), tally in tallies.items():
    found = tally.report(groups, many=settings.many, resamples=settings.resamples)
    report['systems'].setdefault(name, {})[protocol] = found
    counts |= {f'{name}/{protocol}/{m}': x for m, x in tally.counts().items()}
  report['seconds'] = round(time.time() - began, 1)
  with atomic_path(workdir / 'counts.npz') as temporary:
    np.savez_compressed(temporary, **counts)
  write_text(workdir / 'scores.md', markdown(report))
  write_text(workdir / 'per_class.csv', per_class(names.names, report))
  write_json(workdir / 'scores.json', report)
  print(markdown(report))
  return report['systems']


def _count(
  config: Any, builder: Any, systems: Mapping[str, System], names: tuple[str, ...]
) -> tuple[dict[tuple[str, str], 'Tally'], int]:
  """Counts every image under every system and protocol; returns how many there are."""
  settings = config.systems
  classes = Classes(names, tuple((name,) for name in names))
  texts = {name: system.embed(classes) for name, system in systems.items()}
  crowds = {
    name: {n: system.embed(_among_others(names, n)) for n in settings.distractors}
    for name, system in systems.items()
    if name != ALL_NAMES  # which would decode each of them
  }
  tallies = {
    (name, protocol): Tally(len(names))
    for name in systems
    for protocol in settings.protocols
  }
  images = 0
  for image, label in _images(config, builder):
    images += 1
    for (name, protocol), tally in tallies.items():
      view = centre_view(image, label, settings.side) if protocol == 'paper' else None
      seen, truth = view if view is not None else (image, label)
      crowd = crowds.get(name, {}) if protocol == 'standard' else {}
      tally.add(seen, truth, systems[name], texts[name], settings, crowd)
  return tallies, images


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
      systems[name] = load_system(directory, kind='coseg')
  if not systems:
    raise ValueError(
      'nothing to evaluate: set config.systems.clipseg to a CLIPSeg, or '
      f'config.systems.coseg.NAME to a CoSeg; NAMEs: {", ".join(settings.coseg)}'
    )
  return systems


def _images(
  config: Any, builder: Any
) -> Iterator[tuple[UInt8[np.ndarray, 'h w 3'], Num[np.ndarray, 'h w']]]:
  s = config.systems
  total = builder.info.splits[s.split].num_examples
  total = min(total, s.images) if s.images else total
  batches = eval_batches(
    builder, s.split, [transforms.keep('image', 'label')], batch_size=1
  )
  for index, batch in enumerate(
    progress(batches, total=total, title=f'{config.name}: evaluate')
  ):
    if index == total:
      return
    yield batch['image'][0], batch['label'][0].astype(np.int32)


def centre_view(
  image: UInt8[np.ndarray, 'h w 3'], label: Num[np.ndarray, 'h w'], side: int
) -> tuple[UInt8[np.ndarray, 's s 3'], Num[np.ndarray, 's s']]:
  """The paper's protocol: the central square of both, resized to its input."""
  square = centre_square(label)
  index = np.arange(side) * square.shape[0] // side
  return resize_cubic(centre_square(image), side), square[index][:, index]


class Tally:
  """What one system did under one protocol."""

  def __init__(self, num_classes: int) -> None:
    self._count = num_classes
    self._counts: dict[str, list[np.ndarray]] = {}
    self._found = self._present = self._labels = self._images = 0

  def add(
    self,
    image: UInt8[np.ndarray, 'h w 3'],
    label: Num[np.ndarray, 'h w'],
    system: System,
    texts: Texts,
    settings: Any,
    crowds: Mapping[int, Texts] | None = None,
  ) -> None:
    """Segments one image and counts its pixels under all rules and bounds.

    Args:
      image: RGB, 0..255.
      label: the truth.
      system: what segments.
      texts: the classes.
      settings: `config.systems`.
      crowds: the classes and after them irrelevant names, by the number of these.
    """
    encoded = system.encode(image)
    present = np.unique(label[(label >= 0) & (label < self._count)])
    chosen = system.candidates(encoded, texts)
    self._found += len(np.intersect1d(present, chosen))
    self._present += len(present)
    self._labels += len(chosen)
    self._images += 1
    masks = list(system.masks(encoded, texts))
    for name, counts in self._by_rule(masks, label, settings):
      self._counts.setdefault(name, []).append(counts)
    for count, crowd in (crowds or {}).items():
      found = _paint(
        list(system.masks(encoded, crowd)), label.shape, 'A', settings.threshold
      )
      found = np.where(found < self._count, found, UNASSIGNED)
      counts = mask_scores.count_pixels(found, label, self._count)
      self._counts.setdefault(crowded(count), []).append(counts)
    if settings.bounds:
      allowed = np.isin(np.arange(self._count), present)
      known = list(system.masks(encoded, texts, allowed))
      bounds = {
        'oracle labels': _paint(known, label.shape, 'A', settings.threshold),
        'oracle masks': _name_regions(masks, label, present),
      }
      for name, labels in bounds.items():
        counts = mask_scores.count_pixels(labels, label, self._count)
        self._counts.setdefault(name, []).append(counts)

  def _by_rule(
    self, masks: list[MaskChunk], label: Num[np.ndarray, 'h w'], settings: Any
  ) -> Iterator[tuple[str, Int[np.ndarray, '3 k']]]:
    size, count = label.shape, self._count
    few = sum(len(chunk.labels) for chunk in masks) <= _FEW
    for rule in settings.rules:
      if rule in 'AB':
        kinds = [(rule, settings.threshold)]
        kinds += [('A, threshold 0', 0.0)] if rule == 'A' else []
        for name, threshold in kinds:
          labels = _paint(masks, size, rule, threshold)
          yield name, mask_scores.count_pixels(labels, label, count)
      elif rule == 'C' and _is_by_slots(masks):
        chunk = masks[0]
        labels, _ = canvases.soft_labels(
          chunk.logits, chunk.cosines, size, tau=settings.tau
        )
        yield rule, mask_scores.count_pixels(labels, label, count)
      elif rule == 'D' and few:
        claims: dict[int, Bool[np.ndarray, 'h w']] = {}
        for chunk in masks:
          claims |= canvases.claims_by_label(
            chunk.logits, chunk.labels, size, threshold=settings.threshold
          )
        yield 'D (binary masks)', mask_scores.count_claims(claims, label, count)

  def counts(self) -> dict[str, Int[np.ndarray, 'n 3 k']]:
    """Returns the counts of every image by method."""
    return {name: np.stack(counts) for name, counts in self._counts.items()}

  def report(
    self, groups: Mapping[str, list[int]], *, many: int, resamples: int
  ) -> dict[str, Any]:
    """Returns the scores of all methods, and how good the labels were."""
    return {
      'methods': {
        name: mask_scores.scores(counts, groups, many=many, resamples=resamples)
        for name, counts in self.counts().items()
      },
      'labels': {
        'recall': 100 * self._found / max(self._present, 1),
        'precision': 100 * self._found / max(self._labels, 1),
        'per_image': self._labels / max(self._images, 1),
      },
    }


def crowded(count: int) -> str:
  """Returns the method of rule A among so many irrelevant names."""
  return f'A, {count} more names'


def _is_by_slots(masks: list[MaskChunk]) -> bool:
  """Whether masks have tokens, which may be near to several names."""
  return bool(masks) and masks[0].cosines is not None


def _paint(
  masks: list[MaskChunk], size: tuple[int, int], rule: str, threshold: float
) -> Int[np.ndarray, 'h w']:
  canvas = canvases.Canvas(
    size, rule=rule, threshold=threshold, by_area=not _is_by_slots(masks)
  )
  for chunk in masks:
    canvas.add(chunk.logits, chunk.labels)
  return canvas.finish()[0]


def _name_regions(
  masks: list[MaskChunk], label: Num[np.ndarray, 'h w'], present: Int[np.ndarray, 'r']
) -> Int[np.ndarray, 'h w']:
  """True regions, each with the label of the mask that is most probable inside it."""
  means, labels = [], []
  for chunk in masks:
    p = canvases.probabilities(chunk.logits, label.shape)
    p = np.where(chunk.labels[:, None, None] >= 0, p, -1)
    means.append(np.stack([p[:, label == k].mean(axis=1) for k in present], axis=1))
    labels.append(chunk.labels)
  painted = np.full(label.shape, UNASSIGNED, np.int32)
  if not means or not len(present):
    return painted
  best = np.concatenate(means).argmax(axis=0)
  for k, name in zip(present, np.concatenate(labels)[best], strict=True):
    painted[label == k] = name
  return painted


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
