"""Whether a run's numbers are finite, asked before anything of it is kept.

All processes look at the same numbers, and so come to the same answer.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding

from ovs_jax.core.content import is_finite
from ovs_jax.core.errors import UserError
from ovs_jax.core.run_checkpoints import RunCheckpoints
from ovs_jax.core.types import Array, Bool, Float
from ovs_jax.settings import Train
from ovs_jax.train.state import TrainState


class Guard:
  """Stops a run whose numbers are not finite, and says what is left of it."""

  def __init__(self, train: Train, saved: RunCheckpoints, everywhere: Sharding) -> None:
    """Takes `config.train`, the run's checkpoints, and where scalars live."""
    self._most = train.skip_not_finite
    self._saved = saved
    self._program = jax.jit(are_finite, out_shardings=everywhere)

  def check(
    self, step: int, state: TrainState, loss: Float[Array, ''], *, arrays: bool
  ) -> None:
    """Looks at a finished step; waits for it.

    Args:
      step: its number.
      state: after it.
      loss: of it.
      arrays: whether to look at parameters and optimizer, too.

    Raises:
      FloatingPointError: something is not finite.
    """
    problem = self._loss(step, state, float(loss))
    if problem is None and arrays:
      found = self._not_finite(state)
      problem = f'{found} after step {step}' if found else None
    if problem is None:
      return
    latest = self._saved.latest()
    left = 'there is no checkpoint yet'
    if latest is not None:
      left = f'the newest checkpoint is that of step {latest}, and finite'
    raise FloatingPointError(
      f'{problem}. Nothing of it was saved; {left}. The same command would come to the '
      'same: go on with a higher config.train.skip_not_finite, or begin in another '
      '--workdir= with a lower config.optimizer.learning_rate or with '
      'config.optimizer.gradient_clip'
    )

  def check_restored(self, state: TrainState) -> None:
    """Looks at what was read from a checkpoint, if anything was.

    Raises:
      ValueError: something is not finite.
    """
    step = int(state.step)
    found = self._not_finite(state) if step else None
    if found:
      raise UserError(
        f'{found} in the checkpoint {self._saved.path(step)}; delete this directory to '
        'go on from the one before it'
      )

  def _loss(self, step: int, state: TrainState, loss: float) -> str | None:
    if state.skipped is None:
      return None if math.isfinite(loss) else f'the loss is {loss} at step {step}'
    row = int(state.skipped[0])
    if row <= self._most:
      return None
    return (
      f'{row} steps in a row until step {step} were not finite, of which '
      f'config.train.skip_not_finite leaves out {self._most} at most'
    )

  def _not_finite(self, state: TrainState) -> str | None:
    """Counts the arrays that hold something that is not finite, and names one."""
    leaves = [
      (jax.tree_util.keystr(path, simple=True, separator='/'), x)
      for path, x in jax.tree_util.tree_leaves_with_path(state)
      if jnp.issubdtype(x.dtype, jnp.inexact)
    ]
    finite = self._finite([x for _, x in leaves])
    wrong = [path for (path, _), good in zip(leaves, finite, strict=True) if not good]
    if not wrong:
      return None
    return f'{len(wrong)} of {len(leaves)} arrays are not finite, such as {wrong[0]},'

  def _finite(self, leaves: list[Array]) -> Sequence[bool]:
    """Looks at arrays of this machine where they are, which needs no program."""
    own = all(x.is_fully_addressable for x in leaves)
    if own and all(d.platform == 'cpu' for d in leaves[0].devices()):
      return [is_finite(np.asarray(x)) for x in leaves]
    return np.asarray(self._program(leaves)).tolist()


def are_finite(leaves: list[Array]) -> Bool[Array, 'n']:
  """Whether arrays have neither NaN nor infinity."""
  return jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves])
