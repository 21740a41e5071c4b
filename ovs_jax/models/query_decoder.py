"""DETR's decoder as MaskFormer uses it: queries in, one vector per proposal out."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from ovs_jax.core.types import Array, Bool, Float
from ovs_jax.models.content import Content
from ovs_jax.models.layers import Attention, layer_norm, linear, sine_position


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
    seen: Bool[Array, 'q n'] | None,
    train: bool,
  ) -> Float[Array, 'b q d']:
    """Updates the targets `x`; positions are added to queries and keys only."""

    def drop(y: Array) -> Array:
      return nn.Dropout(self.dropout, deterministic=not train)(y)

    width = x.shape[-1]
    at = x + query
    y = Attention(self.heads, self.dtype, name='self_attn')(at, at, x)
    x = layer_norm('norm1', self.dtype)(x + drop(y))
    y = Attention(self.heads, self.dtype, name='cross_attn')(
      x + query, memory + position, memory, seen
    )
    x = layer_norm('norm2', self.dtype)(x + drop(y))
    y = drop(nn.relu(linear(self.feed_forward, name='linear1', dtype=self.dtype)(x)))
    y = linear(width, name='linear2', dtype=self.dtype)(y)
    return layer_norm('norm3', self.dtype)(x + drop(y))


class QueryDecoder(nn.Module):
  """Turns the coarsest features into one vector per query.

  Attributes:
    num_queries: proposals per image.
    width: of the decoder.
    heads: attention heads.
    feed_forward: hidden width of the feed-forward parts.
    layers: number of decoder layers.
    dropout: rate in training.
    dtype: of the computation.
  """

  num_queries: int
  width: int
  heads: int
  feed_forward: int
  layers: int
  dropout: float
  dtype: Any

  @nn.compact
  def __call__(
    self,
    features: Float[Array, 'b y x c'],
    train: bool,
    content: Content | None = None,
    masks: Float[Array, 'b t h w'] | None = None,
  ) -> tuple[Float[Array, 'l b q d'], Float[Array, 'b t d'] | None]:
    """Returns the normalised output of every layer; the last is the prediction.

    Args:
      features: the coarsest ones.
      train: whether dropout is active.
      content: the part that may be seen; None is all of it.
      masks: also returns what a query would see first that attends to one of these
        alone: the mean of its features, normalised like an output.
    """
    b, y, x, _ = features.shape
    if self.num_queries < 1:
      raise ValueError(f'num_queries must be at least 1, got {self.num_queries}')
    sizes, seen = (y, x), None
    if content is not None:
      inside = content.mask((y, x))
      sizes = (jnp.sum(inside[:, 0]), jnp.sum(inside[0]))
      seen = jnp.broadcast_to(inside.reshape(1, y * x), (self.num_queries, y * x))
    memory = linear(self.width, name='input_proj', dtype=self.dtype)(features)
    memory = memory.reshape(b, y * x, self.width)  # b n d
    position = sine_position(y, x, self.width, sizes)[None].astype(self.dtype)
    position = jnp.broadcast_to(position, memory.shape)
    query = self.param(
      'query_embed', nn.initializers.normal(1.0), (self.num_queries, self.width)
    ).astype(self.dtype)
    query = jnp.broadcast_to(query[None], (b, *query.shape))
    target, outputs = jnp.zeros_like(query), []
    norm = layer_norm('norm', self.dtype)
    for i in range(self.layers):
      target = DecoderLayer(
        self.heads, self.feed_forward, self.dropout, self.dtype, name=f'layer_{i}'
      )(target, query, memory, position, seen, train)
      outputs.append(norm(target))
    if masks is None:
      return jnp.stack(outputs), None
    return jnp.stack(outputs), norm(mask_pool(memory.reshape(b, y, x, -1), masks))


def mask_pool(
  features: Float[Array, 'b y x d'], masks: Float[Array, 'b t h w']
) -> Float[Array, 'b t d']:
  """Returns the mean of the features under each mask; of an empty one, of them all.

  Args:
    features: on a coarser grid.
    masks: binary; their sides are multiples of the grid's.
  """
  (b, t, h, w), (y, x) = masks.shape, features.shape[1:3]
  weight = jnp.mean(masks.reshape(b, t, y, h // y, x, w // x), axis=(3, 5))
  weight = weight + 1e-6
  weight = weight / jnp.sum(weight, axis=(2, 3), keepdims=True)
  return jnp.einsum('byxd,btyx->btd', features, weight.astype(features.dtype))
