"""From images, captions and masks to mask-noun pairs (OVSeg, section 3.3)."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.checkpoint import load_config, load_model
from ovs_jax.core.images import resize_shortest
from ovs_jax.core.lookup import lookup
from ovs_jax.core.types import Float, Num
from ovs_jax.data import DATASETS, load_names
from ovs_jax.mining import candidates
from ovs_jax.mining.assign import SCORES, assign, cosine, rank
from ovs_jax.mining.candidates import Candidates
from ovs_jax.mining.chunks import Notes, Pair
from ovs_jax.mining.nouns import NounExtractor, load_extractor
from ovs_jax.models import clip, ovseg
from ovs_jax.ops.regions import RegionConfig
from ovs_jax.text.templates import fill
from ovs_jax.text.tokenizer import tokenize

MASKS = ('proposals', 'truth')
NOUNS = ('captions', 'classes')


class Miner:
  """Finds the pairs of a few images at a time.

  Attributes:
    backend: what finds the nouns, and its version.
    described: the stored description of the model; None without one.
  """

  def __init__(
    self, config: Any, captions: Mapping[str, Sequence[str]] | None = None
  ) -> None:
    """Loads an OVSeg whose CLIP is not adapted yet; for true masks a CLIP will do.

    True masks with their own class names need neither.

    Args:
      config: of the job.
      captions: by image id, in place of those of the data set.

    Raises:
      FileNotFoundError, ValueError: no checkpoint, or of another model; or settings
        that do not exist.
    """
    self.config = c = config.mining
    for key, known in (('masks', MASKS), ('nouns', NOUNS), ('score', tuple(SCORES))):
      lookup(dict.fromkeys(known), c[key], f'config.mining.{key}')
    self._template = config.text.train_template
    self._captions = captions
    self._void = DATASETS[config.dataset.name].void
    self.described: dict[str, Any] | None = None
    self._model: ovseg.OvSegConfig | None = None
    self._labelled = c.masks == 'truth' and c.nouns == 'classes'
    if not self._labelled:
      self._load(config)
    self._extractor: NounExtractor | None = None
    if c.nouns == 'captions':
      self._extractor = load_extractor(c.backend, c.pipeline, adjectives=c.adjectives)
      names = self._extractor
      self.backend = {'backend': names.name, 'version': names.version}
    else:
      self._names = load_names(config.dataset)
      self.backend = {'backend': 'classes', 'version': self._names.sha256}
    self._embedded: dict[str, Float[np.ndarray, 'd']] = {}

  def _load(self, config: Any) -> None:
    checkpoint = self.config.checkpoint
    stored = load_config(checkpoint)
    proposes = self.config.masks == 'proposals'
    kind = 'ovseg' if proposes or stored.get('model') == 'ovseg' else 'clip'
    params, stored = load_model(checkpoint, kind=kind)
    self.described = stored
    if kind == 'ovseg':
      self._model = ovseg.OvSegConfig.from_dict(stored)
      self._clip, self._region = self._model.clip, self._model.region
      self._params = jax.tree.map(jnp.asarray, params)
    else:
      self._clip = clip.ClipConfig(**stored['clip'])
      self._region = RegionConfig(size=self._clip.image_size, **config.region)
      self._params = {'clip': jax.tree.map(jnp.asarray, params)}

  def pairs(self, examples: Sequence[dict[str, Any]]) -> tuple[list[Pair], Notes]:
    """Returns one pair for each (image, noun) of the examples, and what was left out.

    Args:
      examples: decoded, with `image`, `image_id`, and what the settings ask for.
    """
    notes = Notes(images=len(examples))
    nouns = [self._nouns(example, notes) for example in examples]
    if not self._labelled:
      self._embed({noun for found in nouns for noun, _ in found})
    found: list[Pair] = []
    # Images of one size are one batch, whose size must not change: it is compiled for.
    batched = self.config.masks == 'proposals' and not self.config.shortest
    wanted = [i for i, some in enumerate(nouns) if some or batched]
    masks = self._candidates([examples[i] for i in wanted])
    for i, one in zip(wanted, masks, strict=True):
      usable = one.areas >= max(self.config.min_area, 1)
      notes.without_proposals += not usable.any()
      chosen = self._choose(examples[i], nouns[i], one, usable)
      image_id = examples[i]['image_id'].decode('utf-8')
      found += [{**_cut(one, pair), 'image_id': image_id} for pair in chosen]
    return found, notes

  def _nouns(self, example: dict[str, Any], notes: Notes) -> list[tuple[str, int]]:
    """The nouns of an image's captions, each with the first caption that has it."""
    if self._extractor is None:
      classes = [int(k) for k in np.unique(example['label']) if k != self._void]
      return [(self._names.names[k], -1) for k in classes]
    if self._captions is None:
      captions = [c.decode('utf-8') for c in example['captions']]
    else:
      captions = list(self._captions.get(example['image_id'].decode('utf-8'), ()))
    captions = captions[: self.config.captions]
    notes.captions += len(captions)
    notes.without_captions += not captions
    first: dict[str, int] = {}
    for index, nouns in enumerate(self._extractor.extract(captions)):
      for noun in nouns:
        first.setdefault(noun, index)
    notes.without_nouns += bool(captions) and not first
    return list(first.items())

  def _candidates(self, examples: Sequence[dict[str, Any]]) -> list[Candidates]:
    c = self.config
    if not examples:
      return []
    images = [example['image'] for example in examples]
    if c.masks == 'truth':
      embed = None if self._labelled else self._embed_masks
      labels = [example['label'] for example in examples]
      if c.shortest:
        images = [_resized(image, c) for image in images]
        labels = [_like(x, image) for x, image in zip(labels, images, strict=True)]
      return [
        candidates.true_masks(image, label, void=self._void, embed=embed)
        for image, label in zip(images, labels, strict=True)
      ]
    if not c.shortest:
      return candidates.propose(self._model, self._params, images)
    found: list[Candidates] = []
    devices = self._copies
    for start in range(0, len(images), len(devices)):
      part = images[start : start + len(devices)]
      found += candidates.propose_each(
        self._model, devices, part, shortest=c.shortest, longest=c.longest
      )
    return found

  @functools.cached_property
  def _copies(self) -> list[Any]:
    """The parameters on every device of this host."""
    return [jax.device_put(self._params, device) for device in jax.local_devices()]

  def _embed_masks(self, image: Any, masks: Any) -> Float[np.ndarray, 'q d']:
    return candidates.embed_masks(
      self._clip, self._params['clip'], self._region, image, masks
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
      rows = clip.encode_prompts(self._clip, self._params['clip'], prompts, tokenize)
      self._embedded.update(zip(new, rows, strict=True))


def _resized(image: Any, config: Any) -> Any:
  return resize_shortest(image, shortest=config.shortest, longest=config.longest)


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
