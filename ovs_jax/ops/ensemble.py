"""From two classifiers per proposal to one score per class (OVSeg, section 3.1)."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ovs_jax.core.errors import UserError
from ovs_jax.core.types import Array, Bool, Float
from ovs_jax.ops.resize import EXACT

TEMPERATURE = 100.0  # 1 / 0.01, the papers' tau; fixed, not learned
CLASSIFIERS = ('ensemble', 'clip', 'proposer')


def class_logits(
  embeddings: Float[Array, '*b d'],
  text: Float[Array, 'k d'],
  temperature: float | Float[Array, ''] = TEMPERATURE,
) -> Float[Array, '*b k']:
  """Cosines times the temperature.

  Args:
    embeddings: of proposals or regions, any length.
    text: L2-normalised class embeddings.
    temperature: its inverse, as the papers have it.
  """
  unit = embeddings / jnp.linalg.norm(embeddings, axis=-1, keepdims=True)
  return temperature * jnp.matmul(unit, text.T, precision=EXACT)


def check_weights(weights: Sequence[float], count: int) -> None:
  """Raises ValueError unless weights can be those of several CLIPs.

  Args:
    weights: of their probabilities; none is right for any number.
    count: of the CLIPs.
  """
  if weights and (
    len(weights) != count or min(weights) < 0 or not 0 < sum(weights) < math.inf
  ):
    told = ', '.join(f'{weight:g}' for weight in weights)
    raise UserError(
      f'clip_weights are {told}; expected {count}, one for each CLIP, none of them '
      'below 0 and not all 0 (the first is of the CLIP that the proposer was trained '
      'with)'
    )


def average(
  logits: Float[Array, 'm *b k'], weights: Sequence[float]
) -> Float[Array, '*b k']:
  """Returns logits whose softmax is the weighted mean of several softmaxes.

  One of -inf, for a class that plays no part, stays so.

  Args:
    logits: of each classifier, over the same classes.
    weights: of the classifiers; at least 0, in sum 1.
  """
  if len(logits) == 1:
    return logits[0]
  shares = jnp.asarray(weights).reshape(-1, *(1,) * (logits.ndim - 1))
  return jax.nn.logsumexp(jax.nn.log_softmax(logits, axis=-1), axis=0, b=shares)


def combine(
  proposer_logits: Float[Array, '*b q k1'],
  clip_logits: Float[Array, '*b q k'],
  valid: Bool[Array, '*b q'],
  *,
  classifier: str,
  weight: float,
) -> Float[Array, '*b q k']:
  """Returns the class weight of every proposal.

  The proposer's softmax includes "no object" (the last column), so its rows sum to at
  most 1; CLIP's runs over the classes alone. The product is not renormalised.

  Args:
    proposer_logits: K + 1 columns, the last one "no object".
    clip_logits: K columns.
    valid: proposals with any pixel above the mask threshold.
    classifier: 'ensemble' gives p_proposer^(1-weight) * p_clip^weight, in which an
      invalid proposal has p_clip = 1; 'clip' gives p_clip and drops invalid
      proposals; 'proposer' gives p_proposer.
    weight: lambda, in 0..1. At 0 the official code means CLIP alone, not the
      proposer alone, and so does 'ensemble' here.
  """
  if classifier not in CLASSIFIERS:
    raise UserError(
      f'unknown classifier {classifier!r}; known: {", ".join(CLASSIFIERS)}'
    )
  if not 0 <= weight <= 1:
    raise UserError(f'the ensemble weight must lie in 0..1, got {weight}')
  proposer = jax.nn.softmax(proposer_logits, axis=-1)[..., :-1]
  if classifier == 'proposer':
    return proposer
  clip = jax.nn.softmax(clip_logits, axis=-1)
  if classifier == 'clip' or weight == 0:
    return jnp.where(valid[..., None], clip, 0.0)
  clip = jnp.where(valid[..., None], clip, 1.0)
  return proposer ** (1 - weight) * clip**weight


def fuse(
  weights: Float[Array, 'q k'], masks: Float[Array, 'q h w']
) -> Float[Array, 'k h w']:
  """Sums the soft masks of all proposals, each with its class weights."""
  return jnp.einsum('qk,qhw->khw', weights, masks, precision=EXACT)
