"""The evidence of all names together, for masks that each belong to a name."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.types import Array, Float, Int
from ovs_jax.ops.canvas import resizing
from ovs_jax.ops.resize import EXACT

State = tuple[Array, Array, Array]


class Total:
  """Sums over names the probability of their best mask, while masks come in.

  The masks of one name must come one after the other, within a chunk in any order.
  Masks of no name count as one more name.
  """

  def __init__(self, size: tuple[int, int]) -> None:
    """Starts without masks; `size` is the picture's height and width."""
    self.size = size
    h, w = (len(m) for m in resizing(size, (1, 1)))
    self._state: State = (jnp.int32(-2), jnp.zeros((h, w)), jnp.zeros((h, w)))

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
    _, best, total = self._state
    return np.asarray(best + total)[:h, :w]


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
    open_, best, total = state
    p = jnp.matmul(rows, jax.nn.sigmoid(logit), precision=EXACT)
    p = jnp.matmul(p, columns.T, precision=EXACT)
    same = label == open_
    total = jnp.where(same, total, total + best)
    best = jnp.where(same, jnp.maximum(best, p), p)
    return (label, best, total), None

  return jax.lax.scan(one, state, (logits, labels))[0]
