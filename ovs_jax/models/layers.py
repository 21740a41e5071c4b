"""Pieces that several models share."""

import functools
from collections.abc import Callable
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ovs_jax.core.limits import OneOf
from ovs_jax.core.types import Array, Bool, Float, Int
from ovs_jax.ops.attention import attend, attention_weights
from ovs_jax.ops.rotary import turn

# The type that a network computes in.
Dtype = Annotated[str, OneOf(('float32', 'bfloat16', 'float16'))]

# PyTorch's default for layer, group and batch norms; Flax's is 1e-6.
NORM_EPSILON = 1e-5

# bfloat16 products accumulate in float32: faster on CPUs and more accurate everywhere.
_XAVIER = nn.initializers.xavier_uniform()
_DOT = functools.partial(jax.lax.dot_general, preferred_element_type=jnp.float32)


# As PyTorch draws a linear layer: weights and biases within 1 / sqrt(inputs).
TORCH_WEIGHT = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


def torch_bias(inputs: int) -> nn.initializers.Initializer:
  """Returns what draws the biases of a linear layer as PyTorch does."""
  bound = inputs**-0.5
  return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
    key, shape, dtype, -bound, bound
  )


def linear(
  features: int | tuple[int, ...],
  *,
  name: str,
  dtype: Any,
  axis: int | tuple[int, ...] = -1,
  init: nn.initializers.Initializer = _XAVIER,
  bias_init: nn.initializers.Initializer = nn.initializers.zeros,
  use_bias: bool = True,
) -> Callable[[Array], Array]:
  """Returns a dense layer over the last axes, `axis`, that computes in `dtype`."""
  layer = nn.DenseGeneral(
    features,
    axis=axis,
    dtype=dtype,
    kernel_init=init,
    bias_init=bias_init,
    dot_general=_DOT if jnp.dtype(dtype) == jnp.float32 else _narrow_dot,
    use_bias=use_bias,
    name=name,
  )
  return lambda x: layer(x).astype(dtype)


def _narrow_dot(x: Array, kernel: Array, dimensions: Any, precision: Any) -> Array:
  del precision  # of float32 products
  (contracted, _), _ = dimensions
  return _narrow_product(x, kernel, len(contracted))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _narrow_product(
  x: Float[Array, '*b_and_c'], kernel: Float[Array, '*c_and_f'], contracted: int
) -> Float[Array, '*b_and_f']:
  """Contracts the last axes of `x`, which has less than float32, and adds up in that.

  JAX's own gradient keeps the result's float32, and GPUs then compute both products of
  the backward pass in float32, at half the rate. But the result is rounded to the type
  of `x`, and its gradient has been: nothing is lost when that is rounded again.
  """
  return jnp.tensordot(x, kernel, contracted, preferred_element_type=jnp.float32)


def _narrow_forward(x: Any, kernel: Any, contracted: int) -> tuple[Array, Any]:
  """Keeps each factor for the other's gradient, if that is asked for."""
  kept = (x.value if kernel.perturbed else None, kernel.value if x.perturbed else None)
  return _narrow_product(x.value, kernel.value, contracted), kept


def _narrow_backward(contracted: int, kept: Any, grad: Any) -> tuple[Any, Any]:
  if isinstance(grad, jax.custom_derivatives.SymbolicZero):
    return None, None
  x, kernel = kept
  of_x = of_kernel = None
  wide = functools.partial(jnp.tensordot, preferred_element_type=jnp.float32)
  if kernel is not None:
    own = tuple(range(contracted, kernel.ndim))
    out = tuple(range(grad.ndim - len(own), grad.ndim))
    of_x = wide(grad.astype(kernel.dtype), kernel, (out, own)).astype(kernel.dtype)
  if x is not None:
    batch = tuple(range(x.ndim - contracted))
    of_kernel = wide(x, grad.astype(x.dtype), (batch, batch)).astype(x.dtype)
  return of_x, of_kernel


_narrow_product.defvjp(_narrow_forward, _narrow_backward, symbolic_zeros=True)


def layer_norm(name: str, dtype: Any, epsilon: float = NORM_EPSILON) -> nn.LayerNorm:
  """Returns a layer norm, PyTorch's by default; its statistics are float32.

  The variance is that of differences from the mean: as the mean of squares less the
  square of the mean it would lose its digits where the mean is large.
  """
  return nn.LayerNorm(epsilon=epsilon, dtype=dtype, use_fast_variance=False, name=name)


def group_norm(groups: int, *, name: str, dtype: Any) -> nn.GroupNorm:
  """Returns PyTorch's group norm, with the variance of `layer_norm`."""
  return nn.GroupNorm(
    groups, epsilon=NORM_EPSILON, dtype=dtype, use_fast_variance=False, name=name
  )


def quick_gelu(x: Float[Array, '*b']) -> Float[Array, '*b']:
  """CLIP's activation, `x * sigmoid(1.702 x)`."""
  return x * jax.nn.sigmoid(1.702 * x)


def gelu(x: Float[Array, '*b']) -> Float[Array, '*b']:
  """The exact GELU, by the error function; `jax.nn.gelu` approximates it."""
  return jax.nn.gelu(x, approximate=False)


def gelu_tanh(x: Float[Array, '*b']) -> Float[Array, '*b']:
  """The GELU by a hyperbolic tangent, which SigLIP was trained with."""
  return jax.nn.gelu(x, approximate=True)


# OpenAI's CLIPs and what is derived from them have the first, others the second.
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
  'quick_gelu': quick_gelu,
  'gelu': gelu,
  'gelu_tanh': gelu_tanh,
  'relu': jax.nn.relu,
}


def sine_position(
  height: int,
  width: int,
  channels: int,
  sizes: tuple[int | Array, int | Array] | None = None,
) -> Float[Array, 'n d']:
  """DETR's normalised sine encoding of a grid, row-major, y features before x.

  Args:
    height: rows of the grid.
    width: its columns.
    channels: of the encoding.
    sizes: the rows and columns that count as the whole; None is all of them.
  """
  half = channels // 2
  exponent = 2 * (jnp.arange(half) // 2) / half
  frequency = 10000.0**exponent
  rows, columns = sizes or (height, width)

  def encode(count: int, whole: int | Array) -> Array:
    place = jnp.arange(1, count + 1) / (whole + 1e-6) * 2 * jnp.pi
    angle = place[:, None] / frequency[None, :]
    pair = jnp.stack([jnp.sin(angle[:, 0::2]), jnp.cos(angle[:, 1::2])], axis=2)
    return pair.reshape(count, half)

  y = jnp.broadcast_to(encode(height, rows)[:, None], (height, width, half))
  x = jnp.broadcast_to(encode(width, columns)[None, :], (height, width, half))
  return jnp.concatenate([y, x], axis=-1).reshape(height * width, channels)


class Attention(nn.Module):
  """Multi-head attention with separate query, key and value projections."""

  num_heads: int
  dtype: Any
  dropout: float = 0.0  # of the attention weights, in training
  # The scale is that of one d x d matrix, not of d x heads x head size.
  kernel_init: nn.initializers.Initializer = nn.initializers.variance_scaling(
    1.0, 'fan_in', 'truncated_normal'
  )
  key_bias: bool = True
  norm_epsilon: float = 0.0  # of a norm before the last projection; 0: there is none

  @nn.compact
  def __call__(
    self,
    query: Float[Array, '*b n d'],
    key: Float[Array, '*b m d'],
    value: Float[Array, '*b m d'],
    mask: Bool[Array, '*any n m'] | None = None,
    *,
    train: bool = False,
    rows: tuple[Int[Array, 'c i'], Int[Array, 'c j']] | None = None,
    angles: tuple[Float[Array, 'n p'], Float[Array, 'm p']] | None = None,
  ) -> Float[Array, 'c i d']:
    """Attends from `query` to `key`; `mask` is True where that is allowed.

    The mask is one for all, or one for each of the batch. With `rows` the inputs are
    (t, d), tokens that are projected once, wherever they are used: which of them ask,
    and which are seen. By `angles` queries and keys are turned (`ops.rotary`). The
    weights go to the collection `intermediates` where it is mutable.
    """
    width = query.shape[-1]
    heads = (self.num_heads, width // self.num_heads)
    draw = {'dtype': self.dtype, 'init': self.kernel_init}
    q = linear(heads, name='q', **draw)(query)
    k = linear(heads, name='k', use_bias=self.key_bias, **draw)(key)
    v = linear(heads, name='v', **draw)(value)
    if angles is not None:
      q, k = turn(q, angles[0]), turn(k, angles[1])
    if rows is not None:
      asking, seen = rows
      q, k, v = q[asking], k[seen], v[seen]
    if mask is not None:
      mask = mask[None, None] if mask.ndim == 2 else mask[:, None]
    if self.is_mutable_collection('intermediates'):
      self.sow('intermediates', 'weights', attention_weights(q, k, mask=mask))
    drop = None
    if train and self.dropout:
      drop = nn.Dropout(self.dropout, deterministic=False)
    mixed = attend(q, k, v, mask=mask, drop=drop)
    if self.norm_epsilon:
      norm = layer_norm('ln', self.dtype, self.norm_epsilon)
      mixed = norm(mixed.reshape(*mixed.shape[:-2], width)).reshape(mixed.shape)
    return linear(width, name='out', dtype=self.dtype, axis=(-2, -1))(mixed)


class MlpHead(nn.Module):
  """Linear layers with ReLU between them, drawn as PyTorch draws them."""

  widths: tuple[int, ...]
  dtype: Any

  @nn.compact
  def __call__(self, x: Float[Array, '*b d']) -> Float[Array, '*b e']:
    """Maps the last axis to `widths[-1]`."""
    for i, width in enumerate(self.widths):
      draw = {'init': TORCH_WEIGHT, 'bias_init': torch_bias(x.shape[-1])}
      x = linear(width, name=f'layer_{i}', dtype=self.dtype, **draw)(x)
      if i < len(self.widths) - 1:
        x = nn.relu(x)
    return x
