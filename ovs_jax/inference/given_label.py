"""Labels of a picture from masks that are given, painted in the picture's own size."""

from collections.abc import Iterator

import numpy as np

from ovs_jax.core.mask_set import MaskSet
from ovs_jax.core.types import NO_LABEL, Float, Int
from ovs_jax.inference.evidence import NameMaps, share
from ovs_jax.inference.given_masks import EncodedMasks
from ovs_jax.inference.result import ProposalTable, Segmentation

_SIDE = 128  # of the squares that are painted at once
_PAINTED_AT_ONCE = 512  # masks in a square

Box = tuple[int, int, int, int]


def label_masks(
  picture: EncodedMasks,
  names: tuple[str, ...],
  weights: Float[np.ndarray, 'n k'],
  by_clip: Float[np.ndarray, 'n k'],
  *,
  threshold: float,
  binary: float | None = None,
  maps: bool = False,
) -> Segmentation:
  """Paints masks over each other as proposals are: weights times masks add up.

  Args:
    picture: with the masks.
    names: of the classes that get labels; the others' pixels get none.
    weights: of the classes for each mask.
    by_clip: CLIP's probabilities.
    threshold: pixels with a lower confidence get no label.
    binary: a threshold above which masks count as 1, and below as 0; None: soft masks.
    maps: whether the names' maps are kept, and with them the masks.
  """
  count, masks = len(names), picture.masks
  labels = np.zeros(picture.size, np.int32)
  scores, others, total = (np.zeros(picture.size, np.float32) for _ in range(3))
  for (x0, y0, x1, y1), painted in squares(masks, weights, binary):
    place = slice(y0, y1), slice(x0, x1)
    labels[place] = painted.argmax(axis=0)
    scores[place] = painted.max(axis=0)
    if len(painted) > 1:
      others[place] = np.partition(painted, -2, axis=0)[-2]
    total[place] = painted.sum(axis=0)
  confidence = share(scores, total)
  named = (labels < count) & (scores > 0) & (confidence >= threshold)
  return Segmentation(
    labels=np.where(named, labels, NO_LABEL),
    names=names,
    scores=np.where(named, scores, np.float32(0)),
    confidence=np.where(named, confidence, np.float32(0)),
    margin=np.where(named, share(scores - others, total), np.float32(0)),
    proposals=_table(picture, weights, by_clip, count),
    maps=NameMaps(lambda k: _evidence(masks, weights[:, [k]], binary), total)
    if maps
    else None,
  )


def squares(
  masks: MaskSet, weights: Float[np.ndarray, 'n k'], binary: float | None
) -> Iterator[tuple[Box, Float[np.ndarray, 'k y x']]]:
  """Yields the parts of a picture that masks reach, and all classes' scores there."""
  used, boxes = np.flatnonzero(weights.any(axis=1)), masks.boxes()
  height, width = masks.size
  for y0 in range(0, height, _SIDE):
    y1 = min(y0 + _SIDE, height)
    row = used[(boxes[used, 1] < y1) & (boxes[used, 3] > y0)]
    for x0 in range(0, width, _SIDE):
      x1 = min(x0 + _SIDE, width)
      here = row[(boxes[row, 0] < x1) & (boxes[row, 2] > x0)]
      if len(here):
        box = x0, y0, x1, y1
        yield box, _square(masks, weights, here, box, binary)


def _square(
  masks: MaskSet,
  weights: Float[np.ndarray, 'n k'],
  here: Int[np.ndarray, 'm'],
  box: Box,
  binary: float | None,
) -> Float[np.ndarray, 'k y x']:
  x0, y0, x1, y1 = box
  found = np.zeros((weights.shape[1], (y1 - y0) * (x1 - x0)), np.float32)
  for start in range(0, len(here), _PAINTED_AT_ONCE):
    some = here[start : start + _PAINTED_AT_ONCE]
    shown = np.stack([masks.window(i, box).ravel() for i in some.tolist()])
    if binary is not None:
      shown = (shown > binary).astype(np.float32)
    found += weights[some].T @ shown
  return found.reshape(-1, y1 - y0, x1 - x0)


def _evidence(
  masks: MaskSet, weights: Float[np.ndarray, 'n 1'], binary: float | None
) -> Float[np.ndarray, 'h w']:
  found = np.zeros(masks.size, np.float32)
  for (x0, y0, x1, y1), painted in squares(masks, weights, binary):
    found[y0:y1, x0:x1] = painted[0]
  return found


def _table(
  picture: EncodedMasks,
  weights: Float[np.ndarray, 'n k'],
  by_clip: Float[np.ndarray, 'n k'],
  count: int,
) -> ProposalTable:
  """Returns a row per mask that shows anything; the proposer says nothing of them."""
  best = weights.argmax(axis=1)
  painted = (best < count) & (weights.max(axis=1) > 0)
  rows = picture.valid
  return ProposalTable(
    boxes=picture.masks.boxes()[rows].astype(np.float32),
    labels=np.where(painted, best, NO_LABEL).astype(np.int32)[rows],
    proposer=np.full((int(rows.sum()), count), np.nan, np.float32),
    clip=by_clip[rows, :count],
  )
