"""What segmenting a picture gives: labels, scores, and the proposals' names."""

import contextlib
import dataclasses
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Path, Place, local, place
from ovs_jax.core.images import ImageLike, as_rgb
from ovs_jax.core.lookup import lookup
from ovs_jax.core.masks import box_of
from ovs_jax.core.types import Bool, Float, Int, UInt8
from ovs_jax.formats import parse_formats, run
from ovs_jax.formats.coco import Coco, to_coco
from ovs_jax.formats.found import Entry, Found, Instance
from ovs_jax.inference import shown
from ovs_jax.inference.evidence import NameMaps
from ovs_jax.inference.panoptic import Panoptic
from ovs_jax.ops import overlay
from ovs_jax.ops.guided import EPSILON, RADIUS, refine


@dataclasses.dataclass(frozen=True)
class ProposalTable:
  """The proposals that show anything, one row each.

  Attributes:
    boxes: x0, y0, x1, y1 in the picture's pixels, exclusive ends.
    labels: the name each is given, or `NO_LABEL` for background and what is hidden.
    proposer: the proposer's probabilities; a row lacks "no object" to sum to 1.
    clip: CLIP's probabilities. A row lacks background, and 'others' for a single name;
      it is NaN if CLIP did not have to see the proposal.
  """

  boxes: Float[np.ndarray, 'n 4']
  labels: Int[np.ndarray, 'n']
  proposer: Float[np.ndarray, 'n k']
  clip: Float[np.ndarray, 'n k']


@dataclasses.dataclass(frozen=True)
class Segment:
  """One name in a picture, with all pixels that it has.

  Attributes:
    label: index into the names.
    name: as it was asked for.
    share: of the picture, 0..1.
    score: mean of its pixels' scores.
    confidence: mean of its pixels' confidences, 0..1.
    margin: mean of their margins to the second name, 0..1.
    box: x0, y0, x1, y1 in pixels, exclusive ends.
  """

  label: int
  name: str
  share: float
  score: float
  confidence: float
  margin: float
  box: tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True)
class Segmentation:
  """What is where in a picture.

  Attributes:
    labels: indices into `names`, in the picture's size; `NO_LABEL` where there is none.
    names: as they were asked for.
    scores: of the label of each pixel, 0 where there is none. They are sums over
      proposals and compare pixels of one picture; they are not probabilities.
    confidence: the label's share of the evidence of all names and of "nothing", 0..1
      (`inference.evidence`); 0 where there is no label.
    margin: by how much that exceeds the confidence of the second name, of those in the
      background too, 0..1; where small masks cover larger ones (CLIPSeg's and CoSeg's
      rule 'B') the label may have less than another. 0 where there is no label.
    proposals: the masks with their boxes, names and probabilities.
    skipped: share of the valid proposals' crops that CLIP did not see, 0..1.
    panoptic: segments with ids, if they were asked for.
    maps: the confidence of every name, if they were asked for.
    photo: small, so that notebooks show the result (`inference.shown`); None: grey.
  """

  labels: Int[np.ndarray, 'h w']
  names: tuple[str, ...]
  scores: Float[np.ndarray, 'h w']
  confidence: Float[np.ndarray, 'h w']
  margin: Float[np.ndarray, 'h w']
  proposals: ProposalTable
  skipped: float = 0.0
  panoptic: Panoptic | None = None
  maps: NameMaps | None = None
  photo: UInt8[np.ndarray, 'rows columns 3'] | None = None

  def _repr_png_(self) -> bytes:
    return shown.as_png(self)

  def _repr_html_(self) -> str:
    return shown.as_html(self)

  def agreement(self, other: 'Segmentation') -> float:
    """Returns the share of pixels that have the same name in both, 0..1."""
    if (self.names, self.labels.shape) != (other.names, other.labels.shape):
      raise UserError(
        'only segmentations of one picture by the same names can agree; got '
        f'{self.labels.shape} and {other.labels.shape} (height, width), '
        f'{len(self.names)} and {len(other.names)} names'
      )
    return float((self.labels == other.labels).mean())

  def shares(self) -> dict[str, float]:
    """Returns the share of the picture that each name has, 0..1."""
    areas = overlay.shares(self.labels, len(self.names))
    return dict(zip(self.names, areas.tolist(), strict=True))

  def label(self, name: str) -> int:
    """Returns the index of a name.

    Raises:
      ValueError: it is none of the names that were asked for.
    """
    return lookup({n: i for i, n in enumerate(self.names)}, name, 'name')

  def mask(self, name: str) -> Bool[np.ndarray, 'h w']:
    """Returns which pixels have a name.

    Raises:
      ValueError: it is none of the names that were asked for.
    """
    return self.labels == self.label(name)

  def confidences(self) -> dict[str, float]:
    """Returns the mean confidence of each name's pixels, 0..1; 0 if it has none."""
    found = {segment.name: segment.confidence for segment in self.segments()}
    return {name: found.get(name, 0.0) for name in self.names}

  def confidence_map(self, name: str) -> Float[np.ndarray, 'h w']:
    """Returns how sure a name is at every pixel, 0..1, whichever name won it.

    Raises:
      ValueError: an unknown name, or the maps were not asked for.
    """
    label = self.label(name)
    if self.maps is None:
      raise UserError('no maps of names were kept; ask for them with maps=True')
    return self.maps.confidence(label)

  def segments(self) -> list[Segment]:
    """Returns the names that occur, largest first."""
    found = []
    for label in np.unique(self.labels[self.labels >= 0]).tolist():
      mask = self.labels == label
      segment = Segment(
        label=label,
        name=self.names[label],
        share=float(mask.mean()),
        score=float(self.scores[mask].mean(dtype=np.float64)),
        confidence=float(self.confidence[mask].mean(dtype=np.float64)),
        margin=float(self.margin[mask].mean(dtype=np.float64)),
        box=box_of(mask),
      )
      found.append(segment)
    return sorted(found, key=lambda segment: -segment.share)

  def refine(
    self, image: ImageLike, *, radius: int = RADIUS, epsilon: float = EPSILON
  ) -> 'Segmentation':
    """Returns the same with borders where the photo has them, and without specks.

    Of pixels that change, the confidence is the new label's share of the votes around
    (`ops.guided`), and score and margin are 0: no proposal gave it. Maps of names are
    not kept.

    Args:
      image: the photo that was segmented.
      radius: of the windows in pixels: how far borders may move.
      epsilon: variance of colours in 0..1 up to which they count as flat.

    Raises:
      ValueError: a photo of another size, a number out of its range, or segments with
        ids, which have their own borders.
    """
    if self.panoptic is not None:
      raise UserError(
        'refine cleans label maps, and this result has segments with ids; segment '
        'without panoptic=True'
      )
    labels, votes = refine(self.labels, as_rgb(image), radius=radius, epsilon=epsilon)
    same = labels == self.labels
    votes = np.where(labels >= 0, np.clip(votes, 0, 1), 0)
    return dataclasses.replace(
      self,
      labels=labels,
      scores=np.where(same, self.scores, 0).astype(np.float32),
      confidence=np.where(same, self.confidence, votes).astype(np.float32),
      margin=np.where(same, self.margin, 0).astype(np.float32),
      maps=None,
    )

  def overlay(self, image: ImageLike, *, alpha: float = 0.55) -> Image.Image:
    """Draws the labels over the picture that was segmented, with a legend."""
    return overlay.overlay(as_rgb(image), self.labels, self.names, alpha=alpha)

  def instances(self) -> list[Instance]:
    """Returns what formats call segments, largest first: with ids, if there are any."""
    if self.panoptic is None:
      return [
        Instance(s.label, self.mask(s.name), s.confidence) for s in self.segments()
      ]
    return [
      Instance(s.label, self.panoptic.ids == s.id, s.confidence)
      for s in self.panoptic.segments
    ]

  def found(self, photo: Path, stem: str, output: Place | None = None) -> Found:
    """Returns the result as formats take it.

    Args:
      photo: the file that was segmented.
      stem: by which files of it are called.
      output: the folder that has the formats' folders.
    """
    return Found(
      photo=local(photo),
      stem=stem,
      names=self.names,
      labels=self.labels,
      confidence=self.confidence,
      instances=tuple(self.instances()),
      output=output if isinstance(output, pathlib.Path) else None,
    )

  def to_coco(self, photo: Path = 'image', *, parts: bool = False) -> dict[str, Any]:
    """Returns what a COCO file holds, of this photo alone.

    Args:
      photo: the file that was segmented, of which the name is told.
      parts: whether there is an annotation per connected part, not per segment.
    """
    path = local(photo)
    record = Coco().record(self.found(path, path.stem), parts=parts)
    size = self.labels.shape
    return to_coco(
      [Entry(path, path.name, path.stem, size, lambda: record)], self.names
    )

  def save(
    self, folder: Path, photo: Path, formats: str = 'png', *, parts: bool = False
  ) -> list[Place]:
    """Writes the result in formats of annotation tools; returns the files.

    Args:
      folder: which gets a folder for each format; their files are those of this photo
        alone, and others of its name are replaced.
      photo: the file that was segmented.
      formats: names in `formats.FORMATS`, separated by commas.
      parts: whether coco has an annotation per connected part, not per segment.

    Raises:
      ValueError: an unknown format, or one that cannot hold the result.
    """
    output, path, chosen = place(folder), local(photo), parse_formats(formats)
    shown = float((self.labels >= 0).mean())
    overlapping = sum(self.shares().values()) > shown + 1e-6
    for one in chosen:
      one.check(self.names, overlapping=overlapping)
    found = self.found(path, path.stem, output)
    files = run.contents(chosen, found, output)
    kept = run.records(chosen, found, parts=parts)
    with contextlib.ExitStack() as stack:
      run.write_into(stack, files)
    run.mark(chosen, output)
    made = list(files)
    for one in chosen:
      record = kept.get(one.name)
      entry = Entry(path, path.name, path.stem, found.size, lambda r=record: r)
      made += run.finish([one], output, [entry], self.names)
    return made
