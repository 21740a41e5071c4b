"""CLIP's contrastive loss over a large batch, without the square of its logits.

`ops.losses.contrastive_loss` is the plain form; this one goes over columns of logits in
chunks, forward and backward. Each chunk serves both directions: it adds to every row's
log-sum and completes its own columns'. On several devices the rows are spread over
them, so that a device holds (batch / devices) x chunk logits.
"""

import jax
import jax.numpy as jnp

from ovs_jax.core.errors import UserError
from ovs_jax.core.flops import recomputes
from ovs_jax.core.lookup import lookup
from ovs_jax.core.types import Array, Bool, Float, Int
from ovs_jax.ops.resize import EXACT

# What crops of one noun are to each other; the first is CLIP's and OVSeg's.
DUPLICATES = ('negatives', 'ignored', 'positives')
_NEVER = -1e30  # a logit that takes no part; finite, so that its gradient is 0


def grouped_contrastive_loss(
  image: Float[Array, 'b d'],
  text: Float[Array, 'b d'],
  scale: Float[Array, ''],
  groups: Int[Array, 'b'],
  *,
  duplicates: str = 'negatives',
  chunk: int = 0,
) -> tuple[Float[Array, ''], Float[Array, '']]:
  """Symmetric InfoNCE over the batch, and the share of right matches.

  Args:
    image: L2-normalised embeddings; row i belongs to row i of `text`.
    text: L2-normalised embeddings.
    scale: multiplies the cosines (the exponential of CLIP's `logit_scale`).
    groups: the noun of every row, by any number; only equality counts.
    duplicates: what other rows of the same noun are. 'negatives', as in CLIP and
      OVSeg; 'ignored', they take no part; 'positives', the probabilities of all rows of
      the noun are added before the logarithm.
    chunk: columns of logits at once; 0 or more than the batch: all.

  Raises:
    ValueError: the batch is no multiple of `chunk`, or `duplicates` is unknown.
  """
  count = image.shape[0]
  chunk = min(chunk, count) or count
  if count % chunk:
    raise UserError(
      f'a batch of {count} pairs is no multiple of the {chunk} columns of the loss; '
      'change config.adapt.loss_chunk'
    )
  lookup(dict.fromkeys(DUPLICATES), duplicates, 'treatment of duplicates')
  rows = jnp.arange(count)

  def step(carry: tuple[Array, ...], start: Array) -> tuple[tuple[Array, ...], Array]:
    """One chunk of columns; carries each row's sums, adds up the columns' losses."""
    every, own, best, where = carry
    columns = start + jnp.arange(chunk)
    part = jax.lax.dynamic_slice_in_dim(text, start, chunk)
    logits = scale * jnp.matmul(image, part.T, precision=EXACT)  # b c
    same = groups[:, None] == jax.lax.dynamic_slice_in_dim(groups, start, chunk)[None]
    diagonal = rows[:, None] == columns[None]
    among, right = _parts(logits, same, diagonal, duplicates)
    every = jnp.logaddexp(every, jax.nn.logsumexp(among, axis=1))
    own = jnp.logaddexp(own, jax.nn.logsumexp(right, axis=1))
    down = jax.nn.logsumexp(among, axis=0) - jax.nn.logsumexp(right, axis=0)
    top, place = jnp.max(logits, axis=1), columns[jnp.argmax(logits, axis=1)]
    where = jnp.where(top > best, place, where)
    best = jnp.maximum(best, jax.lax.stop_gradient(top))
    return (every, own, best, where), jnp.sum(down)

  start = jnp.full((count,), _NEVER, jnp.float32)
  carry = (start, start, start, jnp.zeros((count,), rows.dtype))
  # Logits are computed again on the way back.
  turn = jax.checkpoint(step) if recomputes(True) else step
  starts = jnp.arange(0, count, chunk)
  (every, own, _, where), downs = jax.lax.scan(turn, carry, starts)
  loss = (jnp.mean(every - own) + jnp.sum(downs) / count) / 2
  return loss, jnp.mean(where == rows)


def _parts(
  logits: Float[Array, 'b c'],
  same: Bool[Array, 'b c'],
  diagonal: Bool[Array, 'b c'],
  duplicates: str,
) -> tuple[Float[Array, 'b c'], Float[Array, 'b c']]:
  """Returns the logits that compete and those that are right.

  Those that take no part are `_NEVER`, next to minus infinity.
  """
  right = same if duplicates == 'positives' else diagonal
  among = logits
  if duplicates == 'ignored':
    among = jnp.where(same & ~diagonal, _NEVER, logits)
  return among, jnp.where(right, logits, _NEVER)
