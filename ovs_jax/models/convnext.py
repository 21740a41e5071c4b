"""ConvNeXt (Liu et al., 2022) as the image tower of a CLIP: a map of features."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from ovs_jax.core.flops import recomputes
from ovs_jax.core.types import Array, Bool, Float
from ovs_jax.models.clip_blocks import Tower
from ovs_jax.models.clip_config import ImageTower
from ovs_jax.models.clip_vision import check_size
from ovs_jax.models.layers import ACTIVATIONS, layer_norm, linear
from ovs_jax.models.pooled_vision import mean_of
from ovs_jax.ops.depthwise import depthwise


class ConvNextVision(nn.Module):
  """Embeds images of any size: there are no positions, no tokens and no mask prompts.

  Attributes:
    tower: of the last stage; each stage before is half as wide.
    stride: pixels of a side that become one place of the map.
    image_size: side of the input in pixels.
    embed_dim: of the joint image-text space.
    kind: what is computed.
  """

  tower: Tower
  stride: int
  image_size: int
  embed_dim: int
  kind: ImageTower

  def setup(self) -> None:
    """Makes the layers, in the order in which data flows through them."""
    t, depths = self.tower, self.kind.stages
    widths = [t.width >> i for i in reversed(range(len(depths)))]
    self.conv1 = nn.Conv(widths[0], (4, 4), (4, 4), 'VALID', dtype=t.dtype)
    self.ln_pre = layer_norm('ln_pre', t.dtype, t.epsilon)
    self.stages = [
      Stage(
        dataclasses.replace(t, width=width, mlp=4 * width, layers=depth),
        halves=i > 0,
        name=f'stage_{i}',
      )
      for i, (width, depth) in enumerate(zip(widths, depths, strict=True))
    ]
    self.ln_post = layer_norm('ln_post', jnp.float32, t.epsilon)
    if self.kind.projection == 'mlp':
      self.c_fc = linear(2 * self.embed_dim, name='c_fc', dtype=jnp.float32)
    draw = {'dtype': jnp.float32, 'use_bias': False}
    self.c_proj = linear(self.embed_dim, name='c_proj', **draw)

  def __call__(
    self, image: Float[Array, 'b h w 3'], keep: Bool[Array, 'b n'] | None = None
  ) -> Float[Array, 'b d']:
    """Embeds an image; `keep` has no meaning without mask prompts.

    Arguments, result and errors are those of `ClipVision`.
    """
    return self.pooled(self.encode(image, keep))[:, 0]

  def encode(
    self,
    image: Float[Array, 'b h w 3'],
    keep: Bool[Array, 'b n'] | None = None,
    *,
    resize: bool = False,
  ) -> Float[Array, 'b n e']:
    """Returns the map's places, row-major, before the last norm.

    Args:
      image: RGB, normalised.
      keep: has no meaning here.
      resize: whether images of other sizes are welcome; both sides are multiples of
        the stride.

    Raises:
      ValueError: the image is of another size, or does not fit the stride.
    """
    del keep
    check_size(image, self.stride, self.image_size, resize=resize)
    x = self.ln_pre(self.conv1(image.astype(self.tower.dtype)))
    for stage in self.stages:
      x = stage(x)
    return x.reshape(len(x), -1, x.shape[-1])

  def pooled(
    self, x: Float[Array, 'b n e'], seen: Bool[Array, 'b q n'] | None = None
  ) -> Float[Array, 'b q d']:
    """Makes embeddings of means over places; see `PooledVision.pooled`."""
    return self.project(mean_of(x, seen))

  def project(
    self, x: Float[Array, '*b e'], *, norm: bool = True
  ) -> Float[Array, '*b d']:
    """Maps what was pooled to the joint space, in float32.

    Args:
      x: an embedding of the tower's width.
      norm: whether it goes through the last norm first.
    """
    x = self.ln_post(x) if norm else x
    if self.kind.projection == 'mlp':
      x = ACTIVATIONS[self.tower.activation](self.c_fc(x))
    return self.c_proj(x)


class Stage(nn.Module):
  """Blocks of one width.

  Attributes:
    tower: their width, hidden units and number.
    halves: whether the map's sides are halved first.
  """

  tower: Tower
  halves: bool

  @nn.compact
  def __call__(self, x: Float[Array, 'b y x c']) -> Float[Array, 'b v u e']:
    """Returns the map after the last block."""
    t = self.tower
    if self.halves:
      x = layer_norm('ln', t.dtype, t.epsilon)(x)
      x = nn.Conv(t.width, (2, 2), (2, 2), 'VALID', dtype=t.dtype, name='conv')(x)
    block = nn.remat(Block, prevent_cse=False) if recomputes(t.remat) else Block
    scan = nn.scan(
      block,
      variable_axes={'params': 0},
      split_rngs={'params': True},
      length=t.layers,
      unroll=min(t.unroll, t.layers),
    )
    return scan(t, name='blocks')(x, None)[0]


class Block(nn.Module):
  """A large depthwise convolution, and an MLP on each place."""

  tower: Tower

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b y x c'], carry: Any = None
  ) -> tuple[Float[Array, 'b y x c'], None]:
    """Adds to the map; for a scan it returns a second value, nothing."""
    t = self.tower
    y = nn.Conv(
      t.width,
      (7, 7),
      feature_group_count=t.width,
      dtype=t.dtype,
      conv_general_dilated=lambda x, kernel, *_, **__: depthwise(x, kernel),
      name='conv',
    )(x)
    y = layer_norm('ln', t.dtype, t.epsilon)(y)
    y = ACTIVATIONS[t.activation](linear(t.mlp, name='c_fc', dtype=t.dtype)(y))
    y = linear(t.width, name='c_proj', dtype=t.dtype)(y)
    # 1e-6 as in the paper, section 3.1.
    scale = self.param('layer_scale', nn.initializers.constant(1e-6), (t.width,))
    return x + y * scale.astype(t.dtype).reshape(1, 1, 1, -1), None
