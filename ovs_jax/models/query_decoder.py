"""DETR's decoder as MaskFormer uses it: queries in, one vector per proposal out.

Parameters are drawn as there: matrices by Xavier, those of queries, keys and values as
one matrix; biases of the feed-forward part within 1 / sqrt(inputs).
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from ovs_jax.core.errors import UserError
from ovs_jax.core.types import Array, Bool, Float
from ovs_jax.models.content import Content
from ovs_jax.models.layers import (
  Attention,
  layer_norm,
  linear,
  sine_position,
  torch_bias,
)

# Queries, keys and values are drawn as one matrix with three times as many outputs.
_PACKED = nn.initializers.variance_scaling(0.5, 'fan_in', 'uniform')
_CAFFE2 = nn.initializers.variance_scaling(1.0, 'fan_in', 'uniform')


class DecoderLayer(nn.Module):
  """Post-norm layer: self-attention, cross-attention, feed-forward."""

  heads: int
  feed_forward: int
  dropout: float
  dtype: Any

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b q d'],
    query: Float[Array, 'b q d'],
    memory: Float[Array, 'b n d'],
    position: Float[Array, 'b n d'],
    seen: Bool[Array, '*any q n'] | None,
    train: bool,
    heard: Bool[Array, 'q q'] | None = None,
  ) -> Float[Array, 'b q d']:
    """Updates the targets `x`; positions are added to queries and keys only.

    What a query may see of the memory, and which of the others, is `seen` and `heard`.
    """

    def drop(y: Array) -> Array:
      return nn.Dropout(self.dropout, deterministic=not train)(y)

    def attention(name: str) -> Attention:
      return Attention(self.heads, self.dtype, self.dropout, _PACKED, name=name)

    def dense(outputs: int, name: str, y: Array) -> Array:
      drawn = torch_bias(y.shape[-1])
      return linear(outputs, name=name, dtype=self.dtype, bias_init=drawn)(y)

    width = x.shape[-1]
    at = x + query
    y = attention('self_attn')(at, at, x, heard, train=train)
    x = layer_norm('norm1', self.dtype)(x + drop(y))
    y = attention('cross_attn')(x + query, memory + position, memory, seen, train=train)
    x = layer_norm('norm2', self.dtype)(x + drop(y))
    y = drop(nn.relu(dense(self.feed_forward, 'linear1', x)))
    y = dense(width, 'linear2', y)
    return layer_norm('norm3', self.dtype)(x + drop(y))


class QueryDecoder(nn.Module):
  """Turns the coarsest features into one vector per query.

  Attributes:
    num_queries: proposals per image.
    width: of the decoder.
    heads: attention heads.
    feed_forward: hidden width of the feed-forward parts.
    layers: number of decoder layers.
    dropout: rate in training: of attention weights, hidden units and all branches.
    dtype: of the computation.
    project_input: whether a layer leads from the features to the width; if not, they
      have it.
  """

  num_queries: int
  width: int
  heads: int
  feed_forward: int
  layers: int
  dropout: float
  dtype: Any
  project_input: bool = True

  @nn.compact
  def __call__(
    self,
    features: Float[Array, 'b y x c'],
    train: bool,
    content: Content | None = None,
    masks: Float[Array, 'b t h w'] | None = None,
  ) -> Float[Array, 'l b q_and_t d']:
    """Returns the normalised output of every layer; the last is the prediction.

    Args:
      features: the coarsest ones.
      train: whether dropout is active.
      content: the part that may be seen; None is all of it.
      masks: appends a pilot for each of them, a query that stands for nothing, sees
        what is under the mask, and neither hears nor is heard by the others. The idea
        is that of Mask-Piloted Transformers (Zhang et al. 2023, section 3.2).
    """
    b, y, x, _ = features.shape
    if self.num_queries < 1:
      raise UserError(f'num_queries must be at least 1, got {self.num_queries}')
    sizes, seen, heard = (y, x), None, None
    if content is not None:
      inside = content.mask((y, x))
      sizes = (jnp.sum(inside[:, 0]), jnp.sum(inside[0]))
      seen = jnp.broadcast_to(inside.reshape(1, y * x), (self.num_queries, y * x))
    memory = features.astype(self.dtype)
    if self.project_input:
      project = linear(self.width, name='input_proj', dtype=self.dtype, init=_CAFFE2)
      memory = project(memory)
    memory = memory.reshape(b, y * x, self.width)  # b n d
    position = sine_position(y, x, self.width, sizes)[None].astype(self.dtype)
    position = jnp.broadcast_to(position, memory.shape)
    query = self.param(
      'query_embed', nn.initializers.normal(1.0), (self.num_queries, self.width)
    ).astype(self.dtype)
    query = jnp.broadcast_to(query[None], (b, *query.shape))
    if masks is not None:
      count = masks.shape[1]
      query = jnp.pad(query, ((0, 0), (0, count), (0, 0)))
      everything = jnp.ones((self.num_queries, y * x), bool) if seen is None else seen
      everything = jnp.broadcast_to(everything[None], (b, *everything.shape))
      seen = jnp.concatenate([everything, under(masks, y)], axis=1)
      heard = jnp.arange(self.num_queries + count) < self.num_queries
      heard = (heard[:, None] & heard[None]) | jnp.eye(len(heard), dtype=bool)
    target, outputs = jnp.zeros_like(query), []
    norm = layer_norm('norm', self.dtype)
    for i in range(self.layers):
      target = DecoderLayer(
        self.heads, self.feed_forward, self.dropout, self.dtype, name=f'layer_{i}'
      )(target, query, memory, position, seen, train, heard)
      outputs.append(norm(target))
    return jnp.stack(outputs)


def mean_blocks(masks: Float[Array, 'b t h w'], side: int) -> Float[Array, 'b t y x']:
  """Returns the mean of every square of `side` pixels.

  Raises:
    ValueError: the sides of the masks are no multiples of it.
  """
  b, t, h, w = masks.shape
  if h % side or w % side:
    raise UserError(f'masks of {h}x{w} pixels are no squares of {side}x{side}')
  return jnp.mean(masks.reshape(b, t, h // side, side, w // side, side), axis=(3, 5))


def coverage(masks: Float[Array, 'b t h w'], rows: int) -> Float[Array, 'b t n']:
  """Returns which part of each cell of a grid of so many rows every mask covers."""
  b, t, h, _ = masks.shape
  return mean_blocks(masks, h // rows).reshape(b, t, -1)


def under(masks: Float[Array, 'b t h w'], rows: int) -> Bool[Array, 'b t n']:
  """Returns the cells that a mask half covers, or else the most covered ones."""
  part = coverage(masks, rows)
  return part >= jnp.minimum(0.5, jnp.max(part, axis=-1, keepdims=True))
