"""What one system does with one image, counted under all rules and bounds."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ovs_jax.core.types import Bool, Int, Num, UInt8
from ovs_jax.evaluate import mask_scores
from ovs_jax.inference.system import MaskChunk, System, Texts
from ovs_jax.ops import canvas as canvases
from ovs_jax.ops.merging import UNASSIGNED

_FEW = 64  # masks up to which rules that need all of them at once are run
LABELS = 'labels'  # beside the methods: labels that are right, there, given; images


def count_image(
  image: UInt8[np.ndarray, 'h w 3'],
  label: Num[np.ndarray, 'h w'],
  system: System,
  texts: Texts,
  settings: Any,
  crowds: Mapping[int, Texts] | None = None,
) -> dict[str, Int[np.ndarray, '...']]:
  """Segments one image and counts its pixels under all rules and bounds.

  Args:
    image: RGB, 0..255.
    label: the truth.
    system: what segments.
    texts: the classes.
    settings: `config.systems`.
    crowds: the classes and after them irrelevant names, by the number of these.

  Returns:
    For every method (3, k) pixels that are right, true and predicted, and `LABELS`.
  """
  number = texts.count
  encoded = system.encode(image)
  present = np.unique(label[(label >= 0) & (label < number)])
  chosen = system.candidates(encoded, texts)
  right = len(np.intersect1d(present, chosen))
  found = {LABELS: np.array([right, len(present), len(chosen), 1])}
  masks = list(system.masks(encoded, texts))
  found |= dict(_by_rule(masks, label, settings, number))
  for count, crowd in (crowds or {}).items():
    labels = _paint(
      list(system.masks(encoded, crowd)), label.shape, 'A', settings.threshold
    )
    labels = np.where(labels < number, labels, UNASSIGNED)
    found[crowded(count)] = mask_scores.count_pixels(labels, label, number)
  if settings.bounds:
    allowed = np.isin(np.arange(number), present)
    known = list(system.masks(encoded, texts, allowed))
    bounds = {
      'oracle labels': _paint(known, label.shape, 'A', settings.threshold),
      'oracle masks': _name_regions(masks, label, present),
    }
    for name, labels in bounds.items():
      found[name] = mask_scores.count_pixels(labels, label, number)
  return found


def _by_rule(
  masks: list[MaskChunk], label: Num[np.ndarray, 'h w'], settings: Any, count: int
) -> Iterator[tuple[str, Int[np.ndarray, '3 k']]]:
  size = label.shape
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
