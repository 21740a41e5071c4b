"""What segments an image in an evaluation, and counts what came of it."""

import dataclasses
import threading
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from ovs_jax.core.files import local
from ovs_jax.core.images import nearest
from ovs_jax.core.types import NO_LABEL, Bool, Float, Int
from ovs_jax.evaluate import oracle, recall
from ovs_jax.evaluate.asked import BY_CLIP, Setting
from ovs_jax.evaluate.distractors import all_words, clearest, distractors
from ovs_jax.evaluate.network import OTHERS, Logits, Network, Picture
from ovs_jax.evaluate.sources import Sample
from ovs_jax.evaluate.tally import Arrays, Tally
from ovs_jax.formats.given import MaskFiles
from ovs_jax.ops.calibration import BINS, count_bins
from ovs_jax.text.vocabulary import Vocabulary

SAVED = 'predictions'  # the method of saved label maps
TRUE_VOCABULARY = 'oracle_vocabulary'
TRUE_MASKS = 'oracle_masks'
TRUE_CLASSES = 'oracle_classes'
DISTRACTED = 'distractors_'  # and how many of them
TRUE_CROPS = 'crop_true_mask'
PROPOSED_CROPS = 'crop_proposal'
PROPOSER_SEEN = 'proposer_seen'
TRUE_CLASSES_SEEN = 'oracle_classes_seen'
SPLIT, SINGLE, CALIBRATION = 'errors', 'single', 'calibration'  # among the sums
RECALL, PROPOSALS = 'recall', 'proposals'
RECALL_SPLITS = 'recall, seen and unseen'
Maps = Mapping[str, Int[np.ndarray, '_ _']]


@runtime_checkable
class Judge(Protocol):
  """One data set's worth of counts, for a model or for saved label maps.

  Attributes:
    headline: the tally that comes first.
    tallies: by method.
    sums: other counts.
    problems: images by what is wrong with them, and other notes.
  """

  headline: str
  tallies: dict[str, Tally]
  sums: Arrays
  problems: dict[str, list[str]]

  def count(self, sample: Sample, *, place: int = 0) -> Maps:
    """Segments an image in all ways and counts.

    Several threads may do so at once, each on the device of its place.

    Returns:
      The label maps to keep, by folder; '' is that of a judge who is alone.
    """

  def predict(
    self, sample: Sample, *, place: int = 0
  ) -> tuple[Sample, Int[np.ndarray, 'h w']]:
    """Returns what is seen of an image, and the headline's label map, uncounted."""

  def embed(self, names: tuple[str, ...]) -> Float[np.ndarray, 'n d'] | None:
    """Returns L2-normalised embeddings; None where nothing says what is alike."""


@dataclasses.dataclass(frozen=True)
class Plan:
  """What a model is asked, beside its headline setting.

  Attributes:
    settings: further ones.
    distractors: numbers of irrelevant names, ascending.
    distractor_images: the first images, on which they are tried; 0 means all.
    near: cosine to a class from which on a name is no distractor; None: any may be.
    single_concepts: whether to ask for one name at a time, too.
    parts: whether to count the parts of the model, too: what CLIP calls crops of true
      masks and of proposals (of each class of an image one), and, where classes are
      held out, what the proposer does in the world that it was trained in, with seen
      names alone to choose from and pixels of the others void.
    calibration: whether to count how often labels are right, by their confidence.
    recall: whether to count the true masks that proposals show.
  """

  settings: tuple[Setting, ...]
  distractors: tuple[int, ...]
  distractor_images: int
  near: float | None
  single_concepts: bool
  parts: bool = False
  calibration: bool = False
  recall: bool = False


@dataclasses.dataclass(frozen=True)
class Looked:
  """What a model makes of an image.

  Attributes:
    picture: as the networks saw it.
    logits: of the classes; see `Network.logits`.
    classes: that the truth has, ascending.
    maps: label maps by setting and oracle.
    crops: CLIP's class for the crop of each true mask.
  """

  picture: Picture
  logits: Logits
  classes: Int[np.ndarray, 't']
  maps: dict[str, Int[np.ndarray, 'h w']]
  crops: Int[np.ndarray, 't']


class ModelJudge:
  """Scores a model in every setting, its oracles, and what it makes of other names."""

  def __init__(
    self,
    network: Network,
    names: Vocabulary,
    plan: Plan,
    *,
    masks: MaskFiles | None = None,
  ) -> None:
    """Embeds all names; nothing is counted yet.

    Args:
      network: the model.
      names: the classes.
      plan: what it is asked.
      masks: of the images, in place of proposals; CLIP alone names them.

    Raises:
      ValueError: there are fewer distractors than the plan has.
    """
    self.network, self.plan, self._masks = network, plan, masks
    self._setting = network.setting if masks is None else BY_CLIP
    self.headline = self._setting.name
    self.problems: dict[str, list[str]] = {}
    self._lock = threading.Lock()
    self._count, self._names = len(names), names
    self._settings = {s.name: s for s in (self._setting, *plan.settings)}
    self.text = network.embed(names.names)
    self._with_others = np.concatenate([self.text, network.embed((OTHERS,))])
    more = self._distractors()
    self.texts = {n: np.concatenate([self.text, more[:n]]) for n in plan.distractors}
    oracles = (TRUE_VOCABULARY, TRUE_MASKS, TRUE_CLASSES)
    kept = [*self._settings, *oracles, *map(distracted, self._curve())]
    self._seen = np.array([split == 'seen' for split in names.splits])
    self._held_out = 'unseen' in names.splits
    if plan.parts:
      kept += [TRUE_CROPS, PROPOSED_CROPS]
      kept += [PROPOSER_SEEN, TRUE_CLASSES_SEEN] if self._held_out else []
    self.tallies = {name: Tally(self._count) for name in kept}
    self.sums: Arrays = {SPLIT: np.zeros(4, np.int64)}
    if plan.single_concepts:
      self.sums[SINGLE] = np.zeros((3, self._count), np.int64)
    if plan.calibration:
      self.sums[CALIBRATION] = np.zeros((BINS, 3), np.int64)
    if plan.recall:
      self.sums[RECALL] = np.zeros(recall.SHAPE, np.int64)
      self.sums[RECALL_SPLITS] = np.zeros(recall.SHAPE, np.int64)
      self.sums[PROPOSALS] = np.zeros(1, np.int64)

  def _curve(self) -> tuple[int, ...]:
    return (0, *self.plan.distractors) if self.plan.distractors else ()

  def _distractors(self) -> Float[np.ndarray, 'n d']:
    """Embeddings of names that share no word with a class and are like none."""
    wanted = max(self.plan.distractors, default=0)
    if not wanted:
      return self.text[:0]
    assert self.plan.near is not None  # only systems may have any names
    rows = self.network.embed(distractors(all_words(self._names), 2 * wanted))
    return rows[clearest(rows, self.text, wanted, near=self.plan.near)]

  def look(self, sample: Sample, *, place: int = 0) -> Looked:
    """Segments an image in all settings and with all oracles; counts nothing."""
    net, label = self.network, sample.label
    picture = self._encode(sample, place)
    logits = net.logits(picture, self.text)
    maps = {
      name: net.labels(picture, logits, setting)
      for name, setting in self._settings.items()
    }
    classes = np.unique(label)
    classes = classes[(classes >= 0) & (classes < self._count)]
    crops = np.zeros(0, np.int32)
    if len(classes):
      among: Bool[np.ndarray, 'k'] = np.isin(np.arange(self._count), classes)
      crops = oracle.name_masks(net, picture, self.text, label, classes)
      maps[TRUE_VOCABULARY] = net.labels(picture, logits, self._setting, among=among)
      maps[TRUE_MASKS] = oracle.true_masks_named(label, classes, crops)
      maps[TRUE_CLASSES] = oracle.true_classes(picture, label, classes)
    else:
      nothing = np.full(label.shape, NO_LABEL, np.int32)
      maps |= dict.fromkeys((TRUE_VOCABULARY, TRUE_MASKS, TRUE_CLASSES), nothing)
    return Looked(picture, logits, classes, maps, crops)

  def embed(self, names: tuple[str, ...]) -> Float[np.ndarray, 'n d']:
    """Returns L2-normalised embeddings of names."""
    return self.network.embed(names)

  def count(self, sample: Sample, *, place: int = 0) -> Maps:
    """Counts an image in all ways; returns the headline's label map."""
    looked = self.look(sample, place=place)
    picture, found = looked.picture, looked.maps
    for name, labels in found.items():
      self.tallies[name].add(
        sample.image_id, labels, sample.label, boundary=name in self._settings
      )
    errors = oracle.split_errors(
      sample.label,
      found[self.headline],
      found[TRUE_CLASSES],
      found[TRUE_VOCABULARY],
      self._count,
    )
    with self._lock:
      self.sums[SPLIT] += errors
    self._distract(sample, picture, found[self.headline])
    if self.plan.single_concepts and len(looked.classes):
      self._count_single(sample, picture, looked.classes)
    if self.plan.calibration:
      self._count_sure(sample, looked)
    if self.plan.recall:
      self._count_shown(sample, picture)
    if self.plan.parts:
      self._count_crops(sample, looked)
      if self._held_out:
        self._count_seen(sample, looked)
    return {'': found[self.headline]}

  def predict(
    self, sample: Sample, *, place: int = 0
  ) -> tuple[Sample, Int[np.ndarray, 'h w']]:
    """Returns the image and the headline's label map."""
    picture = self._encode(sample, place)
    logits = self.network.logits(picture, self.text)
    return sample, self.network.labels(picture, logits, self._setting)

  def _encode(self, sample: Sample, place: int) -> Picture:
    masks = None
    if self._masks is not None:
      photo = local(sample.image_id)
      masks = self._masks.read(photo, sample.image.shape[:2])
    return self.network.encode(sample.image, place=place, masks=masks)

  def _count_sure(self, sample: Sample, looked: Looked) -> None:
    """Counts the headline's pixels by their confidence."""
    net, labels = self.network, looked.maps[self.headline]
    weights = net.weights(looked.picture, looked.logits, self._setting)
    sure = looked.picture.confidence(weights)
    counts = count_bins(labels, sure, sample.label, self._count)
    with self._lock:
      self.sums[CALIBRATION] += counts

  def _count_shown(self, sample: Sample, picture: Picture) -> None:
    """Counts the true masks that any proposal shows."""
    masks = oracle.proposed(picture)
    small = nearest(sample.label, picture.content)
    names = self._names
    counts = recall.count_recall(masks, small, names.kinds)
    splits = recall.count_recall(masks, small, names.splits, recall.SPLITS)
    with self._lock:
      self.sums[RECALL] += counts
      self.sums[RECALL_SPLITS] += splits
      self.sums[PROPOSALS] += len(masks)

  def _count_crops(self, sample: Sample, looked: Looked) -> None:
    """Counts crops in place of pixels: of each class of the image one."""
    truth, guess, found = looked.classes, looked.crops, looked.classes
    if len(truth):
      guess, matched = oracle.name_proposals(
        self.network.mix, looked.picture, looked.logits, sample.label, truth
      )
      found = np.where(matched, truth, NO_LABEL)
    for name, named, true in (
      (TRUE_CROPS, looked.crops, truth),
      (PROPOSED_CROPS, guess, found),
    ):
      tally = self.tallies[name]
      tally.add(sample.image_id, named[None], true[None], boundary=False)

  def _count_seen(self, sample: Sample, looked: Looked) -> None:
    """Counts what the proposer does where it knows all names."""
    net, picture = self.network, looked.picture
    weights = net.weights(picture, looked.logits, Setting('proposer', 0.0))
    classes = looked.classes[self._seen[looked.classes]]
    label = np.where(np.isin(sample.label, classes), sample.label, NO_LABEL)
    maps = {
      PROPOSER_SEEN: picture.paint(weights * self._seen),
      TRUE_CLASSES_SEEN: np.full(label.shape, NO_LABEL, np.int32),
    }
    if len(classes):
      maps[TRUE_CLASSES_SEEN] = oracle.true_classes(picture, label, classes)
    for name, labels in maps.items():
      self.tallies[name].add(sample.image_id, labels, label, boundary=False)

  def _distract(
    self, sample: Sample, picture: Picture, plain: Int[np.ndarray, 'h w']
  ) -> None:
    limit = self.plan.distractor_images
    if limit and sample.position >= limit:
      return
    for count in self._curve():
      labels = plain
      if count:
        logits = self.network.logits(picture, self.texts[count])
        labels = self.network.labels(picture, logits, self._setting)
      tally = self.tallies[distracted(count)]
      tally.add(sample.image_id, labels, sample.label, boundary=False)

  def _count_single(
    self, sample: Sample, picture: Picture, classes: Int[np.ndarray, 't']
  ) -> None:
    masks = self.network.single_concepts(
      picture, self._with_others, classes, self._setting
    )
    counts = [
      oracle.count_alone(mask, sample.label, int(k), self._count)
      for k, mask in zip(classes, masks, strict=True)
    ]
    with self._lock:
      self.sums[SINGLE] += np.sum(counts, axis=0)


class Several:
  """Judges that look at the same images, one after the other.

  They know an image by its place in the data set, so that resampling draws from images
  in that order.
  """

  def __init__(self, judges: Sequence[Judge]) -> None:
    """Puts their tallies and sums together; their prefixes tell them apart."""
    self._judges = judges
    self.headline = judges[0].headline
    self.tallies: dict[str, Tally] = {}
    self.sums: Arrays = {}
    self.problems: dict[str, list[str]] = {}
    for judge in judges:
      self.tallies |= judge.tallies
      self.sums |= judge.sums
    for judge in judges:
      judge.tallies, judge.sums = self.tallies, self.sums

  def count(self, sample: Sample, *, place: int = 0) -> Maps:
    """Lets all judges count an image; returns all their label maps."""
    sample = dataclasses.replace(sample, image_id=f'{sample.position:09d}')
    found: dict[str, Int[np.ndarray, '_ _']] = {}
    for judge in self._judges:
      found |= judge.count(sample, place=place)
    return found

  def predict(
    self, sample: Sample, *, place: int = 0
  ) -> tuple[Sample, Int[np.ndarray, '_ _']]:
    """Returns what the first one sees, and its label map."""
    return self._judges[0].predict(sample, place=place)

  def embed(self, names: tuple[str, ...]) -> Float[np.ndarray, 'n d'] | None:
    """Returns the embeddings of the first one."""
    return self._judges[0].embed(names)


def distracted(count: int) -> str:
  """Returns the name of the tally with so many irrelevant names."""
  return f'{DISTRACTED}{count}'
