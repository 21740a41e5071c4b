"""Labels of a picture from masks that each belong to a name: CLIPSeg's and CoSeg's.

segmenter = Segmenter.load('checkpoints/clipseg')  # or of a CoSeg
picture = segmenter.encode('photo.jpg')
result = segmenter.segment(picture, 'a cup, a remote', threshold=0.3, heat=True)
result.heat_map('a cup')
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.lookup import lookup
from ovs_jax.core.types import NO_LABEL, Bool, Float, Int, Num, UInt8
from ovs_jax.inference.result import ProposalTable, Segment, Segmentation
from ovs_jax.inference.system import MaskChunk, Texts, check_options
from ovs_jax.ops import canvas as canvases
from ovs_jax.ops import merging
from ovs_jax.text.classes import NOTHING, Classes

TAU = 0.08  # temperature of the labels in rule C, the paper's of its loss
# Of a name: pictures (RGB, 0..255), and which of their pixels are that thing.
Examples = Mapping[str, Sequence[tuple[UInt8[np.ndarray, '_ _ 3'], Any]]]


@dataclasses.dataclass(frozen=True)
class PromptedSegmentation(Segmentation):
  """What is where, by masks that each belong to a name.

  `scores` are the probabilities of the labels' masks; by rule C, sums over masks. There
  are no proposals.

  Attributes:
    heat: probability of each name at the network's resolution, 0 for names without a
      mask; None unless it was asked for.
    claims: by rule D, all pixels of each name that occurs, of which several may claim
      one; `labels` then are those of rule A. None by other rules.
  """

  heat: Float[np.ndarray, 'k y x'] | None = None
  claims: dict[int, Bool[np.ndarray, 'h w']] | None = None

  def heat_map(self, name: str) -> Float[np.ndarray, 'h w']:
    """Returns the probability of a name at every pixel of the picture.

    Raises:
      ValueError: an unknown name, or heat maps were not asked for.
    """
    if self.heat is None:
      raise UserError('no heat maps were kept; ask for them with heat=True')
    index = lookup({n: i for i, n in enumerate(self.names)}, name, 'name')
    source = self.heat[index].astype(np.float32)
    return canvases.resize_map(source, self.labels.shape)

  def shares(self) -> dict[str, float]:
    """Returns the share of the picture that each name has, 0..1; by D they overlap."""
    if self.claims is None:
      return super().shares()
    blank = np.zeros(1, bool)
    return {
      name: float(self.claims.get(k, blank).mean()) for k, name in enumerate(self.names)
    }

  def segments(self) -> list[Segment]:
    """Returns the names that occur, largest first."""
    if self.claims is None:
      return super().segments()
    found = []
    for k, mask in self.claims.items():
      alone = dataclasses.replace(
        self, labels=np.where(mask, k, NO_LABEL).astype(np.int32), claims=None
      )
      found += [s for s in Segmentation.segments(alone)]
    return sorted(found, key=lambda segment: -segment.share)


class LabelledMasks:
  """How a model whose masks have labels segments; CLIPSeg and CoSeg inherit it."""

  kind: str
  rules = tuple(merging.RULES)
  abilities = ()

  def encode_all(
    self,
    images: Sequence[UInt8[np.ndarray, '_ _ 3']],
    *,
    window: int | None = None,
    overlap: float = 0.25,
  ) -> list[Any]:
    """Encodes pictures one by one.

    Args:
      images: RGB, 0..255.
      window: must be None.
      overlap: plays no part.

    Raises:
      ValueError: windows were asked for, or a picture is smaller than a patch.
    """
    check_options(self.kind, (), {} if window is None else {'window': window})
    return [self.encode(image) for image in images]

  def exact(self) -> 'LabelledMasks':
    """Raises ValueError: there is nothing to compare with."""
    raise UserError(
      f'a {self.kind!r} checkpoint has one mode only, so that nothing can agree with '
      "it or not; 'ovseg' ones have several"
    )

  def segment(
    self,
    encoded: Any,
    classes: Classes,
    background: Classes = NOTHING,
    *,
    templates: str | Sequence[str] | None = None,
    synonyms: str = 'mean',
    threshold: float | None = None,
    rule: str = 'A',
    heat: bool = False,
    examples: Examples | None = None,
    example_share: float = 1.0,
  ) -> PromptedSegmentation:
    """Gives pixels the names of the masks that claim them.

    Args:
      encoded: what `encode` returned.
      classes: the names. Any number: masks are decoded in chunks.
      background: names that compete too; pixels that they win get no name.
      templates: name of a set, or sentences with a '{}'; None takes the system's.
      synonyms: 'mean' of a name's words, 'max' (the best word counts), or 'paper' (one
        string with commas).
      threshold: probability from which a mask claims a pixel; None is 0.3.
      rule: 'A': the most probable mask has the pixel. 'B': masks are painted from the
        largest to the smallest (of a CoSeg: in the order of its slots). 'C': no
        threshold; the masks of a CoSeg count for every name that they resemble, those
        of a CLIPSeg are as in A. 'D': several names may claim a pixel.
      heat: whether the names' heat maps are kept.
      examples: replace the prompts of these names.
      example_share: of the pictures in the prompt, 0..1; the rest is the text's.

    Raises:
      ValueError: an option is unknown, out of range, or not for this model.
    """
    threshold = _check(rule, threshold)
    asked = classes + background
    texts = self.embed(asked, templates=templates, synonyms=synonyms)
    if examples:
      texts = self.show(texts, asked, examples, share=example_share)
    count = len(classes)
    painted = _Painted(encoded.size, count, rule, threshold, heat)
    for chunk in self.masks(encoded, texts):
      painted.add(chunk)
    labels, scores = painted.finish()
    named = (labels >= 0) & (labels < count)
    none = np.zeros((0, count), np.float32)
    return PromptedSegmentation(
      labels=np.where(named, labels, NO_LABEL).astype(np.int32),
      names=classes.names,
      scores=np.where(named, scores, np.float32(0)),
      proposals=ProposalTable(
        np.zeros((0, 4), np.float32), np.zeros(0, np.int32), none, none
      ),
      heat=painted.heat_maps(),
      claims=painted.claims,
    )

  def show(
    self, texts: Texts, classes: Classes, examples: Examples, *, share: float
  ) -> Texts:
    """Raises ValueError: the model takes texts alone."""
    raise UserError(f'a {self.kind!r} model takes no example pictures; a CLIPSeg does')


class _Painted:
  """The result of one picture while its masks come in."""

  def __init__(
    self, size: tuple[int, int], count: int, rule: str, threshold: float, heat: bool
  ) -> None:
    self._size, self._count, self._rule = size, count, rule
    self._threshold = threshold
    self._canvas: canvases.Canvas | None = None
    self._soft: tuple[np.ndarray, np.ndarray] | None = None
    self._keep = heat
    self._heat: np.ndarray | None = None
    self.claims: dict[int, np.ndarray] | None = {} if rule == 'D' else None

  def add(self, chunk: MaskChunk) -> None:
    """Takes some of the masks."""
    slots = chunk.cosines is not None
    if self._rule == 'C' and slots:
      self._soft = canvases.soft_labels(
        chunk.logits, chunk.cosines, self._size, tau=TAU
      )
    if self._canvas is None:
      self._canvas = canvases.Canvas(
        self._size,
        rule='B' if self._rule == 'B' else 'A',
        threshold=self._threshold,
        by_area=not slots,
      )
    self._canvas.add(chunk.logits, chunk.labels)
    if self.claims is not None:
      found = canvases.claims_by_label(
        chunk.logits, chunk.labels, self._size, threshold=self._threshold
      )
      for k, mask in found.items():
        if k < self._count and mask.any():
          self.claims[k] = self.claims[k] | mask if k in self.claims else mask
    if self._keep:
      self._warm(chunk)

  def _warm(self, chunk: MaskChunk) -> None:
    p = canvases.sigmoid(chunk.logits)
    if self._heat is None:
      self._heat = np.zeros((self._count, *p.shape[1:]), np.float16)
    for k, mask in zip(chunk.labels, p, strict=True):
      if 0 <= k < self._count:
        self._heat[k] = np.maximum(self._heat[k], mask)

  def finish(self) -> tuple[Int[np.ndarray, 'h w'], Float[np.ndarray, 'h w']]:
    """Returns labels, background included, and their scores."""
    if self._soft is not None:
      return self._soft
    canvas = self._canvas or canvases.Canvas(self._size)
    return canvas.finish()

  def heat_maps(self) -> Num[np.ndarray, 'k y x'] | None:
    """Returns the names' heat maps, if they are kept."""
    if self._keep and self._heat is None:
      return np.zeros((self._count, 1, 1), np.float16)
    return self._heat


def _check(rule: str, threshold: float | None) -> float:
  """Returns the probability from which a mask claims a pixel."""
  lookup(merging.RULES, rule, 'rule')
  if rule == 'C':
    if threshold is not None:
      raise UserError("rule 'C' knows no threshold; leave it out, or take rule 'A'")
    return 0.0
  threshold = merging.THRESHOLD if threshold is None else threshold
  if not (math.isfinite(threshold) and 0 <= threshold <= 1):
    raise UserError(f'the threshold must be a probability in 0..1, got {threshold}')
  return threshold
