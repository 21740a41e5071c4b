"""From images, captions and masks to mask-noun pairs (OVSeg, section 3.3)."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from typing import Any

import numpy as np

from ovs_jax.core.images import resize_shortest
from ovs_jax.core.types import Float, Num, void_of
from ovs_jax.core.workers import Workers
from ovs_jax.data import load_names
from ovs_jax.data.records import Broken
from ovs_jax.mining import candidates
from ovs_jax.mining.assign import assign, cosine, rank
from ovs_jax.mining.candidates import Candidates
from ovs_jax.mining.chunks import Notes, Pair
from ovs_jax.mining.nouns import NounExtractor, load_extractor
from ovs_jax.models import clip, ovseg
from ovs_jax.models.stored import load
from ovs_jax.ops.regions import RegionConfig
from ovs_jax.settings import Settings
from ovs_jax.text.templates import fill

# One an image; of pairs, or what `after` makes of them.
Started = list[futures.Future[tuple[list[Any], Notes]]]


def _as_it_is(value: Any) -> Any:
  return value


def finish(started: Started) -> tuple[list[Any], Notes]:
  """Waits for a chunk; returns its pairs in order, and what was left out."""
  found, notes = [], Notes()
  for future in started:
    pairs, part = future.result()
    found += pairs
    notes.add(part)
  return found, notes


class Miner:
  """Finds the pairs of images, on all devices of this host.

  Attributes:
    backend: what finds the nouns, and its version.
    described: the stored description of the model; None without one.
  """

  def __init__(
    self,
    config: Settings,
    captions: Mapping[str, Sequence[str]] | None = None,
    *,
    workers: Workers | None = None,
  ) -> None:
    """Loads an OVSeg whose CLIP is not adapted yet; for true masks a CLIP will do.

    True masks with their own class names need neither.

    Args:
      config: of the job.
      captions: by image id, in place of those of the data set.
      workers: that share the images; None starts some.

    Raises:
      FileNotFoundError, ValueError: no checkpoint, or of another model.
    """
    self.config = c = config.mining
    self._workers = workers or Workers()
    self._template = config.text.train_template
    self._captions = captions
    self.described: dict[str, Any] | None = None
    self._model: ovseg.OvSegConfig | None = None
    self._labelled = c.masks == 'truth' and c.nouns == 'classes'
    if not self._labelled:
      self._load(config)
    self._extractor: NounExtractor | None = None
    if c.nouns == 'captions':
      self._extractor = load_extractor(
        c.backend, c.pipeline, adjectives=c.adjectives, nouns_as=c.nouns_as
      )
      names = self._extractor
      self.backend = {'backend': names.name, 'version': names.version}
    else:
      self._names = load_names(config.dataset)
      self.backend = {'backend': 'classes', 'version': self._names.sha256}
    self._embedded: dict[str, Float[np.ndarray, 'd']] = {}
    if c.nouns == 'classes' and not self._labelled:
      self._embed(set(self._names.names))

  def _load(self, config: Settings) -> None:
    proposes = self.config.masks == 'proposals'
    kinds = ('ovseg',) if proposes else ('ovseg', 'clip')
    found = load(self.config.checkpoint, kinds=kinds)
    self.described, params = dict(found.stored), found.params
    if found.kind == 'ovseg':
      found.config.check_one_clip(self.config.checkpoint)
      self._model = found.config
      self._text, self._region = self._model.clip, self._model.region
      if self.config.dtype:
        self._model = self._model.computing_in(self.config.dtype)
      self._clip = self._model.clip
    else:
      self._text = found.config
      self._clip = dataclasses.replace(
        self._text, dtype=self.config.dtype or self._text.dtype
      )
      self._region = RegionConfig(size=self._clip.image_size, **vars(config.region))
      params = {'clip': params}
    self._params = self._workers.copies(params)

  def pairs(self, examples: Sequence[dict[str, Any]]) -> tuple[list[Pair], Notes]:
    """Returns one pair for each (image, noun) of the examples, and what was left out.

    Args:
      examples: decoded, with `image`, `image_id`, and what the settings ask for.
    """
    return finish(self.start(examples))

  def start(
    self,
    records: Sequence[dict[str, Any]],
    *,
    before: Callable[[dict[str, Any]], dict[str, Any] | Broken] = _as_it_is,
    after: Callable[[Pair], Any] = _as_it_is,
  ) -> Started:
    """Starts the work on some images; `finish` waits for its results.

    Args:
      records: as `before` takes them, with the captions that the settings ask for.
      before: makes an example of a record, in a thread beside the devices.
      after: applied to each pair, in such a thread, too.
    """
    read = [self._caption_nouns(record) for record in records]
    if not self._labelled:
      self._embed({noun for found, _ in read for noun, _ in found})
    task = functools.partial(self._mine, before, after)
    given = zip(records, read, strict=True)
    return [self._workers.submit(task, (record, *x)) for record, x in given]

  def _mine(
    self,
    before: Callable[[dict[str, Any]], dict[str, Any] | Broken],
    after: Callable[[Pair], Any],
    place: int,
    given: tuple[dict[str, Any], list[tuple[str, int]], Notes],
  ) -> tuple[list[Any], Notes]:
    """The pairs of an image, whose masks are made on the device of that place."""
    record, nouns, notes = given
    example = before(record)
    if isinstance(example, Broken):
      return [], Notes(images=1, broken=[[example.image_id, example.problem]])
    if self._extractor is None:
      void = void_of(example['label'].dtype)
      classes = [int(k) for k in np.unique(example['label']) if k != void]
      nouns = [(self._names.names[k], -1) for k in classes]
    if not nouns:
      return [], notes
    one = self._candidates(place, example)
    usable = one.areas >= max(self.config.min_area, 1)
    notes.without_proposals += not usable.any()
    image_id = example['image_id'].decode('utf-8')
    chosen = self._choose(example, nouns, one, usable)
    return [after({**_cut(one, pair), 'image_id': image_id}) for pair in chosen], notes

  def _caption_nouns(
    self, record: dict[str, Any]
  ) -> tuple[list[tuple[str, int]], Notes]:
    """The nouns of an image's captions, each with the first caption that has it."""
    notes = Notes(images=1)
    if self._extractor is None:
      return [], notes
    if self._captions is None:
      captions = [c.decode('utf-8') for c in record['captions']]
    else:
      captions = list(self._captions.get(record['image_id'].decode('utf-8'), ()))
    captions = captions[: self.config.captions]
    notes.captions += len(captions)
    notes.without_captions += not captions
    first: dict[str, int] = {}
    for index, nouns in enumerate(self._extractor.extract(captions)):
      for noun in nouns:
        first.setdefault(noun, index)
    notes.without_nouns += bool(captions) and not first
    return list(first.items()), notes

  def _candidates(self, place: int, example: dict[str, Any]) -> Candidates:
    c, image = self.config, example['image']
    sides = {'shortest': c.shortest, 'longest': c.longest}
    if c.masks == 'proposals':
      return candidates.propose(self._model, self._params[place], image, **sides)
    label = example['label']
    if c.shortest:
      image = resize_shortest(image, **sides)
      label = _like(label, image)
    embed = None if self._labelled else functools.partial(self._embed_masks, place)
    return candidates.true_masks(image, label, embed=embed)

  def _embed_masks(
    self, place: int, image: Any, masks: Any
  ) -> Float[np.ndarray, 'q d']:
    return candidates.embed_masks(
      self._clip, self._params[place]['clip'], self._region, image, masks
    )

  def similarities(
    self, example: dict[str, Any], nouns: Sequence[str], one: Candidates
  ) -> Float[np.ndarray, 'k q']:
    """How much each noun resembles each mask: CLIP's cosines."""
    del example
    return cosine(one.regions, np.stack([self._embedded[noun] for noun in nouns]))

  def _choose(
    self,
    example: dict[str, Any],
    nouns: Sequence[tuple[str, int]],
    one: Candidates,
    usable: Any,
  ) -> list[Pair]:
    """The pairs of an image, without their pixels."""
    if self._labelled:
      return [
        {'noun': noun, 'caption': -1, 'proposal': q, 'score': 1.0, 'cosine': np.nan}
        for q, (noun, _) in enumerate(nouns)
        if usable[q]
      ]
    if one.regions is None or not nouns:
      return []
    cosines = self.similarities(example, [noun for noun, _ in nouns], one)
    scores = rank(cosines, usable, self.config.score)
    found = []
    chosen = assign(scores, usable, exclusive=self.config.exclusive)
    for k, q in enumerate(chosen):
      if q is not None and scores[k, q] >= self.config.min_score:
        noun, caption = nouns[k]
        pair = {'noun': noun, 'caption': caption, 'proposal': q}
        pair |= {'score': float(scores[k, q]), 'cosine': float(cosines[k, q])}
        found.append(pair)
    return found

  def _embed(self, nouns: set[str]) -> None:
    """Embeds the nouns that are new."""
    new = sorted(nouns - set(self._embedded))
    if new:
      prompts = fill(self._template, new)
      rows = clip.encode_prompts(self._text, self._params[0]['clip'], prompts)
      self._embedded.update(zip(new, rows, strict=True))


def _like(label: Num[np.ndarray, 'h w'], image: Any) -> Num[np.ndarray, '_ _']:
  """Resizes a label map to an image by nearest neighbours."""
  (h, w), (height, width) = label.shape, image.shape[:2]
  rows, columns = np.arange(height) * h // height, np.arange(width) * w // width
  return label[rows][:, columns]


def _cut(one: Candidates, pair: Pair) -> Pair:
  """Adds crop, mask and box."""
  q = pair['proposal']
  x0, y0, x1, y1 = (int(v) for v in one.boxes[q])
  mask = one.mask(q)[y0:y1, x0:x1, None]
  return {
    **pair,
    'image': one.image[y0:y1, x0:x1],
    'mask': (mask * 255).astype(np.uint8),
    'box': np.asarray(one.boxes[q], np.int32),
    'area': int(one.areas[q]),
  }
