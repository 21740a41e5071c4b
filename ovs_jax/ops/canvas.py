"""Paints labelled masks a few at a time, so that memory does not grow with names.

`ops.merging` states the rules; here they run over any number of masks, and masks are
resized to the picture one by one.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.lookup import lookup
from ovs_jax.core.types import NO_LABEL, Array, Bool, Float, Int
from ovs_jax.ops import merging
from ovs_jax.ops.merging import RULES
from ovs_jax.ops.resize import EXACT, linear_matrix

_STEP = 64  # sides are padded to multiples, so that few sizes compile
State = tuple[Array, Array, Array]


class Canvas:
  """The label map of one picture while its masks come in.

  Attributes:
    size: height and width of the picture.
  """

  def __init__(
    self,
    size: tuple[int, int],
    *,
    rule: str = 'A',
    threshold: float = merging.THRESHOLD,
    by_area: bool = True,
  ) -> None:
    """Starts with a picture without labels.

    Args:
      size: height and width of the picture.
      rule: 'A', the most probable mask that claims a pixel has it; or 'B', masks are
        painted one over the other, the smallest last.
      threshold: a mask claims pixels with at least this probability.
      by_area: rule B paints from the largest mask to the smallest; else in their order.

    Raises:
      ValueError: an unknown rule, or one that paints nothing.
    """
    lookup(RULES, rule, 'merging rule')
    if rule not in 'AB':
      raise UserError(f'rule {rule} does not paint mask by mask; A and B do')
    self.size = size
    self._rule = {'A': 'best', 'B': 'smallest' if by_area else 'latest'}[rule]
    self._threshold = threshold
    self._count = 0
    h, w = (-(-side // _STEP) * _STEP for side in size)
    blank = jnp.full((h, w), NO_LABEL, jnp.int32)
    rank = jnp.full((h, w), -jnp.inf)
    self.state: State = (blank, rank, jnp.zeros((h, w)))

  def add(self, logits: Float[Any, 'n y x'], labels: Int[Any, 'n']) -> None:
    """Paints masks; those with negative labels are left out."""
    self.state = _paint(
      self.state,
      jnp.asarray(logits),
      jnp.asarray(labels),
      *resizing(self.size, logits.shape[1:]),
      np.int32(self._count),
      np.float32(self._threshold),
      self._rule,
    )
    self._count += logits.shape[0]

  def finish(self) -> tuple[Int[np.ndarray, 'h w'], Float[np.ndarray, 'h w']]:
    """Returns labels (`NO_LABEL` where there is none), and their probabilities."""
    h, w = self.size
    labels, _, scores = (np.asarray(x)[:h, :w] for x in self.state)
    return labels, scores


def resizing(
  size: tuple[int, int], source: tuple[int, ...]
) -> list[Float[np.ndarray, 'o i']]:
  """Returns bilinear weights of rows and columns, padded with rows of zeros."""
  found = []
  for length, given in zip(size, source, strict=True):
    matrix = linear_matrix(given, length)
    found.append(np.pad(matrix, ((0, -length % _STEP), (0, 0))))
  return found


# In place: the state of a large picture is larger than the masks that come in.
@functools.partial(jax.jit, static_argnums=7, donate_argnums=0)
def _paint(
  state: State,
  logits: Float[Array, 'n y x'],
  labels: Int[Array, 'n'],
  rows: Float[Array, 'h y'],
  columns: Float[Array, 'w x'],
  start: Int[Any, ''],
  threshold: Float[Any, ''],
  order: str,
) -> State:
  def one(state: State, mask: tuple[Array, Array, Array]) -> tuple[State, None]:
    logit, label, index = mask
    painted, rank, score = state
    # Resized before the threshold, so that borders are smooth.
    p = jnp.matmul(rows, jax.nn.sigmoid(logit), precision=EXACT)
    p = jnp.matmul(p, columns.T, precision=EXACT)
    claims = (p >= threshold) & (label >= 0)
    if order == 'best':
      mine = p
    elif order == 'smallest':
      mine = jnp.broadcast_to(-jnp.sum(claims).astype(jnp.float32), p.shape)
    else:
      mine = jnp.broadcast_to(index.astype(jnp.float32), p.shape)
    # Of equally probable masks the lowest label: their order plays no part.
    tie = label < painted if order == 'best' else True
    wins = claims & ((mine > rank) | ((mine == rank) & tie))
    return (
      jnp.where(wins, label, painted),
      jnp.where(wins, mine, rank),
      jnp.where(wins, p, score),
    ), None

  index = start + jnp.arange(logits.shape[0], dtype=jnp.int32)
  return jax.lax.scan(one, state, (logits, labels.astype(jnp.int32), index))[0]


def probabilities(
  logits: Float[Any, 'n y x'], size: tuple[int, int]
) -> Float[np.ndarray, 'n h w']:
  """Returns the masks' probabilities in the picture's size."""
  found = _resize(jnp.asarray(logits), *resizing(size, logits.shape[1:]))
  return np.asarray(found)[:, : size[0], : size[1]]


@jax.jit
def _resize(
  logits: Float[Array, 'n y x'], rows: Float[Array, 'h y'], columns: Float[Array, 'w x']
) -> Float[Array, 'n h w']:
  p = jnp.einsum('hy,nyx->nhx', rows, jax.nn.sigmoid(logits), precision=EXACT)
  return jnp.einsum('wx,nhx->nhw', columns, p, precision=EXACT)


def soft_labels(
  logits: Float[Any, 'n y x'],
  cosines: Float[Any, 'n c'],
  size: tuple[int, int],
  *,
  tau: float,
) -> tuple[Int[np.ndarray, 'h w'], Float[np.ndarray, 'h w']]:
  """Rule C, `merging.marginalise`, in the picture's size."""
  p = jnp.asarray(probabilities(logits, size))
  labels, scores = _marginalise(p, jnp.asarray(cosines), tau)
  return np.asarray(labels), np.asarray(scores)


def soft_weights(cosines: Float[Any, 'n c'], *, tau: float) -> Float[np.ndarray, 'n k']:
  """Returns `merging.mask_weights` on the host."""
  return np.asarray(merging.mask_weights(jnp.asarray(cosines), tau=tau))


_marginalise = jax.jit(
  lambda p, cosines, tau: merging.marginalise(p, cosines, tau=tau), static_argnums=2
)


def claims_by_label(
  logits: Float[Any, 'n y x'],
  labels: Int[np.ndarray, 'n'],
  size: tuple[int, int],
  *,
  threshold: float = merging.THRESHOLD,
) -> dict[int, Bool[np.ndarray, 'h w']]:
  """Rule D: for each label among the masks the pixels that any of them claims."""
  p = probabilities(logits, size)
  return {
    int(k): (p[labels == k] >= threshold).any(axis=0)
    for k in np.unique(labels[labels >= 0])
  }


def resize_map(
  probability: Float[np.ndarray, 'y x'], size: tuple[int, int]
) -> Float[np.ndarray, 'h w']:
  """Resizes one map of probabilities to the picture, bilinear."""
  rows = linear_matrix(probability.shape[0], size[0])
  columns = linear_matrix(probability.shape[1], size[1])
  return rows @ probability @ columns.T


def sigmoid(logits: Float[Any, '*b']) -> Float[np.ndarray, '*b']:
  """Returns probabilities on the host."""
  return np.asarray(jax.nn.sigmoid(jnp.asarray(logits)))
