"""Attention, by whichever implementation fits the device and the shapes."""

import re
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ovs_jax.core.errors import UserError
from ovs_jax.core.lookup import lookup
from ovs_jax.core.types import Array, Bool, Float

IMPLEMENTATIONS = ('einsum', 'xla', 'cudnn')
# Finite, as in `jax.nn`: minus infinity would give NaN where nothing may be seen.
_HIDDEN = -0.7 * float(jnp.finfo(jnp.float32).max)
_LARGEST_HEAD = 128  # that cuDNN takes on every GPU from compute capability 8.0 on
# Queries above which a CPU takes them in parts, and how many in each: what is in its
# cache then stays there. A third of the time for the 257 tokens of a ViT-L/14.
_MANY, _PART = 256, 144


def attend(
  q: Float[Array, '*b n h d'],
  k: Float[Array, '*b m h d'],
  v: Float[Array, '*b m h d'],
  *,
  mask: Bool[Array, '*#b #h n m'] | None = None,
  bias: Float[Array, '*#b #h n m'] | None = None,
  drop: Callable[[Array], Array] | None = None,
  implementation: str | None = None,
) -> Float[Array, '*b n h d']:
  """Returns the mean of `v` under the softmax of `q @ k / sqrt(d) + bias`.

  Scores and softmax are float32, whatever the type of `q`. A query that may see nothing
  gets the mean of all values.

  Without an `implementation`, NVIDIA's GPUs run cuDNN's fused kernel, which never holds
  the n x m weights, for what it takes: bfloat16 or float16, heads of at most 128 that
  are a multiple of 8, no bias and no dropout. Odd lengths are padded for it, since its
  gradient takes even ones only. Everything else, and so all of float32, is 'einsum'.

  Args:
    q: queries, not scaled.
    k: keys.
    v: values.
    mask: True where a query may see a key; of the rank of `q`.
    bias: added to the scores; of the rank of `q`.
    drop: applied to the weights, for dropout.
    implementation: 'einsum', two products with a softmax between them; 'xla' or
      'cudnn', those of `jax.nn.dot_product_attention`; None chooses.

  Raises:
    ValueError: an unknown implementation, or one that cannot do what is asked.
  """
  fused = _cudnn_takes(q, bias, drop)
  name = implementation or ('cudnn' if fused else 'einsum')
  lookup(dict.fromkeys(IMPLEMENTATIONS), name, 'implementation of attention')
  if name == 'einsum':
    return _products(q, k, v, mask, bias, drop)
  if drop is not None or (name == 'cudnn' and not fused):
    raise UserError(
      f'the attention {name!r} cannot do this (queries {q.shape} and keys {k.shape} of '
      f'{q.dtype}, {"no" if bias is None else "a"} bias, '
      f'{"no" if drop is None else "with"} dropout, on {jax.default_backend()}); leave '
      "`implementation` out, or take 'einsum'"
    )
  return _library(q, k, v, mask, bias, name)


def _products(
  q: Array,
  k: Array,
  v: Array,
  mask: Array | None,
  bias: Array | None,
  drop: Callable[[Array], Array] | None,
) -> Array:
  count = q.shape[-3]
  if count > _MANY and drop is None and jax.default_backend() == 'cpu':
    size = -(-count // -(-count // _PART))

    def part(x: Array | None, start: int) -> Array | None:
      return None if x is None else x[..., start : start + size, :]

    found = [
      _products(q[..., i : i + size, :, :], k, v, part(mask, i), part(bias, i), None)
      for i in range(0, count, size)
    ]
    return jnp.concatenate(found, axis=-3)
  scores, total = _scores(q, k, mask, bias), None
  if drop is None:
    # Divided behind the product, where there are fewer numbers: on CPUs half the time.
    highest = jnp.max(scores, axis=-1, keepdims=True)
    weights = jnp.exp(scores - jax.lax.stop_gradient(highest))
    total = jnp.sum(weights, axis=-1, keepdims=True)
    weights = weights.astype(q.dtype)
  else:
    weights = drop(jax.nn.softmax(scores, axis=-1).astype(q.dtype))
  mixed = jnp.einsum(
    '...hnm,...hmd->...hnd',
    weights,
    jnp.swapaxes(v, -3, -2),
    preferred_element_type=jnp.float32,
  )
  mixed = (mixed if total is None else mixed / total).astype(q.dtype)
  return jnp.swapaxes(mixed, -3, -2)


def attention_weights(
  q: Float[Array, '*b n h d'],
  k: Float[Array, '*b m h d'],
  *,
  mask: Bool[Array, '*#b #h n m'] | None = None,
  bias: Float[Array, '*#b #h n m'] | None = None,
) -> Float[Array, '*b h n m']:
  """Returns the softmax of `q @ k / sqrt(d) + bias`, in float32.

  Args:
    q: queries, not scaled.
    k: keys.
    mask: True where a query may see a key; of the rank of `q`.
    bias: added to the scores; of the rank of `q`.
  """
  return jax.nn.softmax(_scores(q, k, mask, bias), axis=-1)


def _scores(q: Array, k: Array, mask: Array | None, bias: Array | None) -> Array:
  # Heads first, as batched products want them: XLA's own way there takes CPUs longer.
  q, k = (jnp.swapaxes(x, -3, -2) for x in (q, k))
  scores = jnp.einsum(
    '...hnd,...hmd->...hnm',
    q * (q.shape[-1] ** -0.5),
    k,
    preferred_element_type=jnp.float32,
  )
  if bias is not None:
    scores = scores + bias
  if mask is not None:
    scores = jnp.where(mask, scores, _HIDDEN)
  return scores


def _cudnn_takes(
  q: Array, bias: Array | None, drop: Callable[[Array], Array] | None
) -> bool:
  """Whether cuDNN has a kernel for this, forward and backward, on this device."""
  if jax.default_backend() != 'gpu' or bias is not None or drop is not None:
    return False
  # '9.0' of an NVIDIA GPU; others say something else, such as 'gfx90a'.
  capability = str(getattr(jax.local_devices()[0], 'compute_capability', ''))
  version = re.fullmatch(r'(\d+)\.\d+', capability)
  return (
    version is not None
    and int(version[1]) >= 8
    and q.dtype in (jnp.bfloat16, jnp.float16)
    and q.shape[-1] % 8 == 0
    and q.shape[-1] <= _LARGEST_HEAD
  )


def _library(
  q: Array, k: Array, v: Array, mask: Array | None, bias: Array | None, name: str
) -> Array:
  """Attends by JAX's own function, which takes a single batch dimension."""

  def merged(x: Array | None) -> Array | None:
    if x is None:
      return None
    lead = q.shape[:-3] if max(x.shape[:-3], default=1) > 1 else x.shape[:-3]
    return jnp.broadcast_to(x, (*lead, *x.shape[-3:])).reshape(-1, *x.shape[-3:])

  if name == 'cudnn':
    out = _cudnn(merged(q), merged(k), merged(v), merged(mask))
  else:
    out = jax.nn.dot_product_attention(
      merged(q), merged(k), merged(v), merged(bias), merged(mask), implementation=name
    )
  return out.reshape(q.shape)


def _cudnn(q: Array, k: Array, v: Array, mask: Array | None) -> Array:
  """Attends by cuDNN's kernel; an odd length is padded with one more query or key.

  The gradient of JAX's function refuses odd lengths. The key lies beyond the length
  that cuDNN is told; the output of the query is dropped, so it has no gradient.
  """
  n, m = q.shape[1], k.shape[1]
  query, key = n % 2, m % 2

  def longer(x: Array, axis: int, rows: int, value: bool | float = 0.0) -> Array:
    widths = [(0, rows * (i == axis)) for i in range(x.ndim)]
    return jnp.pad(x, widths, constant_values=value) if rows else x

  if mask is not None:
    mask = longer(longer(mask, 2, query, True), 3, key, False)
  out = jax.nn.dot_product_attention(
    longer(q, 1, query),
    longer(k, 1, key),
    longer(v, 1, key),
    mask=mask,
    key_value_seq_lengths=jnp.full(len(k), m, jnp.int32) if key else None,
    implementation='cudnn',
  )
  return out[:, :n]
