"""The evidence of all names, and of the best two, for masks that each have a name."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.types import Array, Float, Int
from ovs_jax.ops.canvas import resizing
from ovs_jax.ops.resize import EXACT

# The name whose masks come in, and its best mask; the sum over the names before, the
# highest of them, whose it is, and the second highest.
State = tuple[Array, Array, Array, Array, Array, Array]


class Total:
  """Sums over names the probability of their best mask, while masks come in.

  The masks of one name must come one after the other, within a chunk in any order.
  Masks of no name count as one more name in the sum.
  """

  def __init__(self, size: tuple[int, int]) -> None:
    """Starts without masks; `size` is the picture's height and width."""
    self.size = size
    h, w = (len(m) for m in resizing(size, (1, 1)))
    nothing, nobody = jnp.zeros((4, h, w)), jnp.full((h, w), -1, jnp.int32)
    best, total, first, second = nothing
    self._state: State = (jnp.int32(-1), best, total, first, nobody, second)

  def add(self, logits: Float[Any, 'n y x'], labels: Int[np.ndarray, 'n']) -> None:
    """Takes some of the masks, and the names that they belong to."""
    first = {label: i for i, label in reversed(list(enumerate(labels.tolist())))}
    order = np.argsort([first[label] for label in labels.tolist()], kind='stable')
    self._state = _add(
      self._state,
      jnp.asarray(logits)[order],
      jnp.asarray(labels[order].astype(np.int32)),
      *resizing(self.size, logits.shape[1:]),
    )

  def finish(self) -> Float[np.ndarray, 'h w']:
    """Returns the sum at every pixel."""
    h, w = self.size
    return np.asarray(_close(self._state)[0])[:h, :w]

  def others(self, labels: Int[np.ndarray, 'h w']) -> Float[np.ndarray, 'h w']:
    """Returns the probability of the best mask of another name than the pixel's."""
    h, w = self.size
    _, first, owner, second = (np.asarray(x)[:h, :w] for x in _close(self._state))
    return np.where(owner == labels, second, first)


@functools.partial(jax.jit, donate_argnums=0)
def _add(
  state: State,
  logits: Float[Array, 'n y x'],
  labels: Int[Array, 'n'],
  rows: Float[Array, 'h y'],
  columns: Float[Array, 'w x'],
) -> State:
  def one(state: State, mask: tuple[Array, Array]) -> tuple[State, None]:
    logit, label = mask
    open_, best, *before = state
    p = jnp.matmul(rows, jax.nn.sigmoid(logit), precision=EXACT)
    p = jnp.matmul(p, columns.T, precision=EXACT)
    same = label == open_
    closed = zip(before, _close(state), strict=True)
    before = [jnp.where(same, old, new) for old, new in closed]
    best = jnp.where(same, jnp.maximum(best, p), p)
    return (label, best, *before), None

  return jax.lax.scan(one, state, (logits, labels))[0]


@jax.jit
def _close(state: State) -> tuple[Array, Array, Array, Array]:
  """Counts the name that is open among those before."""
  label, best, total, first, owner, second = state
  named = jnp.where(label >= 0, best, 0)
  wins = named > first
  return (
    total + best,
    jnp.maximum(first, named),
    jnp.where(wins, label, owner),
    jnp.maximum(second, jnp.where(wins, first, named)),
  )
