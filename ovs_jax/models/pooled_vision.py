"""Vision transformers that differ from OpenAI's: SigLIP's, PE's, EVA02's and others."""

import flax.linen as nn
import jax.numpy as jnp

from ovs_jax.core.types import Array, Bool, Float
from ovs_jax.models.clip_blocks import ClipBlocks, Tower
from ovs_jax.models.clip_config import ImageTower
from ovs_jax.models.clip_vision import check_size, grid_position
from ovs_jax.models.layers import ACTIVATIONS, Attention, layer_norm, linear


class PooledVision(nn.Module):
  """Embeds images, as `ClipVision` does, with a tower that `kind` describes.

  Mask prompts stand in for patches as there, and at the same places of the grid, whose
  positions they have, whatever tokens come before it. What pools by attention or by the
  mean sees the patches that are shown alone.

  Attributes:
    tower: sizes of the transformer.
    patch: side of a patch in pixels.
    image_size: side of the input in pixels.
    embed_dim: of the joint image-text space.
    prompt_depth: D; prompts stand in at the input and after blocks 1 to D - 1.
    kind: what is computed.
  """

  tower: Tower
  patch: int
  image_size: int
  embed_dim: int
  prompt_depth: int
  kind: ImageTower

  def setup(self) -> None:
    """Makes the layers, in the order in which data flows through them."""
    t, kind, sides = self.tower, self.kind, (self.patch, self.patch)
    normal = nn.initializers.normal(t.width**-0.5)
    count = (self.image_size // self.patch) ** 2
    self.conv1 = nn.Conv(
      t.width, sides, sides, 'VALID', use_bias=kind.patch_bias, dtype=t.dtype
    )
    if self.prompt_depth:
      shape = (self.prompt_depth, count, t.width)
      self.mask_prompt = self.param('mask_prompt', nn.initializers.normal(0.02), shape)
    if kind.class_token:
      self.class_embedding = self.param('class_embedding', normal, (t.width,))
    if kind.registers:
      shape = (kind.registers, t.width)
      self.register_tokens = self.param('register_tokens', normal, shape)
    self.positional_embedding = self.param(
      'positional_embedding', _positions, (kind.class_token + count, t.width)
    )
    if kind.pre_norm:
      self.ln_pre = layer_norm('ln_pre', t.dtype, t.epsilon)
    self.blocks = ClipBlocks(t, name='blocks')
    after = kind.pool == 'map'  # whose attention sees all tokens in the tower's type
    self.ln_post = layer_norm('ln_post', t.dtype if after else jnp.float32, t.epsilon)
    if kind.pool == 'map':
      pool_mlp = kind.pool_mlp or t.mlp
      self.pool = ProbePool(t, kind.pool_heads, pool_mlp, name='pool')
    if kind.projection == 'matrix':
      self.proj = self.param('proj', normal, (t.width, self.embed_dim))
    elif kind.projection == 'bias':
      self.head = linear(self.embed_dim, name='head', dtype=jnp.float32)

  def __call__(
    self, image: Float[Array, 'b h w 3'], keep: Bool[Array, 'b n'] | None = None
  ) -> Float[Array, 'b d']:
    """Embeds an image, seeing only the patches in `keep`.

    Arguments, result and errors are those of `ClipVision`.
    """
    prompted = keep is not None and self.prompt_depth
    seen = keep[:, None] if prompted else None
    return self.pooled(self.encode(image, keep), seen)[:, 0]

  def encode(
    self,
    image: Float[Array, 'b h w 3'],
    keep: Bool[Array, 'b n'] | None = None,
    *,
    resize: bool = False,
  ) -> Float[Array, 'b m e']:
    """Returns all tokens after the last block; arguments are those of `tokens`."""
    grid = (image.shape[1] // self.patch, image.shape[2] // self.patch)
    x = self.tokens(image, keep, resize=resize)
    angles = self.kind.angles(grid, self.tower.width // self.tower.heads)
    if keep is None or not self.prompt_depth:
      return self.blocks(x, angles=angles)[0]
    prompts = self.mask_prompt[1:]
    return self.blocks(x, prompts=prompts, keep=keep, angles=angles)[0]

  def tokens(
    self,
    image: Float[Array, 'b h w 3'],
    keep: Bool[Array, 'b n'] | None = None,
    *,
    resize: bool = False,
  ) -> Float[Array, 'b m e']:
    """Returns what the first block sees; see `ClipVision.tokens`."""
    check_size(image, self.patch, self.image_size, resize=resize)
    b, h, w, _ = image.shape
    dtype = self.tower.dtype
    x = self.conv1(image.astype(dtype)).reshape(b, -1, self.tower.width)  # b n e
    if keep is not None and self.prompt_depth:
      x = jnp.where(keep[:, :, None], x, self.mask_prompt[:1].astype(dtype))
    if self.kind.class_token:
      token = self.class_embedding.astype(dtype)
      x = jnp.concatenate([jnp.broadcast_to(token, (b, 1, len(token))), x], axis=1)
    grid = (h // self.patch, w // self.patch)
    position = self.kind.resized(jnp.asarray(self.positional_embedding), grid)
    x = x + position.astype(dtype)[None]
    if self.kind.registers:
      more = jnp.broadcast_to(self.register_tokens, (b, *self.register_tokens.shape))
      place = int(self.kind.class_token)
      parts = x[:, :place], more.astype(dtype), x[:, place:]
      x = jnp.concatenate(parts, axis=1)
    return self.ln_pre(x) if self.kind.pre_norm else x

  def pooled(
    self, x: Float[Array, 'b m e'], seen: Bool[Array, 'b q n'] | None = None
  ) -> Float[Array, 'b q d']:
    """Makes embeddings of the tokens after the last block.

    Args:
      x: all tokens, patches last.
      seen: of each embedding the patches that a probe's attention or a mean takes
        (where there is none, all); a class token is what it is. None: one, of all.

    Returns:
      After the final projection, not L2-normalised, float32.
    """
    first = self.kind.first
    if seen is None:
      seen = jnp.ones((len(x), 1, x.shape[1] - first), bool)
    seen = seen | ~jnp.any(seen, axis=2, keepdims=True)
    if self.kind.pool == 'map':
      mask = jnp.pad(seen, ((0, 0), (0, 0), (first, 0)), constant_values=True)
      return self.project(self.pool(self.ln_post(x), mask), norm=False)
    if self.kind.pool == 'mean':
      return self.project(mean_of(x[:, first:], seen))
    return self.project(jnp.repeat(x[:, :1], seen.shape[1], axis=1))

  def project(
    self, x: Float[Array, '*b e'], *, norm: bool = True
  ) -> Float[Array, '*b d']:
    """Maps what was pooled to the joint space, in float32.

    Args:
      x: an embedding of the tower's width.
      norm: whether it goes through the last norm first.
    """
    x = self.ln_post(x) if norm else x
    if self.kind.projection == 'none':
      return x
    return self.head(x) if self.kind.projection == 'bias' else x @ self.proj


class ProbePool(nn.Module):
  """SigLIP's head: a learned probe asks all tokens, and an MLP follows.

  Attributes:
    tower: whose width, activation and epsilon it has.
    heads: of the attention.
    mlp: hidden units.
  """

  tower: Tower
  heads: int
  mlp: int

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b m e'], seen: Bool[Array, 'b q m']
  ) -> Float[Array, 'b q e']:
    """Returns for each row of `seen` what the probe finds in these tokens, float32."""
    t = self.tower
    normal = nn.initializers.normal(t.width**-0.5)
    probe = self.param('probe', normal, (t.width,)).astype(t.dtype)
    query = jnp.broadcast_to(probe, (*seen.shape[:2], t.width))
    y = Attention(self.heads, t.dtype, name='attn')(query, x, x, seen)
    y = y.astype(jnp.float32)
    z = layer_norm('ln', jnp.float32, t.epsilon)(y)
    z = linear(self.mlp, name='c_fc', dtype=jnp.float32)(z)
    z = ACTIVATIONS[t.activation](z)
    return y + linear(t.width, name='c_proj', dtype=jnp.float32)(z)


def mean_of(
  x: Float[Array, 'b n e'], seen: Bool[Array, 'b q n'] | None = None
) -> Float[Array, 'b q e']:
  """Returns means in float32, of the patches in a row of `seen`, or else of all."""
  if seen is None:
    seen = jnp.ones((len(x), 1, x.shape[1]), bool)
  seen = seen | ~jnp.any(seen, axis=2, keepdims=True)
  share = seen / jnp.sum(seen, axis=2, keepdims=True)
  return share @ x.astype(jnp.float32)


def _positions(key: Array, shape: tuple[int, int]) -> Float[Array, 'n e']:
  """Draws a table of positions, of a grid with or without a class token."""
  side = round(shape[0] ** 0.5)
  if side * side == shape[0]:
    return grid_position(key, (shape[0] + 1, shape[1]))[1:]
  return grid_position(key, shape)
