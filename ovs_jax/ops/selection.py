"""Which proposals are painted: the rule of OVSeg's demo (its class OVSegDEMO)."""

import jax.numpy as jnp

from ovs_jax.core.types import Array, Bool, Float


def best_per_class(
  scores: Float[Array, 'q k'], valid: Bool[Array, 'q'], real: Bool[Array, 'k']
) -> Bool[Array, 'q']:
  """Marks the proposals that are the best of at least one class.

  Args:
    scores: of every class for every proposal.
    valid: proposals that can be chosen.
    real: classes that choose; ties go to the first proposal.
  """
  best = jnp.argmax(jnp.where(valid[:, None], scores, -jnp.inf), axis=0)  # k
  chosen = jnp.arange(len(valid))[:, None] == best[None]  # q k
  return jnp.any(chosen & real[None], axis=1) & valid
