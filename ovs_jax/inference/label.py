"""Labels of a whole picture, from one set of proposals or from overlapping windows."""

import functools
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np

from ovs_jax.core.types import NO_LABEL, Array, Float, Int
from ovs_jax.inference.encode import EncodedImage, EncodedWindows, Picture
from ovs_jax.inference.evidence import NameMaps, share
from ovs_jax.inference.result import ProposalTable, Segmentation
from ovs_jax.inference.weigh import Weights
from ovs_jax.ops.ensemble import fuse
from ovs_jax.ops.painting import View, label_map, paint, whole

# Of every pixel the best class, its score, and the highest score of the others.
Scored = tuple[
  Int[np.ndarray, 'H W'], Float[np.ndarray, 'H W'], Float[np.ndarray, 'H W']
]
_WINDOWS_AT_ONCE = 6  # whose masks are kept; each needs up to 0.2 GB


def label_picture(
  picture: EncodedImage,
  weights: Float[Array, 'q k'],
  *,
  binary: float | None = None,
) -> Scored:
  """Returns each pixel's best class, its score (0 without a mask), and the second's.

  Args:
    picture: with the masks to paint.
    weights: of the classes for each proposal.
    binary: a threshold above which masks count as 1, and below as 0; None: soft masks.
  """
  masks = _masks(picture, binary)
  weights = jnp.where(jnp.any(picture.encoded.valid), weights, 0.0)
  view = whole(masks, picture.size, inside=picture.network_size)
  labels, scores, others = map(np.asarray, paint(weights, [view]))
  return labels, scores, others


def _masks(picture: EncodedImage, binary: float | None) -> Float[Array, 'q h w']:
  masks = picture.encoded.masks
  return masks if binary is None else (masks > binary).astype(jnp.float32)


def evidence(
  picture: Picture,
  weights: Sequence[Float[Array, 'q']],
  *,
  binary: float | None = None,
) -> Float[np.ndarray, 'H W']:
  """Returns the sum over proposals of one weight times the mask, at every pixel.

  Resizing is linear: the masks are added up at the network's resolution.

  Args:
    picture: with the masks.
    weights: of the proposals of each window; of a whole picture there is one.
    binary: as in `label_picture`.
  """
  one = jnp.ones((1, 1))
  if isinstance(picture, EncodedWindows):
    found = [
      _fused(part, row, picture.masks(i))
      for i, (part, row) in enumerate(zip(picture.windows, weights, strict=True))
    ]
    return label_windows(picture, [one] * len(found), masks=found.__getitem__)[1]
  fused = _fused(picture, weights[0], _masks(picture, binary))
  inside = picture.network_size
  return np.asarray(label_map(one, fused, picture.size, inside=inside)[1])


def _fused(
  picture: EncodedImage, weights: Float[Array, 'q'], masks: Float[Array, 'q h w']
) -> Float[Array, '1 h w']:
  return fuse(jnp.where(jnp.any(picture.encoded.valid), weights, 0.0)[:, None], masks)


def label_windows(
  picture: EncodedWindows,
  weights: Sequence[Float[Array, 'q k']],
  *,
  masks: Callable[[int], Float[Array, 'q h w']] | None = None,
) -> Scored:
  """Returns the best class of every pixel, its score, and the second's.

  The scores of windows are faded linearly where they overlap, so that no seam shows:
  at every pixel the factors sum to 1, and they are 0 at a window's border.

  Args:
    picture: whose windows have the masks to paint.
    weights: of the classes for each proposal of each window.
    masks: of a window, with padding; None: those of its proposals.
  """
  side = picture.windows[0].size
  rows, columns = (
    fades(
      picture.size[axis],
      sorted({corner[axis] for corner in picture.corners}),
      side[axis],
    )
    for axis in (0, 1)
  )
  if masks is None:
    masks = functools.lru_cache(maxsize=_WINDOWS_AT_ONCE)(picture.masks)
  labels = np.zeros(picture.size, np.int32)
  scores, others = (np.zeros(picture.size, np.float32) for _ in range(2))
  across = len(columns[0])
  for y0, y1, tops in intervals(rows[1]):
    for x0, x1, lefts in intervals(columns[1]):
      views, used = [], []
      for i in tops:
        for j in lefts:
          window = i * across + j
          one, (top, left) = picture.windows[window], picture.corners[window]
          place = (y0 - top, x0 - left, y1 - top, x1 - left)
          fade = rows[1][i, y0:y1], columns[1][j, x0:x1]
          views.append(View(masks(window), one.network_size, one.size, place, fade))
          used.append(jnp.where(jnp.any(one.encoded.valid), weights[window], 0.0))
      found = paint(jnp.concatenate(used), views)
      for full, part in zip((labels, scores, others), found, strict=True):
        full[y0:y1, x0:x1] = np.asarray(part)
  return labels, scores, others


def fades(
  length: int, starts: Sequence[int], side: int
) -> tuple[Sequence[int], Float[np.ndarray, 'n l']]:
  """Returns the starts, and how much each window counts along an axis.

  Every column sums to 1. Where windows overlap, they grow linearly from their border.
  """
  place = np.arange(length) + 0.5
  rows = []
  for i, start in enumerate(starts):
    inside = (place > start) & (place < start + side)
    row = np.where(inside, 1.0, 0.0)
    if i > 0 and (shared := starts[i - 1] + side - start) > 0:
      row = np.minimum(row, np.clip((place - start) / shared, 0, 1))
    if i + 1 < len(starts) and (shared := start + side - starts[i + 1]) > 0:
      row = np.minimum(row, np.clip((start + side - place) / shared, 0, 1))
    rows.append(row * inside)
  table = np.stack(rows)
  return starts, (table / table.sum(axis=0)).astype(np.float32)


def intervals(fade: Float[np.ndarray, 'n l']) -> list[tuple[int, int, list[int]]]:
  """Splits an axis where windows begin and end: first, last + 1, and its windows."""
  shown = fade > 0
  changes = np.flatnonzero((shown[:, 1:] != shown[:, :-1]).any(axis=0)) + 1
  edges = [0, *changes.tolist(), fade.shape[1]]
  return [
    (first, last, np.flatnonzero(shown[:, first]).tolist())
    for first, last in zip(edges[:-1], edges[1:], strict=True)
  ]


def result(
  picture: Picture,
  names: tuple[str, ...],
  weighed: Sequence[Weights],
  *,
  threshold: float,
  binary: float | None = None,
  maps: bool = False,
) -> Segmentation:
  """Paints what `weigh` returned; classes from `len(names)` on become `NO_LABEL`.

  Args:
    picture: with the masks.
    names: of the classes that get labels.
    weighed: of each window, or of the whole picture.
    threshold: pixels with a lower confidence get no label.
    binary: as in `label_picture`.
    maps: whether the names' maps are kept, and with them all masks.
  """
  count = len(names)
  if isinstance(picture, EncodedWindows):
    parts, corners = picture.windows, picture.corners
    painted = label_windows(picture, [weights for weights, _, _ in weighed])
  else:
    parts, corners = (picture,), ((0, 0),)
    painted = label_picture(picture, weighed[0][0], binary=binary)
  labels, scores, others = painted
  every = [weights for weights, _, _ in weighed]
  total = evidence(picture, [jnp.sum(w, axis=1) for w in every], binary=binary)
  confidence = share(scores, total)
  # Padded classes have weight 0, and so never beat a score above 0.
  named = (labels < count) & (scores > 0) & (confidence >= threshold)
  tables = [_table(*row, count) for row in zip(parts, corners, weighed, strict=True)]
  valid = sum(int(np.sum(part.encoded.valid)) for part in parts)
  seen = sum(
    int(np.sum(part.encoded.valid) if part.crops is None else np.sum(part.crops.seen))
    for part in parts
  )
  return Segmentation(
    labels=np.where(named, labels, NO_LABEL),
    names=names,
    scores=np.where(named, scores, np.float32(0)),
    confidence=np.where(named, confidence, np.float32(0)),
    margin=np.where(named, share(scores - others, total), np.float32(0)),
    proposals=ProposalTable(
      **{key: np.concatenate([t[key] for t in tables]) for key in tables[0]}
    ),
    skipped=1 - seen / valid if valid else 0.0,
    maps=NameMaps(
      lambda k: evidence(picture, [w[:, k] for w in every], binary=binary), total
    )
    if maps
    else None,
  )


def _table(
  part: EncodedImage, corner: tuple[int, int], weighed: Weights, count: int
) -> dict[str, np.ndarray]:
  """Returns the fields of a `ProposalTable`, of the valid proposals."""
  weights, proposer, by_clip = map(np.asarray, weighed)
  best = np.argmax(weights, axis=1)
  painted = (best < count) & (np.max(weights, axis=1) > 0)
  (height, width), (h, w) = part.size, part.network_size
  scale = np.array([[width / w, height / h] * 2], np.float32)
  boxes = np.asarray(part.encoded.boxes).astype(np.float32) * scale
  rows = {
    'boxes': boxes + np.array([[corner[1], corner[0]] * 2], np.float32),
    'labels': np.where(painted, best, NO_LABEL).astype(np.int32),
    'proposer': proposer[:, :count],
    'clip': by_clip[:, :count],
  }
  valid = np.asarray(part.encoded.valid)
  return {key: value[valid] for key, value in rows.items()}
