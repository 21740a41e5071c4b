"""Label maps of the picture's own size, from proposals in buckets of few sizes.

Gives what `ops.ensemble.label_map` gives, but compiles few programs for a data set
whose images all have different sizes, and holds at most `CHUNK` classes at once.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.types import Array, Bool, Float, Int
from ovs_jax.ops.ensemble import fuse
from ovs_jax.ops.resize import linear_taps

UNASSIGNED = -1
ROWS = 64  # of the picture at once
CHUNK = 256  # classes at once
_COLUMNS = 128  # a picture's width is rounded up to a multiple of it


def paint(
  weights: Float[np.ndarray, 'q k'],
  masks: Float[Array, 'q h w'],
  content: tuple[int, int],
  size: tuple[int, int],
) -> Int[np.ndarray, 'H W']:
  """Returns the best class of every pixel, `UNASSIGNED` where no class has a score.

  Args:
    weights: of the classes for each proposal, at least 0.
    masks: probabilities, in a bucket.
    content: height and width of the part of `masks` that is the picture.
    size: height and width of the result.
  """
  chunks = _chunks(weights)
  labels = np.empty(size, np.int32)
  for rows, taps in _blocks(content, size):
    best = _best_labels(chunks, masks, *taps)
    labels[rows] = np.asarray(best)[: rows.stop - rows.start, : size[1]]
  return labels


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


def _chunks(weights: Float[np.ndarray, 'q k']) -> Float[Array, 'n q c']:
  """Classes in equal chunks, filled up with weights of 0, which win nowhere."""
  count = weights.shape[1]
  chunk = min(CHUNK, max(8, 1 << (count - 1).bit_length()))
  padded = np.pad(weights, ((0, 0), (0, -count % chunk)))
  q, total = padded.shape
  return jnp.asarray(padded.reshape(q, total // chunk, chunk).transpose(1, 0, 2))


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


@functools.partial(jax.jit)
def _best_labels(
  chunks: Float[Array, 'n q c'],
  masks: Float[Array, 'q h w'],
  down: tuple[Array, ...],
  across: tuple[Array, ...],
) -> Int[Array, 'r W']:
  resized = _resized(masks, down, across)

  def better(best: tuple[Array, ...], chunk: Array) -> tuple[tuple[Array, ...], None]:
    score, label, start = best
    scores = fuse(chunk, resized)
    top = jnp.max(scores, axis=0)
    which = jnp.argmax(scores, axis=0).astype(jnp.int32) + start
    # The first of equals wins, as it does without chunks.
    label = jnp.where(top > score, which, label)
    return (jnp.maximum(top, score), label, start + chunk.shape[1]), None

  shape = resized.shape[1:]
  first = (jnp.zeros(shape), jnp.full(shape, UNASSIGNED, jnp.int32), jnp.int32(0))
  return jax.lax.scan(better, first, chunks)[0][1]


@functools.partial(jax.jit)
def _positive(
  weights: Float[Array, 'q t'],
  masks: Float[Array, 'q h w'],
  down: tuple[Array, ...],
  across: tuple[Array, ...],
) -> Bool[Array, 't r W']:
  return fuse(weights, _resized(masks, down, across)) > 0
