"""Segments with ids: one for each proposal that is seen, as MaskFormer makes them."""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from ovs_jax.core.masks import box_of
from ovs_jax.core.types import Array, Bool, Float, Int
from ovs_jax.inference.encode import EncodedImage
from ovs_jax.ops.painting import label_map

# MaskFormer's: a proposal of which others hide more is left out.
_MIN_SEEN = 0.8


@dataclasses.dataclass(frozen=True)
class PanopticSegment:
  """One proposal in a picture.

  Attributes:
    id: its value in `Panoptic.ids`, from 1.
    label: index into the names.
    name: as it was asked for.
    score: the proposal's weight for the name.
    confidence: the name's share of its weights and of what they lack of 1, 0..1.
    area: in pixels.
    box: x0, y0, x1, y1 in pixels, exclusive ends.
  """

  id: int
  label: int
  name: str
  score: float
  confidence: float
  area: int
  box: tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True)
class Panoptic:
  """A picture divided among proposals.

  Attributes:
    ids: of the segment that each pixel belongs to, 0 where there is none.
    segments: largest first.
    trained: whether the proposer has learnt to tell things of one name apart. If not,
      two cars may be one segment, and one car two.
  """

  ids: Int[np.ndarray, 'h w']
  segments: tuple[PanopticSegment, ...]
  trained: bool


def divide(
  picture: EncodedImage,
  weights: Float[Array, 'q k'],
  names: Sequence[str],
  *,
  trained: bool,
  threshold: float = 0.0,
) -> Panoptic:
  """Gives every pixel to the proposal whose mask times its best name's weight is most.

  A pixel whose mask is below 0.5 belongs to nothing. A proposal keeps its pixels if
  they are most of its mask, and if its best class is one of the names (what comes
  after them is background).

  Args:
    picture: with the masks.
    weights: of the classes for each proposal.
    names: of the classes that get labels.
    trained: whether the proposer has learnt to tell things of one name apart.
    threshold: proposals of less confidence compete, but are no segments, 0..1.
  """
  encoded = picture.encoded
  best = jnp.argmax(weights, axis=1)
  score = jnp.max(weights, axis=1)
  sure = score / jnp.maximum(jnp.sum(weights, axis=1), 1)
  use = encoded.valid & (best < len(names)) & (score > 0) & (sure >= threshold)
  compete = jnp.diag(jnp.where(encoded.valid, score, 0.0))
  owner, value = label_map(
    compete, encoded.masks, picture.size, inside=picture.network_size
  )
  share = np.asarray(value) / np.maximum(np.asarray(score)[np.asarray(owner)], 1e-30)
  owner = np.where(share >= 0.5, np.asarray(owner), -1)
  whole = np.asarray(jnp.sum(encoded.masks >= 0.5, axis=(1, 2))).astype(np.float64)
  whole *= np.prod(picture.size) / np.prod(picture.network_size)
  return _segments(
    owner,
    np.asarray(use),
    whole,
    best=np.asarray(best),
    score=np.asarray(score),
    sure=np.asarray(sure),
    names=names,
    trained=trained,
  )


def _segments(
  owner: Int[np.ndarray, 'h w'],
  use: Bool[np.ndarray, 'q'],
  whole: Float[np.ndarray, 'q'],
  *,
  best: Int[np.ndarray, 'q'],
  score: Float[np.ndarray, 'q'],
  sure: Float[np.ndarray, 'q'],
  names: Sequence[str],
  trained: bool,
) -> Panoptic:
  """Numbers the proposals that keep their pixels, largest first."""
  areas = np.bincount(owner[owner >= 0], minlength=len(use))
  kept = np.flatnonzero(use & (areas > 0) & (areas >= _MIN_SEEN * whole))
  kept = kept[np.argsort(-areas[kept], kind='stable')]
  ids = np.zeros(owner.shape, np.int32)
  segments = []
  for i, q in enumerate(kept, start=1):
    mask = owner == q
    ids[mask] = i
    label = int(best[q])
    segments.append(
      PanopticSegment(
        id=i,
        label=label,
        name=names[label],
        score=float(score[q]),
        confidence=float(sure[q]),
        area=int(areas[q]),
        box=box_of(mask),
      )
    )
  return Panoptic(ids=ids, segments=tuple(segments), trained=trained)
