"""Label maps of the picture's own size, from proposals in buckets of few sizes.

What `ops.painting` does, with pixels that no class has a score in left unassigned.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.types import NO_LABEL, Array, Bool, Float, Int
from ovs_jax.inference.evidence import share
from ovs_jax.ops.ensemble import fuse
from ovs_jax.ops.painting import label_map
from ovs_jax.ops.resize import linear_taps

ROWS = 64  # of the picture at once
_COLUMNS = 128  # a picture's width is rounded up to a multiple of it


def paint(
  weights: Float[np.ndarray, 'q k'],
  masks: Float[Array, 'q h w'],
  content: tuple[int, int],
  size: tuple[int, int],
  *,
  first: bool = False,
) -> Int[np.ndarray, 'H W']:
  """Returns the best class of every pixel, `NO_LABEL` where no class has a score.

  Args:
    weights: of the classes for each proposal, at least 0.
    masks: probabilities, in a bucket.
    content: height and width of the part of `masks` that is the picture.
    size: height and width of the result.
    first: whether pixels without any score get the first class, as in the reference.
  """
  labels, scores = label_map(jnp.asarray(weights), masks, size, inside=content)
  if first:
    return np.where(np.asarray(scores) > 0, np.asarray(labels), 0).astype(np.int32)
  return np.where(np.asarray(scores) > 0, np.asarray(labels), NO_LABEL)


def confidence(
  weights: Float[np.ndarray, 'q k'],
  masks: Float[Array, 'q h w'],
  content: tuple[int, int],
  size: tuple[int, int],
) -> Float[np.ndarray, 'H W']:
  """Returns how sure the best class of every pixel is, 0..1; see `inference.evidence`.

  Args:
    weights: of the classes for each proposal, at least 0.
    masks: as in `paint`.
    content: as in `paint`.
    size: as in `paint`.
  """
  _, best = label_map(jnp.asarray(weights), masks, size, inside=content)
  every = fuse(jnp.asarray(weights.sum(axis=1, keepdims=True)), masks)
  _, total = label_map(jnp.ones((1, 1)), every, size, inside=content)
  return share(np.asarray(best), np.asarray(total))


def claims(
  weights: Float[np.ndarray, 'q t'],
  masks: Float[Array, 'q h w'],
  content: tuple[int, int],
  size: tuple[int, int],
) -> Bool[np.ndarray, 't H W']:
  """Returns for each column where its sum over proposals is above 0.

  Args:
    weights: of a name, less those of its alternative.
    masks: as in `paint`.
    content: as in `paint`.
    size: as in `paint`.
  """
  count = weights.shape[1]
  padded = jnp.asarray(np.pad(weights, ((0, 0), (0, -count % 8))))
  found = np.empty((count, *size), bool)
  for rows, taps in _blocks(content, size):
    block = np.asarray(_positive(padded, masks, *taps))
    found[:, rows] = block[:count, : rows.stop - rows.start, : size[1]]
  return found


def _blocks(
  content: tuple[int, int], size: tuple[int, int]
) -> list[tuple[slice, tuple[tuple[Array, ...], tuple[Array, ...]]]]:
  """Rows of the result, and where they are in the masks; all of one shape."""
  height, width = -(-size[0] // ROWS) * ROWS, -(-size[1] // _COLUMNS) * _COLUMNS
  down = [np.pad(x, (0, height - size[0])) for x in linear_taps(content[0], size[0])]
  across = tuple(
    jnp.asarray(np.pad(x, (0, width - size[1])))
    for x in linear_taps(content[1], size[1])
  )
  blocks = []
  for start in range(0, size[0], ROWS):
    rows = slice(start, min(start + ROWS, size[0]))
    taps = tuple(jnp.asarray(x[start : start + ROWS]) for x in down)
    blocks.append((rows, (taps, across)))
  return blocks


def _resized(
  masks: Float[Array, 'q h w'], down: tuple[Array, ...], across: tuple[Array, ...]
) -> Float[Array, 'q r W']:
  """Bilinear interpolation at the taps of some rows and all columns."""
  for axis, (low, high, weight) in ((1, down), (2, across)):
    shape = [1, 1, 1]
    shape[axis] = -1
    t = weight.reshape(shape)
    masks = (1 - t) * jnp.take(masks, low, axis) + t * jnp.take(masks, high, axis)
  return masks


@jax.jit
def _positive(
  weights: Float[Array, 'q t'],
  masks: Float[Array, 'q h w'],
  down: tuple[Array, ...],
  across: tuple[Array, ...],
) -> Bool[Array, 't r W']:
  return fuse(weights, _resized(masks, down, across)) > 0
