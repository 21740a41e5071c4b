"""CLIPSeg's decoder: activations of CLIP and a condition in, one mask per condition."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Any

import flax.linen as nn
import jax.numpy as jnp

from ovs_jax.core.errors import UserError
from ovs_jax.core.flops import recomputes
from ovs_jax.core.limits import Natural, OneOf, Rate, Size
from ovs_jax.core.lookup import lookup
from ovs_jax.core.types import Array, Bool, Float
from ovs_jax.models.layers import Attention, gelu, layer_norm, linear

_CHOICES = {
  'order': ('deep_first', 'shallow_first'),
  'film_position': ('before', 'after'),
  'head': ('simple', 'complex'),
}


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
  """How masks are decoded; CLIPSeg's and CoSeg's descriptions differ (`PRESETS`).

  Attributes:
    reduce_dim: D, the width of the decoder.
    heads: attention heads of its blocks.
    mlp: hidden units of its blocks.
    extract: 0-based blocks of CLIP whose activations are read, ascending.
    order: which activation comes first: the one of the deepest block, as in CLIPSeg,
      or of the shallowest.
    film_steps: steps at which the condition acts; 0 is the first.
    film_position: 'before' a step's block (CLIPSeg) or 'after' it (CoSeg).
    film_shared: whether all those steps share one pair of linear maps.
    keep_class: whether the class token goes through the blocks.
    head: 'simple' (one transposed convolution) or 'complex' (a convolution and two).
    strides: of the transposed convolutions; their product is the upsampling. CLIPSeg
      writes (4, 4) for patches of 16.
    dropout: rate in training, as in PyTorch's encoder layer.
  """

  reduce_dim: Size
  heads: Size
  mlp: Size
  extract: tuple[Natural, ...]
  order: Annotated[str, OneOf(_CHOICES['order'])]
  film_steps: tuple[Natural, ...]
  film_position: Annotated[str, OneOf(_CHOICES['film_position'])]
  film_shared: bool
  keep_class: bool
  head: Annotated[str, OneOf(_CHOICES['head'])]
  strides: tuple[Size, ...]
  dropout: Rate

  def __post_init__(self) -> None:
    for name, choices in _CHOICES.items():
      lookup(dict.fromkeys(choices), getattr(self, name), f'decoder {name}')
    if not self.extract or list(self.extract) != sorted(set(self.extract)):
      raise UserError(f'extract {self.extract} must be ascending blocks of CLIP')
    if any(not 0 <= step < len(self.extract) for step in self.film_steps):
      raise UserError(
        f'film_steps {self.film_steps} must be steps of {len(self.extract)}, from 0'
      )
    if self.reduce_dim % self.heads:
      raise UserError(
        f'reduce_dim {self.reduce_dim} is not a multiple of {self.heads} heads'
      )
    count = 1 if self.head == 'simple' else 2
    if len(self.strides) != count:
      raise UserError(
        f'the {self.head} head has {count} transposed convolutions, strides are '
        f'{self.strides}'
      )

  @classmethod
  def from_dict(cls, config: Mapping[str, Any]) -> 'DecoderConfig':
    """Reads fields as JSON has them, with lists in place of tuples."""
    lists = {k: tuple(v) for k, v in config.items() if isinstance(v, list | tuple)}
    return cls(**{**config, **lists})


_CLIPSEG = DecoderConfig(
  reduce_dim=64,
  heads=4,
  mlp=2048,
  # The class default and the released usage; its training files say 3, 7, 9.
  extract=(3, 6, 9),
  order='deep_first',
  film_steps=(0,),
  film_position='before',
  film_shared=True,
  keep_class=True,
  head='simple',
  strides=(16,),
  dropout=0.1,
)
PRESETS: dict[str, DecoderConfig] = {
  'rd64': _CLIPSEG,
  'rd64_refined': dataclasses.replace(_CLIPSEG, head='complex', strides=(4, 4)),
  'rd16': dataclasses.replace(_CLIPSEG, reduce_dim=16),
  # CoSeg, section 3.2: condition after every block, one pair of maps, no class token.
  'coseg': dataclasses.replace(
    _CLIPSEG,
    reduce_dim=128,
    film_steps=(0, 1, 2),
    film_position='after',
    keep_class=False,
    head='complex',
    strides=(4, 4),
  ),
}


def tiny(preset: str) -> DecoderConfig:
  """Returns sizes for the tiny CLIP: four blocks, and patches of 8."""
  return dataclasses.replace(
    PRESETS[preset],
    reduce_dim=32,
    mlp=128,
    extract=(0, 1, 3),
    strides=strides_for(8, PRESETS[preset].head),
    dropout=0.0,
  )


def strides_for(patch: int, head: str) -> tuple[int, ...]:
  """Returns strides whose product is the patch, the first at least the second."""
  if head == 'simple':
    return (patch,)
  last = max(i for i in range(1, math.isqrt(patch) + 1) if patch % i == 0)
  return (patch // last, last)


class EncoderBlock(nn.Module):
  """PyTorch's encoder layer: self-attention and feed-forward, post-norm by default.

  Attributes:
    heads: attention heads.
    mlp: hidden units.
    dropout: rate in training: of attention weights, hidden units and both branches.
    dtype: of the computation.
    pre_norm: whether norms come before the branches, with GELU in place of ReLU.
  """

  heads: int
  mlp: int
  dropout: float
  dtype: Any
  pre_norm: bool = False

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b n d'],
    mask: Bool[Array, 'n n'] | None = None,
    *,
    train: bool = False,
  ) -> Float[Array, 'b n d']:
    """Runs the block; `mask` is True where attention is allowed, None everywhere."""

    def drop(y: Array) -> Array:
      return nn.Dropout(self.dropout, deterministic=not train)(y)

    first, second = (layer_norm(f'ln_{i}', self.dtype) for i in (1, 2))
    y = first(x) if self.pre_norm else x
    attention = Attention(self.heads, self.dtype, self.dropout, name='attn')
    x = x + drop(attention(y, y, y, mask, train=train))
    x = x if self.pre_norm else first(x)
    y = second(x) if self.pre_norm else x
    y = linear(self.mlp, name='c_fc', dtype=self.dtype)(y)
    y = drop(gelu(y) if self.pre_norm else nn.relu(y))
    x = x + drop(linear(x.shape[-1], name='c_proj', dtype=self.dtype)(y))
    return x if self.pre_norm else second(x)


class UpConv(nn.Module):
  """A transposed convolution whose kernel is its stride.

  Nothing overlaps: each cell becomes stride x stride cells by a linear map.
  """

  features: int
  stride: int
  dtype: Any

  @nn.compact
  def __call__(self, x: Float[Array, 'b y x c']) -> Float[Array, 'b Y X d']:
    """Enlarges both sides by the stride."""
    b, height, width, channels = x.shape
    s = self.stride
    init = nn.initializers.variance_scaling(1.0, 'fan_in', 'uniform', in_axis=0)
    kernel = self.param('kernel', init, (channels, s, s, self.features))
    bias = self.param('bias', nn.initializers.zeros_init(), (self.features,))
    x = jnp.einsum(
      'byxc,cijo->byixjo',
      x,
      kernel.astype(self.dtype),
      preferred_element_type=jnp.float32,
    ).astype(self.dtype)
    x = x.reshape(b, height * s, width * s, self.features)
    return x + bias.astype(self.dtype).reshape(1, 1, 1, -1)


class Head(nn.Module):
  """From a grid of tokens to one logit per pixel."""

  config: DecoderConfig
  dtype: Any

  @nn.compact
  def __call__(self, x: Float[Array, 'b y x d']) -> Float[Array, 'b h w']:
    """Upsamples by the product of the strides."""
    c = self.config
    if c.head == 'complex':
      conv = nn.Conv(c.reduce_dim, (3, 3), padding=1, dtype=self.dtype, name='conv')
      x = nn.relu(conv(x))
      x = nn.relu(UpConv(c.reduce_dim // 2, c.strides[0], self.dtype, name='up')(x))
    x = UpConv(1, c.strides[-1], self.dtype, name='out')(x)
    return x[..., 0].astype(jnp.float32)


class ClipSegDecoder(nn.Module):
  """Decodes one mask for every image and condition.

  Attributes:
    config: how masks are decoded.
    dtype: of the computation; parameters are float32.
    remat: whether blocks and head are computed again in the backward pass, which are
      large: they run once for every image and condition.
  """

  config: DecoderConfig
  dtype: Any
  remat: bool = False

  @nn.compact
  def __call__(
    self,
    activations: tuple[Float[Array, 'b n e'], ...],
    condition: Float[Array, 'b k d'],
    grid: tuple[int, int],
    *,
    train: bool = False,
  ) -> Float[Array, 'b k h w']:
    """Returns logits at the patches' size times the head's strides.

    What does not depend on the condition is computed once per image: the reductions,
    and the first block where the condition acts after it.

    Args:
      activations: of CLIP's blocks `config.extract`, class token first.
      condition: embeddings that say what to segment, not normalised.
      grid: patches per column and row.
      train: whether to drop units out.
    """
    c = self.config
    b, k, _ = condition.shape
    if c.order == 'deep_first':
      activations = activations[::-1]

    def run(block: EncoderBlock, x: Array) -> Array:
      return block(x, train=train)

    run = nn.remat(run) if recomputes(self.remat) else run
    start = 0 if c.keep_class else 1
    films = self._films()
    x = None  # b 1 n d until the condition has acted, then b k n d
    for step, activation in enumerate(activations):
      tokens = activation[:, start:].astype(self.dtype)
      y = linear(c.reduce_dim, name=f'reduce_{step}', dtype=self.dtype)(tokens)
      x = y[:, None] if x is None else x + y[:, None]
      acts = step in c.film_steps
      if acts and c.film_position == 'before':
        x = _film(x, condition, films[step])
      block = EncoderBlock(c.heads, c.mlp, c.dropout, self.dtype, name=f'block_{step}')
      x = run(block, x.reshape(-1, *x.shape[2:])).reshape(x.shape)
      if acts and c.film_position == 'after':
        x = _film(x, condition, films[step])
    x = jnp.broadcast_to(x, (b, k, *x.shape[2:]))
    x = x[:, :, 1 - start :].reshape(b * k, *grid, c.reduce_dim)
    head = nn.remat(Head) if recomputes(self.remat) else Head
    x = head(c, self.dtype, name='head')(x)
    return x.reshape(b, k, *x.shape[1:])

  def _films(self) -> dict[int, tuple[Any, Any]]:
    """Returns the two linear maps of the condition for each step that has them."""
    c = self.config
    maps: dict[int, tuple[Any, Any]] = {}
    for step in c.film_steps:
      if maps and c.film_shared:
        maps[step] = maps[c.film_steps[0]]
        continue
      suffix = '' if c.film_shared else f'_{step}'
      maps[step] = tuple(
        linear(c.reduce_dim, name=f'{name}{suffix}', dtype=self.dtype)
        for name in ('film_mul', 'film_add')
      )
    return maps


def _film(
  x: Float[Array, 'b m n d'], condition: Float[Array, 'b k e'], maps: tuple[Any, Any]
) -> Float[Array, 'b k n d']:
  """Multiplies by and adds what two linear maps make of the condition."""
  scale, shift = (f(condition.astype(x.dtype))[:, :, None] for f in maps)
  return x * scale + shift


def init_decoder(
  config: DecoderConfig, key: Array, *, width: int, embed_dim: int
) -> Any:
  """Returns freshly drawn parameters.

  Args:
    config: its sizes.
    key: of the draw.
    width: of CLIP's vision tower.
    embed_dim: of the conditions.
  """
  tokens = tuple(jnp.zeros((1, 2, width)) for _ in config.extract)
  condition = jnp.zeros((1, 1, embed_dim))
  decoder = ClipSegDecoder(config, jnp.float32)
  return decoder.init(key, tokens, condition, (1, 1))['params']
