"""What gives labelled masks (CLIPSeg, CoSeg), under all rules and bounds."""

import dataclasses
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ovs_jax.core.types import Bool, Float, Int
from ovs_jax.core.workers import Workers
from ovs_jax.evaluate import chosen_labels, oracle
from ovs_jax.evaluate.chosen_labels import Chosen
from ovs_jax.evaluate.distractors import all_words, clearest, distractors
from ovs_jax.evaluate.judges import (
  CALIBRATION,
  SINGLE,
  SPLIT,
  TRUE_CLASSES,
  TRUE_MASKS,
  TRUE_VOCABULARY,
  Maps,
  Plan,
  distracted,
)
from ovs_jax.evaluate.labelled_masks import (
  centre_view,
  count_claims,
  name_regions,
  true_classes,
)
from ovs_jax.evaluate.sources import Sample
from ovs_jax.evaluate.tally import Arrays, Tally
from ovs_jax.inference.evidence import share
from ovs_jax.inference.system import MaskChunk, MaskSystem
from ovs_jax.ops import canvas as canvases
from ovs_jax.ops.calibration import BINS, count_bins
from ovs_jax.ops.evidence import Total
from ovs_jax.text.classes import Classes
from ovs_jax.text.vocabulary import Vocabulary

HEADLINE = 'A'
ALWAYS = 'A, threshold 0'
BINARY = 'D (binary masks)'
LABELS = 'labels'  # among the sums: labels that are right, there, given; images
_FEW = 64  # masks up to which rules that need all of them at once are run


@dataclasses.dataclass(frozen=True)
class Merging:
  """How masks become label maps; see `config.systems`.

  Attributes:
    rules: see `ops.merging`; A comes first whether it is among them or not.
    threshold: of the masks in A, B and D.
    tau: temperature of the labels in C.
    bounds: whether to ask what true labels, masks and classes would give, too.
    side: of the square that is cut out of the picture's centre and resized, as the
      paper does; 0 takes pictures whole and as they are.
  """

  rules: tuple[str, ...]
  threshold: float
  tau: float
  bounds: bool = True
  side: int = 0


class SystemJudge:
  """Scores a system, as `judges.ModelJudge` does an OVSeg."""

  def __init__(
    self,
    system: MaskSystem,
    names: Vocabulary,
    plan: Plan,
    merging: Merging,
    *,
    workers: Workers | None = None,
    prefix: str = '',
    chosen: Chosen | None = None,
  ) -> None:
    """Embeds all names; nothing is counted yet.

    Args:
      system: what gives masks.
      names: the class list.
      plan: what is asked beside the rules; without settings and parts of a model.
      merging: how masks become label maps.
      workers: on whose devices it will be asked; None: on this host's.
      prefix: of the names of its tallies and sums.
      chosen: labels of the images; None: the system chooses, if it does.

    Raises:
      ValueError: there are fewer distractors than the plan has.
    """
    assert not plan.settings and not plan.parts  # two classifiers have those
    self.headline = f'{prefix}{HEADLINE}'
    self.problems: dict[str, list[str]] = {}
    self._system, self._names, self._count = system, names, len(names)
    self._plan, self._merging, self._prefix = plan, merging, prefix
    self._chosen, self._lock = chosen, threading.Lock()
    self._copies = [system.on(d) for d in (workers or Workers()).devices]
    self._texts = system.embed(_classes(names.names))
    more = self._distractors()
    self._crowds = {
      n: system.embed(_classes((*names.names, *more[:n]))) for n in plan.distractors
    }
    rules = {'A': ALWAYS, 'B': 'B', 'C': 'C', 'D': BINARY}
    kept = [HEADLINE, *(rules[rule] for rule in merging.rules)]
    kept += map(distracted, self._curve())
    sums = {LABELS: np.zeros(4, np.int64)}
    if merging.bounds:
      kept += [TRUE_VOCABULARY, TRUE_MASKS, TRUE_CLASSES]
      sums[SPLIT] = np.zeros(4, np.int64)
    if plan.single_concepts:
      sums[SINGLE] = np.zeros((3, self._count), np.int64)
    if plan.calibration:
      sums[CALIBRATION] = np.zeros((BINS, 3), np.int64)
    self.tallies = {f'{prefix}{name}': Tally(self._count) for name in kept}
    self.sums: Arrays = {f'{prefix}{name}': x for name, x in sums.items()}

  def _curve(self) -> tuple[int, ...]:
    return (0, *self._plan.distractors) if self._plan.distractors else ()

  def _distractors(self) -> tuple[str, ...]:
    """Names that share no word with a class, and are like none if the plan says so."""
    wanted, near = max(self._plan.distractors, default=0), self._plan.near
    if not wanted or near is None:
      return distractors(self._names.names, wanted)
    found = distractors(all_words(self._names), 2 * wanted)
    rows, classes = self.embed(found), self.embed(self._names.names)
    return tuple(found[i] for i in clearest(rows, classes, wanted, near=near))

  def embed(self, names: tuple[str, ...]) -> Float[np.ndarray, 'n d']:
    """Returns L2-normalised embeddings of names, those that choose labels if any do."""
    texts = self._system.embed(_classes(names))
    rows = texts.conditions if texts.anchors is None else texts.anchors[: len(names)]
    assert rows is not None  # one of both is there
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)

  def count(self, sample: Sample, *, place: int = 0) -> Maps:
    """Counts an image in all ways; returns the headline's label map."""
    sample, system = self._seen(sample), self._copies[place]
    encoded, label = system.encode(sample.image), sample.label
    present = np.unique(label[(label >= 0) & (label < self._count)])
    allowed = self._allowed(sample)
    chosen = system.candidates(encoded, self._texts, allowed)
    self._note(sample, chosen, system.cosines(encoded, self._texts))
    right = len(np.intersect1d(present, chosen))
    self._sum(LABELS, np.array([right, len(present), len(chosen), 1]))
    masks = list(system.masks(encoded, self._texts, allowed))
    found = dict(self._by_rule(masks, label.shape))
    if self._merging.bounds:
      found |= self._bounds(system, encoded, masks, label, present)
      maps = (found[name] for name in (HEADLINE, TRUE_CLASSES, TRUE_VOCABULARY))
      self._sum(SPLIT, oracle.split_errors(label, *maps, self._count))
    found |= self._among_others(system, encoded, sample, found[HEADLINE])
    for name, labels in found.items():
      self._tally(name).add(sample.image_id, labels, label, boundary=name == HEADLINE)
    if 'D' in self._merging.rules and _amount(masks) <= _FEW:
      counts = count_claims(self._claims(masks, label.shape), label, self._count)
      self._tally(BINARY).add_counts(sample.image_id, counts)
    if self._plan.single_concepts:
      self._count_single(system, encoded, label, present)
    if self._plan.calibration:
      sure = self._confidence(masks, label.shape)
      counts = count_bins(found[HEADLINE], sure, label, self._count)
      self._sum(CALIBRATION, counts)
    return {self._prefix: found[HEADLINE]}

  def predict(
    self, sample: Sample, *, place: int = 0
  ) -> tuple[Sample, Int[np.ndarray, '_ _']]:
    """Returns what is seen of an image, and the headline's label map."""
    sample, system = self._seen(sample), self._copies[place]
    encoded, allowed = system.encode(sample.image), self._allowed(sample)
    masks = system.masks(encoded, self._texts, allowed)
    return sample, self._paint(masks, sample.label.shape)

  def _allowed(self, sample: Sample) -> Bool[np.ndarray, 'k'] | None:
    """Returns the classes that were chosen for an image; None if none were."""
    if self._chosen is None:
      return None
    return np.isin(np.arange(self._count), self._chosen.of(sample.image_id))

  def _note(
    self,
    sample: Sample,
    chosen: Int[np.ndarray, 'n'],
    cosines: Float[np.ndarray, 'k'] | None,
  ) -> None:
    """Keeps the labels that CLIP chose."""
    if cosines is not None:
      text = chosen_labels.line(sample.image_id, self._names.names, chosen, cosines)
      with self._lock:
        self.problems.setdefault(chosen_labels.NOTES, []).append(text)

  def _seen(self, sample: Sample) -> Sample:
    side = self._merging.side
    if not side:
      return sample
    image, label = centre_view(sample.image, sample.label, side)
    return dataclasses.replace(sample, image=image, label=label)

  def _tally(self, name: str) -> Tally:
    return self.tallies[f'{self._prefix}{name}']

  def _sum(self, name: str, counts: Int[np.ndarray, '...']) -> None:
    with self._lock:
      self.sums[f'{self._prefix}{name}'] += counts

  def _by_rule(
    self, masks: Sequence[MaskChunk], size: tuple[int, int]
  ) -> Iterator[tuple[str, Int[np.ndarray, 'h w']]]:
    rules = self._merging.rules
    yield HEADLINE, self._paint(masks, size)
    if 'A' in rules:
      yield ALWAYS, self._paint(masks, size, threshold=0.0)
    if 'B' in rules:
      yield 'B', self._paint(masks, size, rule='B')
    if 'C' in rules and _is_by_slots(masks):
      logits, cosines = masks[0].logits, masks[0].cosines
      tau = self._merging.tau
      yield 'C', canvases.soft_labels(logits, cosines, size, tau=tau)[0]

  def _paint(
    self,
    masks: Iterator[MaskChunk] | Sequence[MaskChunk],
    size: tuple[int, int],
    *,
    rule: str = 'A',
    threshold: float | None = None,
  ) -> Int[np.ndarray, 'h w']:
    masks = list(masks)
    threshold = self._merging.threshold if threshold is None else threshold
    canvas = canvases.Canvas(
      size, rule=rule, threshold=threshold, by_area=not _is_by_slots(masks)
    )
    for chunk in masks:
      canvas.add(chunk.logits, chunk.labels)
    return canvas.finish()[0]

  def _confidence(
    self, masks: Sequence[MaskChunk], size: tuple[int, int]
  ) -> Float[np.ndarray, 'h w']:
    """Returns how sure the headline's labels are, 0..1; see `inference.evidence`."""
    canvas = canvases.Canvas(size, threshold=self._merging.threshold)
    total = Total(size)
    for chunk in masks:
      canvas.add(chunk.logits, chunk.labels)
      total.add(chunk.logits, chunk.labels)
    return share(canvas.finish()[1], total.finish())

  def _claims(
    self, masks: Sequence[MaskChunk], size: tuple[int, int]
  ) -> dict[int, Bool[np.ndarray, 'h w']]:
    found: dict[int, Bool[np.ndarray, 'h w']] = {}
    for chunk in masks:
      found |= canvases.claims_by_label(
        chunk.logits, chunk.labels, size, threshold=self._merging.threshold
      )
    return found

  def _bounds(
    self,
    system: MaskSystem,
    encoded: Any,
    masks: Sequence[MaskChunk],
    label: Int[np.ndarray, 'h w'],
    present: Int[np.ndarray, 'r'],
  ) -> dict[str, Int[np.ndarray, 'h w']]:
    """Label maps with the true labels to choose from, true masks, and true classes."""
    allowed: Bool[np.ndarray, 'k'] = np.isin(np.arange(self._count), present)
    known = system.masks(encoded, self._texts, allowed)
    called = true_classes(masks, label, present, threshold=self._merging.threshold)
    return {
      TRUE_VOCABULARY: self._paint(known, label.shape),
      TRUE_MASKS: name_regions(masks, label, present),
      TRUE_CLASSES: self._paint(called, label.shape),
    }

  def _among_others(
    self,
    system: MaskSystem,
    encoded: Any,
    sample: Sample,
    plain: Int[np.ndarray, 'h w'],
  ) -> dict[str, Int[np.ndarray, 'h w']]:
    """Label maps among irrelevant names, which are no class of the data set."""
    limit = self._plan.distractor_images
    if not self._crowds or (limit and sample.position >= limit):
      return {}
    return {distracted(0): plain} | {
      distracted(n): self._paint(system.masks(encoded, texts), sample.label.shape)
      for n, texts in self._crowds.items()
    }

  def _count_single(
    self,
    system: MaskSystem,
    encoded: Any,
    label: Int[np.ndarray, 'h w'],
    present: Int[np.ndarray, 'r'],
  ) -> None:
    """Asks for each class alone; a CoSeg's other choice is "unlabeled"."""
    for k in present:
      alone: Bool[np.ndarray, 'k'] = np.arange(self._count) == k
      mask = self._paint(system.masks(encoded, self._texts, alone), label.shape) == k
      self._sum(SINGLE, oracle.count_alone(mask, label, int(k), self._count))


def _classes(names: tuple[str, ...]) -> Classes:
  return Classes(names, tuple((name,) for name in names))


def _amount(masks: Sequence[MaskChunk]) -> int:
  return sum(len(chunk.labels) for chunk in masks)


def _is_by_slots(masks: Sequence[MaskChunk]) -> bool:
  """Whether masks have tokens, which may be near to several names."""
  return bool(masks) and masks[0].cosines is not None
