"""Which pixels' best class is proven, when weights are known only between bounds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.types import Array, Bool, Float, Int
from ovs_jax.ops.painting import View, axis_tiles, resized
from ovs_jax.ops.resize import EXACT

_SLACK = 1e-4  # relative; float32 sums of a few hundred terms round by less
_TILE = 64
_GROUP = 64


def certain_pixels(
  least: Float[Array, 'q k'],
  most: Float[Array, 'q k'],
  masks: Float[Array, 'q h w'],
  size: tuple[int, int],
  *,
  inside: tuple[int, int],
) -> tuple[Int[Array, ''], Float[Array, 'q']]:
  """Counts the pixels whose best class is not proven.

  A pixel is proven if the lower bound of one class's score is above the upper bounds of
  all others, or if no class can have a score above 0.

  Args:
    least: lower bounds of the classes' weights, at least 0.
    most: upper bounds of them.
    masks: probabilities, of any size, of which `inside` counts.
    size: height and width of the picture.
    inside: height and width of the part of the masks that is not padding.

  Returns:
    The number of open pixels, and the sum of each mask over them.
  """
  view = View(masks, inside, size, (0, 0, *size))
  counts = np.array([-(-length // _TILE) for length in size], np.int32)
  rows, columns = axis_tiles([view], 0, _TILE), axis_tiles([view], 1, _TILE)
  return _count(least, most, masks, rows, columns, counts, np.array(size, np.int32))


@jax.jit
def _count(
  least: Float[Array, 'q k'],
  most: Float[Array, 'q k'],
  masks: Float[Array, 'q h w'],
  rows: tuple[Int[Array, 's n'], Float[Array, 's n t i']],
  columns: tuple[Int[Array, 's m'], Float[Array, 's m t j']],
  counts: Int[Array, '2'],
  size: Int[Array, '2'],
) -> tuple[Int[Array, ''], Float[Array, 'q']]:
  pixel = jnp.arange(_TILE)

  def one(i: Array, found: tuple[Array, Array]) -> tuple[Array, Array]:
    y, x = i // counts[1], i % counts[1]
    part = resized((masks,), rows, columns, (y, x)).reshape(len(masks), -1)
    real = (y * _TILE + pixel < size[0])[:, None] & (x * _TILE + pixel < size[1])[None]
    unproven = ~proven(least.T, most.T, part) & real.reshape(-1)
    reach = jnp.matmul(part, unproven.astype(jnp.float32), precision=EXACT)
    return found[0] + jnp.sum(unproven), found[1] + reach

  start = jnp.zeros((), jnp.int32), jnp.zeros(len(masks))
  return jax.lax.fori_loop(0, counts[0] * counts[1], one, start)


def proven(
  least: Float[Array, 'k q'], most: Float[Array, 'k q'], masks: Float[Array, 'q p']
) -> Bool[Array, 'p']:
  """Returns the pixels whose best class is known for certain.

  Args:
    least: lower bounds of the classes' weights, at least 0.
    most: upper bounds of them.
    masks: of the proposals, at these pixels.
  """
  count, pixels = len(least), masks.shape[1]
  group = next(g for g in range(min(_GROUP, count), 0, -1) if count % g == 0)
  score = functools.partial(jnp.matmul, precision=EXACT)

  def several(i: Array, best: tuple[Array, ...]) -> tuple[Array, ...]:
    """Keeps the best lower bound of a score so far, and the two best upper bounds."""
    low, winner, high, first, second = best
    ids = i * group + jnp.arange(group)
    lows = score(jax.lax.dynamic_slice_in_dim(least, i * group, group), masks)
    highs = score(jax.lax.dynamic_slice_in_dim(most, i * group, group), masks)
    at = jnp.argmax(lows, axis=0)
    top = jnp.max(lows, axis=0)
    winner = jnp.where(top > low, ids[at], winner)
    at = jnp.argmax(highs, axis=0)
    top_high = jnp.max(highs, axis=0)
    others = jnp.arange(group)[:, None] != at[None]
    runner = jnp.max(jnp.where(others, highs, -1.0), axis=0)
    second = jnp.maximum(jnp.maximum(second, runner), jnp.minimum(high, top_high))
    first = jnp.where(top_high > high, ids[at], first)
    return jnp.maximum(low, top), winner, jnp.maximum(high, top_high), first, second

  none, nobody = jnp.full(pixels, -1.0), jnp.full(pixels, -1)
  start = none, nobody, none, nobody, none
  low, winner, high, first, second = jax.lax.fori_loop(
    0, count // group, several, start
  )
  rival = jnp.where(first == winner, second, high)
  return (low > rival * (1 + _SLACK)) | (high <= 0)
