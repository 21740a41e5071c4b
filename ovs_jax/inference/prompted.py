"""Labels of a picture from masks that each belong to a name: CLIPSeg's and CoSeg's.

segmenter = Segmenter.load('checkpoints/clipseg')  # or of a CoSeg
picture = segmenter.encode('photo.jpg')
result = segmenter.segment(picture, 'a cup, a remote', threshold=0.3, heat=True)
result.heat_map('a cup')
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.lookup import lookup
from ovs_jax.core.types import NO_LABEL, Bool, Float, UInt8
from ovs_jax.inference.evidence import NameMaps, check_threshold, share
from ovs_jax.inference.painted import Painted
from ovs_jax.inference.result import ProposalTable, Segment, Segmentation
from ovs_jax.inference.system import Texts, check_options
from ovs_jax.ops import canvas as canvases
from ovs_jax.ops import merging
from ovs_jax.text.classes import NOTHING, Classes

# Of a name: pictures (RGB, 0..255), and which of their pixels are that thing.
Examples = Mapping[str, Sequence[tuple[UInt8[np.ndarray, '_ _ 3'], Any]]]


@dataclasses.dataclass(frozen=True)
class PromptedSegmentation(Segmentation):
  """What is where, by masks that each belong to a name.

  `scores` are the probabilities of the labels' masks; by rule C, sums over masks. They
  are the evidence of which `confidence` tells the share: that of a name is its most
  probable mask at the pixel, and masks of no name are evidence for nothing. By rule D
  no names compete: confidence and margin of a segment are those of its name's mask.
  There are no proposals.

  Attributes:
    heat: probability of each name at the network's resolution, 0 for names without a
      mask; None unless it was asked for.
    claims: by rule D, all pixels of each name that occurs, of which several may claim
      one; `labels` then are those of rule A. None by other rules.
    claimed: by rule D, the mean probability of these names in their pixels.
  """

  heat: Float[np.ndarray, 'k y x'] | None = None
  claims: dict[int, Bool[np.ndarray, 'h w']] | None = None
  claimed: dict[int, float] | None = None

  def heat_map(self, name: str) -> Float[np.ndarray, 'h w']:
    """Returns the probability of a name at every pixel of the picture.

    Raises:
      ValueError: an unknown name, or heat maps were not asked for.
    """
    if self.heat is None:
      raise UserError('no heat maps were kept; ask for them with heat=True')
    source = self.heat[self.label(name)].astype(np.float32)
    return canvases.resize_map(source, self.labels.shape)

  def mask(self, name: str) -> Bool[np.ndarray, 'h w']:
    """Returns which pixels have a name; by D, several may have one."""
    if self.claims is None:
      return super().mask(name)
    return self.claims.get(self.label(name), np.zeros(self.labels.shape, bool))

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
      sure = self.claimed[k]
      found += [
        dataclasses.replace(segment, score=sure, confidence=sure, margin=sure)
        for segment in Segmentation.segments(alone)
      ]
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

  def cosines(self, encoded: Any, texts: Texts) -> Float[np.ndarray, 'k'] | None:
    """Returns None: labels are not chosen by a whole picture's embedding."""
    del encoded, texts
    return None

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
    maps: bool = False,
  ) -> PromptedSegmentation:
    """Gives pixels the names of the masks that claim them.

    Args:
      encoded: what `encode` returned.
      classes: the names. Any number: masks are decoded in chunks.
      background: names that compete too; pixels that they win get no name.
      templates: name of a set, or sentences with a '{}'; None takes the system's.
      synonyms: 'mean' of a name's words, 'max' (the best word counts), or 'paper' (one
        string with commas).
      threshold: pixels with a lower confidence get no name, 0..1; by D, a name does not
        claim pixels that its mask has with a lower probability. None does not look at
        confidence: a mask claims what it has with a probability of 0.3, by C all.
      rule: 'A': the most probable mask has the pixel. 'B': masks are painted from the
        largest to the smallest (of a CoSeg: in the order of its slots). 'C': masks of a
        CoSeg count for every name that they resemble, those of a CLIPSeg are as in A.
        'D': several names may claim a pixel.
      heat: whether the names' heat maps are kept.
      examples: replace the prompts of these names.
      example_share: of the pictures in the prompt, 0..1; the rest is the text's.
      maps: whether the confidence of every name is kept.

    Raises:
      ValueError: an option is unknown, out of range, or not for this model.
    """
    lookup(merging.RULES, rule, 'rule')
    if threshold is not None:
      check_threshold(threshold)
    asked = classes + background
    texts = self.embed(asked, templates=templates, synonyms=synonyms)
    if examples:
      texts = self.show(texts, asked, examples, share=example_share)
    painted = Painted(
      encoded.size, len(classes), rule=rule, threshold=threshold, heat=heat, maps=maps
    )
    for chunk in self.masks(encoded, texts):
      painted.add(chunk)
    return _result(painted, classes.names, threshold or 0.0, heat=heat, maps=maps)

  def show(
    self, texts: Texts, classes: Classes, examples: Examples, *, share: float
  ) -> Texts:
    """Raises ValueError: the model takes texts alone."""
    raise UserError(f'a {self.kind!r} model takes no example pictures; a CLIPSeg does')


def _result(
  painted: Painted, names: tuple[str, ...], threshold: float, *, heat: bool, maps: bool
) -> PromptedSegmentation:
  labels, scores = painted.finish()
  total = painted.total()
  confidence = share(scores, total)
  margin = share(scores - painted.others(labels), total)
  named = (labels >= 0) & (labels < len(names)) & (confidence >= threshold)
  none = np.zeros((0, len(names)), np.float32)
  return PromptedSegmentation(
    labels=np.where(named, labels, NO_LABEL).astype(np.int32),
    names=names,
    scores=np.where(named, scores, np.float32(0)),
    confidence=np.where(named, confidence, np.float32(0)),
    margin=np.where(named, margin, np.float32(0)),
    proposals=ProposalTable(
      np.zeros((0, 4), np.float32), np.zeros(0, np.int32), none, none
    ),
    maps=NameMaps(painted.map_of, total) if maps else None,
    heat=painted.heat_maps() if heat else None,
    claims=painted.claims,
    claimed=painted.claimed(),
  )
