"""Label maps whose borders follow the photograph: votes through a guided filter.

He, Sun and Tang, "Guided Image Filtering" (2013): in every window a map is fitted by an
affine function of the photo's colours (equations 4 to 6, for colours 14 to 16), and a
pixel gets the mean of what all windows around it fitted. Here the maps are the labels,
one map per label; each pixel takes the label whose filtered map is highest.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.types import Array, Float, Int, UInt8

RADIUS = 8  # pixels
EPSILON = 1e-3  # variance of colours, in 0..1, that counts as flat
_STEP = 64  # sides are rounded up to a multiple of it, so that few programs compile


def refine(
  labels: Int[np.ndarray, 'h w'],
  image: UInt8[np.ndarray, '_ _ 3'],
  *,
  radius: int = RADIUS,
  epsilon: float = EPSILON,
) -> tuple[Int[np.ndarray, 'h w'], Float[np.ndarray, 'h w']]:
  """Moves the borders of a label map to those of the photo, and removes specks.

  Args:
    labels: any integers; no label gets in that was not there.
    image: the photo, RGB, 0..255.
    radius: of the windows in pixels, at least 1: how far borders may move.
    epsilon: variance of colours in 0..1 up to which they count as flat; above 0. Less
      follows weaker edges.

  Returns:
    The labels, and the filtered map of each pixel's label: its share of the votes, 0..1
    but for what the fit overshoots.

  Raises:
    UserError: sizes differ, or a number is out of its range.
  """
  if labels.shape != image.shape[:2]:
    raise UserError(
      f'labels of {labels.shape} (height, width) and a photo of {image.shape[:2]} do '
      'not belong together; give the photo that was segmented'
    )
  if radius < 1 or not epsilon > 0:
    raise UserError(
      f'radius {radius} and epsilon {epsilon} were given; expected at least 1 pixel '
      'and more than 0'
    )
  h, w = labels.shape
  radius = min(radius, max(h, w))  # of more, the windows are the picture anyway
  kinds, indices = np.unique(labels, return_inverse=True)
  count = 1 << (len(kinds) - 1).bit_length()  # the last ones have no pixels
  rest = ((0, -h % _STEP), (0, -w % _STEP))
  chosen, votes = _refine(
    jnp.asarray(np.pad(indices.reshape(h, w), rest, constant_values=-1), jnp.int32),
    jnp.asarray(np.pad(image, (*rest, (0, 0)))),
    epsilon,
    radius=radius,
    count=count,
  )
  return kinds[np.asarray(chosen)[:h, :w]], np.asarray(votes)[:h, :w]


@functools.partial(jax.jit, static_argnames=('radius', 'count'))
def _refine(
  labels: Int[Array, 'h w'],
  image: UInt8[Array, 'h w 3'],
  epsilon: float | Float[Array, ''],
  *,
  radius: int,
  count: int,
) -> tuple[Int[Array, 'h w'], Float[Array, 'h w']]:
  """Labels are 0..count-1, and -1 outside of the photo."""
  inside = (labels >= 0).astype(jnp.float32)[..., None]
  inverse = 1 / jnp.maximum(box_sums(inside, radius), 1)

  def mean(x: Float[Array, 'h w _']) -> Float[Array, 'h w _']:
    return box_sums(x * inside, radius) * inverse

  guide = image.astype(jnp.float32) / 255 - 0.5
  centre = mean(guide)
  pairs = [guide[..., i] * guide[..., j] for i, j in _PAIRS]
  means = mean(jnp.stack(pairs, axis=-1))
  spread = [
    means[..., n] - centre[..., i] * centre[..., j] + epsilon * (i == j)
    for n, (i, j) in enumerate(_PAIRS)
  ]
  solve = _inverse(spread)

  def vote(
    best: tuple[Int[Array, 'h w'], Float[Array, 'h w']], label: Int[Array, '']
  ) -> tuple[tuple[Int[Array, 'h w'], Float[Array, 'h w']], None]:
    votes = (labels == label).astype(jnp.float32)[..., None]
    found = mean(jnp.concatenate([votes, guide * votes], axis=-1))
    share, together = found[..., :1], found[..., 1:]
    slope = jnp.einsum('hwij,hwj->hwi', solve, together - centre * share)
    offset = share - (slope * centre).sum(axis=-1, keepdims=True)
    fitted = mean(jnp.concatenate([slope, offset], axis=-1))
    value = (fitted[..., :3] * guide).sum(axis=-1) + fitted[..., 3]
    higher = value > best[1]
    return (jnp.where(higher, label, best[0]), jnp.where(higher, value, best[1])), None

  start = (jnp.zeros_like(labels), jnp.full(labels.shape, -jnp.inf))
  return jax.lax.scan(vote, start, jnp.arange(count))[0]


_PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))


def _inverse(entries: Sequence[Float[Array, 'h w']]) -> Float[Array, 'h w 3 3']:
  """Returns the inverses of symmetric matrices, given by their entries at `_PAIRS`."""
  a, b, c, d, e, f = entries
  first, second, third = d * f - e * e, c * e - b * f, b * e - c * d
  rows = (
    (first, second, third),
    (second, a * f - c * c, b * c - a * e),
    (third, b * c - a * e, a * d - b * b),
  )
  scale = 1 / (a * first + b * second + c * third)
  return (
    jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)
    * (scale[..., None, None])
  )


def box_sums(x: Float[Array, 'h w c'], radius: int) -> Float[Array, 'h w c']:
  """Returns the sums over windows of 2 radius + 1 pixels; zeros lie outside."""
  for axis in (0, 1):
    pad = [(0, 0)] * 3
    pad[axis] = (radius, radius)
    x = _sliding_sums(jnp.pad(x, pad), 2 * radius + 1, axis)
  return x


def _sliding_sums(x: Float[Array, '_ _ c'], length: int, axis: int) -> Array:
  """Sums of `length` neighbours along an axis, from sums of 1, 2, 4, ... of them."""
  count = x.shape[axis] - length + 1
  total, start, size = 0.0, 0, 1
  while size <= length:
    if length & size:
      total += jax.lax.slice_in_dim(x, start, start + count, axis=axis)
      start += size
    ahead = jax.lax.slice_in_dim(x, size, x.shape[axis], axis=axis)
    x = jax.lax.slice_in_dim(x, 0, x.shape[axis] - size, axis=axis) + ahead
    size *= 2
  return total
