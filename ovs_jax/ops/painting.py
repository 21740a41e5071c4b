"""From class weights and masks to the best class of every pixel, tile by tile.

A class map is the sum of all masks, each times its class weight, and resizing is
linear: so masks are resized, class maps never are, and only the best class of a tile's
pixels is kept. Memory grows with proposals times pixels, never with classes.

Most classes cannot win anything in a tile, and that can be proven: no pixel's score
exceeds the sum of the masks' maxima around it times the class's weights. Classes whose
bound is below the worst winner so far are left out, and the labels are the same.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.types import Array, Float, Int
from ovs_jax.ops.resize import EXACT, linear_taps

_CELLS = 8  # a tile is bounded in 8 x 8 parts
_SLACK = 1e-4  # relative; float32 sums of a few hundred terms round by less


@dataclasses.dataclass(frozen=True)
class View:
  """Masks, and the rectangle of a picture that is painted from them.

  Attributes:
    masks: of any size, of which `inside` counts.
    inside: height and width of the part that is not padding.
    size: height and width of the picture that this part shows.
    place: y0, x0, y1, x1 of the rectangle in that picture, exclusive ends.
    fade: factors on the rectangle's rows and on its columns; None: 1.
  """

  masks: Float[Array, 'q h w']
  inside: tuple[int, int]
  size: tuple[int, int]
  place: tuple[int, int, int, int]
  fade: tuple[Float[np.ndarray, 'r'], Float[np.ndarray, 'c']] | None = None


def label_map(
  weights: Float[Array, 'q k'],
  masks: Float[Array, 'q h w'],
  size: tuple[int, int],
  *,
  inside: tuple[int, int] | None = None,
  tile: int | None = None,
  group: int | None = None,
) -> tuple[Int[Array, 'H W'], Float[Array, 'H W']]:
  """Fuses, resizes bilinearly to `size` and takes the best class of every pixel.

  Args:
    weights: of the classes, at least 0.
    masks: at least 0.
    size: height and width of the result.
    inside: the part of the masks that is not padding; None is all of it.
    tile: side of a tile, a multiple of 8; None: 64 on CPUs, 256 elsewhere.
    group: classes that are scored at once; None: 64 on CPUs, 256 elsewhere.

  Returns:
    The class indices (int32), the first of equals, and their scores.
  """
  views = [whole(masks, size, inside=inside)]
  labels, scores = _paint(weights, views, tile=tile, group=group)
  return labels, scores


def whole(
  masks: Float[Array, 'q h w'],
  size: tuple[int, int],
  *,
  inside: tuple[int, int] | None = None,
) -> View:
  """Returns the view of a whole picture; the arguments are those of `label_map`."""
  size = (int(size[0]), int(size[1]))
  return View(masks, inside or masks.shape[1:], size, (0, 0, *size))


def paint(
  weights: Float[Array, 'q k'],
  views: Sequence[View],
  *,
  tile: int | None = None,
  group: int | None = None,
) -> tuple[Int[Array, 'H W'], Float[Array, 'H W'], Float[Array, 'H W']]:
  """Returns the best class, its score and the second's, where the views show.

  Compiles for shapes of masks, numbers of views and classes, and few sizes of the
  result, and waits for nothing.

  Args:
    weights: of the proposals of all views, one view after the other.
    views: with masks of one shape and places of one size; their scores add up.
    tile: side of a tile, a multiple of 8; None: 64 on CPUs, 256 elsewhere.
    group: classes that are scored at once; None: 64 on CPUs, 256 elsewhere.

  Returns:
    The class indices (int32), the first of equals, their scores, and the highest scores
    of the other classes, 0 if there are none.
  """
  labels, scores, others = _paint(weights, views, tile=tile, group=group, others=True)
  return labels, scores, others


def _paint(
  weights: Float[Array, 'q k'],
  views: Sequence[View],
  *,
  tile: int | None,
  group: int | None,
  others: bool = False,
) -> tuple[Array, ...]:
  cpu = jax.default_backend() == 'cpu'
  tile, group = tile or (64 if cpu else 256), group or (64 if cpu else 256)
  y0, x0, y1, x1 = views[0].place
  rows, columns = axis_tiles(views, 0, tile), axis_tiles(views, 1, tile)
  found = paint_tiles(
    weights,
    tuple(view.masks for view in views),
    rows,
    columns,
    np.array([-(-(y1 - y0) // tile), -(-(x1 - x0) // tile)], np.int32),
    group=min(group, weights.shape[1]),
    others=others,
  )
  return tuple(x[: y1 - y0, : x1 - x0] for x in found)


def axis_tiles(
  views: Sequence[View], axis: int, tile: int
) -> tuple[Int[np.ndarray, 's n'], Float[np.ndarray, 's n t p']]:
  """For each view and tile: where its source starts, and the matrix that resizes it."""
  starts, matrices = [], []
  needed = []
  for view in views:
    low, high, weight = linear_taps(view.inside[axis], view.size[axis])
    chosen = np.arange(view.place[axis], view.place[axis + 2])
    fade = np.ones(len(chosen)) if view.fade is None else view.fade[axis]
    # Few sizes: tiles beyond the end repeat the last pixel, and are never computed.
    count = 4 * -(-len(chosen) // (4 * tile))
    within = np.minimum(np.arange(count * tile), len(chosen) - 1)
    at, fade = chosen[within], fade[within].astype(np.float32)
    needed.append((low[at], high[at], weight[at], fade, count))
  spans = [
    (high.reshape(n, tile).max(1) - low.reshape(n, tile).min(1)).max() + 1
    for low, high, _, _, n in needed
  ]
  length = views[0].masks.shape[1 + axis]
  span = min(8 * -(-int(max(spans)) // 8), length)
  for low, high, weight, fade, n in needed:
    start = np.minimum(low.reshape(n, tile).min(1), length - span)
    matrix = np.zeros((n * tile, span), np.float32)
    offset, every = np.repeat(start, tile), np.arange(n * tile)
    np.add.at(matrix, (every, low - offset), (1 - weight) * fade)
    np.add.at(matrix, (every, high - offset), weight * fade)
    starts.append(start.astype(np.int32))
    matrices.append(matrix.reshape(n, tile, span))
  return np.stack(starts), np.stack(matrices)


@functools.partial(jax.jit, static_argnames=('group', 'others'))
def paint_tiles(
  weights: Float[Array, 'q k'],
  masks: tuple[Float[Array, 'v h w'], ...],
  rows: tuple[Int[Array, 's n'], Float[Array, 's n t i']],
  columns: tuple[Int[Array, 's m'], Float[Array, 's m t j']],
  counts: Int[Array, '2'],
  *,
  group: int,
  others: bool = False,
) -> tuple[Array, ...]:
  """Labels the first `counts` rows and columns of tiles; see `best_classes`."""
  tile = rows[1].shape[2]
  size = rows[1].shape[1] * tile, columns[1].shape[1] * tile
  classes = weights.T

  def one(i: Array, found: tuple[Array, ...]) -> tuple[Array, ...]:
    y, x = i // counts[1], i % counts[1]
    shown = resized(masks, rows, columns, (y, x))
    tiles = best_classes(classes, shown, group=group, others=others)
    corner = (y * tile, x * tile)
    return tuple(
      jax.lax.dynamic_update_slice(whole, part, corner)
      for whole, part in zip(found, tiles, strict=True)
    )

  empty = (jnp.zeros(size, jnp.int32), *[jnp.zeros(size)] * (2 if others else 1))
  return jax.lax.fori_loop(0, counts[0] * counts[1], one, empty)


def resized(
  masks: tuple[Float[Array, 'v h w'], ...],
  rows: tuple[Int[Array, 's n'], Float[Array, 's n t i']],
  columns: tuple[Int[Array, 's m'], Float[Array, 's m t j']],
  place: tuple[Array, Array],
) -> Float[Array, 'q t t']:
  """Returns the masks of all views, resized to one tile; `axis_tiles` made the rest."""
  y, x = place
  parts = []
  for s, every in enumerate(masks):
    start = (0, rows[0][s, y], columns[0][s, x])
    shape = (every.shape[0], rows[1].shape[3], columns[1].shape[3])
    part = jax.lax.dynamic_slice(every, start, shape)
    part = jnp.einsum('ti,vij->vtj', rows[1][s, y], part, precision=EXACT)
    part = jnp.einsum('uj,vtj->vtu', columns[1][s, x], part, precision=EXACT)
    parts.append(part)
  return jnp.concatenate(parts)


def best_classes(
  classes: Float[Array, 'k q'],
  masks: Float[Array, 'q t u'],
  *,
  group: int,
  others: bool = False,
) -> tuple[Array, ...]:
  """Returns every pixel's best class, the first of equals, and its score.

  Args:
    classes: weights of the proposals, at least 0.
    masks: at least 0, of a tile whose sides are multiples of 8.
    group: classes scored at once.
    others: whether the highest score of the other classes comes third.
  """
  count, q = classes.shape
  t, u = masks.shape[1:]
  pixels = masks.reshape(q, -1)

  def score(ids: Int[Array, 'g'], best: tuple[Array, ...]) -> tuple[Array, ...]:
    scores = jnp.matmul(classes[ids], pixels, precision=EXACT)
    top = jnp.max(scores, axis=0)
    # Two reductions are several times faster than an argmax on CPUs.
    first = jnp.min(jnp.where(scores == top[None], ids[:, None], count), axis=0)
    label, old, *second = best
    better = (top > old) | ((top == old) & (first < label))
    found = jnp.where(better, first, label), jnp.maximum(top, old)
    if not others:
      return found
    rest = jnp.max(jnp.where(ids[:, None] == first[None], 0.0, scores), axis=0)
    # A class that comes once more is not beaten by itself.
    beaten = jnp.where(first == label, 0.0, jnp.minimum(top, old))
    return (*found, jnp.maximum(jnp.maximum(second[0], rest), beaten))

  nothing = jnp.full(t * u, count), jnp.full(t * u, -jnp.inf)
  if others:
    nothing += (jnp.zeros(t * u),)
  if count <= 2 * group:
    found = score(jnp.arange(count), nothing)
    return tuple(x.reshape(t, u) for x in found)
  cells = masks.reshape(q, _CELLS, t // _CELLS, _CELLS, u // _CELLS)
  peaks = jnp.max(cells, axis=(2, 4)).reshape(q, -1)
  bounds = jnp.matmul(classes, peaks, precision=EXACT) * (1 + _SLACK)  # k cells
  share = jnp.max(bounds / jnp.maximum(jnp.max(bounds, axis=0), 1e-30)[None], axis=1)
  _, promising = jax.lax.top_k(share, group)
  found = score(promising, nothing)
  worst = found[-1].reshape(_CELLS, t // _CELLS, _CELLS, u // _CELLS)
  worst = jnp.min(worst, axis=(1, 3)).reshape(-1)
  able = jnp.any(bounds >= worst[None], axis=1).at[promising].set(False)
  order = jnp.argsort(~able, stable=True)

  def more(i: Array, best: tuple[Array, ...]) -> tuple[Array, ...]:
    # The last slice is moved up where it would end too late, and repeats some.
    return score(jax.lax.dynamic_slice(order, (i * group,), (group,)), best)

  found = jax.lax.fori_loop(0, -(-jnp.sum(able) // group), more, found)
  return tuple(x.reshape(t, u) for x in found)
