"""CLIP's vision transformer with mask prompts (OVSeg, section 3.4)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ovs_jax.core.types import Array, Bool, Float
from ovs_jax.models.layers import ClipBlock, clip_blocks, layer_norm
from ovs_jax.models.shown_patches import prompted_blocks
from ovs_jax.ops.resize import resize_positions


class ClipVision(nn.Module):
  """Embeds images; fully masked patches can be replaced by learned tokens.

  Attributes:
    patch: side of a patch in pixels.
    image_size: side of the input in pixels.
    width: of the tokens.
    layers: number of transformer blocks.
    heads: number of attention heads.
    mlp: hidden units of a block's MLP.
    activation: of the MLP, from `layers.ACTIVATIONS`.
    epsilon: of the layer norms.
    embed_dim: of the joint image-text space.
    prompt_depth: D; prompts stand in at the input and after blocks 1 to D - 1.
    dtype: of the computation; parameters are float32.
    remat: whether to recompute blocks in the backward pass.
    unroll: blocks per iteration of the scan.
  """

  patch: int
  image_size: int
  width: int
  layers: int
  heads: int
  mlp: int
  activation: str
  epsilon: float
  embed_dim: int
  prompt_depth: int
  dtype: Any
  remat: bool
  unroll: int

  def __call__(
    self,
    image: Float[Array, 'b h w 3'],
    keep: Bool[Array, 'b n'] | None = None,
    *,
    sparse: bool = False,
  ) -> Float[Array, 'b d']:
    """Embeds an image, seeing only the patches in `keep`.

    Args:
      image: RGB, normalised with `ops.regions.normalise`.
      keep: patches to show; the rest are replaced by the mask prompts. None shows
        everything and leaves the prompts out.
      sparse: whether to skip what prompts overwrite, as `models.shown_patches` does:
        the same up to rounding, and meant for inference.

    Returns:
      The class token after the final projection, not L2-normalised, float32.
    """
    h, w = image.shape[1:3]
    if (h, w) != (self.image_size, self.image_size):
      raise ValueError(
        f'this CLIP sees {self.image_size}x{self.image_size} pixels, got {h}x{w}'
      )
    x, _ = self._run(image, keep, (), 'class', sparse=sparse)
    return x[:, 0]

  def masks(
    self, image: Float[Array, 'b h w 3'], seen: Bool[Array, 'b q n']
  ) -> Float[Array, 'b q d']:
    """Embeds parts of images in one forward pass; images may have any size.

    Args:
      image: as for `features`, which says how positions are resized.
      seen: patches that each part consists of. A copy of the class token attends to
        them and to itself; nothing attends to the copies.

    Returns:
      The copies after the final projection, not L2-normalised.
    """
    x, _ = self._run(image, None, (), 'all', seen)
    return x[:, -seen.shape[1] :]

  def features(
    self,
    image: Float[Array, 'b h w 3'],
    blocks: tuple[int, ...] = (),
    *,
    project: str = 'none',
  ) -> tuple[Float[Array, 'b m d'] | None, tuple[Float[Array, 'b n e'], ...]]:
    """Returns what other networks build on; images may have any size.

    The table of positions is resized to the image's grid (bicubic, as PyTorch and
    Hugging Face do it for CLIPSeg); mask prompts are left out.

    Args:
      image: RGB, normalised; both sides are multiples of the patch.
      blocks: 0-based indices of blocks. The residual stream after each of them is
        returned, class token first, before any norm.
      project: 'none', or the tokens that go through the last norm and the
        projection: 'class' or 'all'; 'raw' projects all without the norm. With
        'none', blocks beyond those asked for are not computed.

    Returns:
      The projected tokens (one for 'class'), or None; and the activations of `blocks`
      in their order.

    Raises:
      ValueError: the image does not consist of whole patches, or there is no such
        block.
    """
    h, w = image.shape[1:3]
    p = self.patch
    if min(h, w) < p:
      raise ValueError(f'the image has {h}x{w} pixels, less than a patch of {p}x{p}')
    if h % p or w % p:
      raise ValueError(
        f'the image has {h}x{w} pixels; both sides must be multiples of the patch, {p}'
      )
    absent = [i for i in blocks if not 0 <= i < self.layers]
    if absent:
      raise ValueError(f'blocks {absent} of a CLIP of {self.layers} blocks, from 0')
    return self._run(image, None, tuple(blocks), project)

  @nn.compact
  def _run(
    self,
    image: Float[Array, 'b h w 3'],
    keep: Bool[Array, 'b n'] | None,
    wanted: tuple[int, ...],
    project: str,
    seen: Bool[Array, 'b q p'] | None = None,
    *,
    sparse: bool = False,
  ) -> tuple[Float[Array, 'b m d'] | None, tuple[Float[Array, 'b t e'], ...]]:
    b = len(image)
    normal = nn.initializers.normal(self.width**-0.5)
    prompts = None
    if self.prompt_depth:
      count = (self.image_size // self.patch) ** 2
      prompts = self.param(
        'mask_prompt',
        nn.initializers.normal(0.02),
        (self.prompt_depth, count, self.width),
      )
    if keep is None or prompts is None:
      keep = prompts = None
    x, hidden = self._tokens(image, keep, prompts, sparse=sparse)
    mask = None
    if seen is not None:
      mask = _copies_see(seen)
      copies = jnp.broadcast_to(x[:, :1], (b, seen.shape[1], self.width))
      x = jnp.concatenate([x, copies], axis=1)
    # Of the last block only the class token is used; drawing parameters needs it whole.
    short = project == 'class' and not wanted and not self.is_initializing()
    last = self.layers - 1 if short else self._needed(wanted, project)
    done = 0
    if sparse and short and prompts is not None:
      done = min(self.prompt_depth, last)
      inputs = (hidden, *prompts[1 : last + 1].astype(self.dtype))
      stack = self.variables['params']['blocks']
      x = prompted_blocks(self._block(), stack, x, inputs, keep, count=done)
      prompts = None
    if last > done:
      blocks = self._blocks((done, last), collect=bool(wanted))
      x, every = blocks(x, *self._deep_prompts(prompts, last), keep, mask)
    taken = tuple(every[i] for i in wanted)
    if project == 'none':
      return None, taken
    x = self._class_block(x) if short else x
    x = x[:, 0] if project == 'class' else x
    if project != 'raw':
      x = layer_norm('ln_post', jnp.float32, self.epsilon)(x)
    projection = self.param('proj', normal, (self.width, self.embed_dim))
    return (x @ projection).reshape(b, -1, self.embed_dim), taken

  def _tokens(
    self,
    image: Float[Array, 'b h w 3'],
    keep: Bool[Array, 'b n'] | None,
    prompts: Float[Array, 'p n d'] | None,
    *,
    sparse: bool,
  ) -> tuple[Float[Array, 'b m d'], Float[Array, 'n d'] | None]:
    """Returns what the first block sees, and for `sparse` what of hidden patches."""
    b, h, w, _ = image.shape
    grid = self.image_size // self.patch
    normal = nn.initializers.normal(self.width**-0.5)
    sides = (self.patch, self.patch)
    x = nn.Conv(
      self.width, sides, sides, 'VALID', use_bias=False, dtype=self.dtype, name='conv1'
    )(image.astype(self.dtype))
    x = x.reshape(b, -1, self.width)  # b n d
    if prompts is not None:
      first = prompts[0].astype(self.dtype)
      x = jnp.where(keep[:, :, None], x, first[None])
    token = self.param('class_embedding', normal, (self.width,)).astype(self.dtype)
    x = jnp.concatenate([jnp.broadcast_to(token, (b, 1, self.width)), x], axis=1)
    position = self.param(
      'positional_embedding', _grid_position, (1 + grid * grid, self.width)
    )
    size = (h // self.patch, w // self.patch)
    position = resize_positions(jnp.asarray(position), size).astype(self.dtype)
    norm = layer_norm('ln_pre', self.dtype, self.epsilon)
    hidden = norm(first + position[1:]) if sparse and prompts is not None else None
    return norm(x + position[None]), hidden

  def _needed(self, wanted: tuple[int, ...], project: str) -> int:
    """Returns how many of the blocks are needed."""
    return max(wanted) + 1 if wanted and project == 'none' else self.layers

  def _blocks(self, span: tuple[int, int], *, collect: bool) -> nn.Module:
    """Returns the blocks from the first of the two numbers up to the other."""
    return clip_blocks(
      layers=self.layers,
      num_heads=self.heads,
      mlp=self.mlp,
      activation=self.activation,
      epsilon=self.epsilon,
      dtype=self.dtype,
      remat=self.remat,
      unroll=min(self.unroll, span[1] - span[0]),
      span=span,
      collect=collect,
    )

  def _block(self, **settings: Any) -> ClipBlock:
    """Returns a block for parameters from the stack."""
    sizes = (self.heads, self.mlp, self.activation, self.epsilon, self.dtype)
    return ClipBlock(*sizes, **settings, parent=None)

  def _class_block(self, x: Float[Array, 'b n d']) -> Float[Array, 'b 1 d']:
    """Runs the last block for the class token alone, with its part of the stack."""
    stack = self.variables['params']['blocks']
    last = jax.tree.map(lambda leaf: leaf[-1], stack)
    x, _ = self._block(first_only=True).apply({'params': last}, x)
    return x

  def _deep_prompts(
    self, prompts: Float[Array, 'p n d'] | None, first: int
  ) -> tuple[Float[Array, 'l n d'] | None, Bool[Array, 'l'] | None]:
    """Returns for each of the first blocks what follows it and whether any does."""
    if prompts is None:
      return None, None
    deep = min(self.prompt_depth - 1, first)
    pad = ((0, first - deep), (0, 0), (0, 0))
    return jnp.pad(prompts[1 : 1 + deep], pad), jnp.arange(first) < deep


def _copies_see(seen: Bool[Array, 'b q n']) -> Bool[Array, 'b t t']:
  """The attention that is allowed: tokens are class, patches, copies of the class."""
  b, q, n = seen.shape
  image = jnp.ones((b, 1 + n, 1 + n), bool)
  top = jnp.concatenate([image, jnp.zeros((b, 1 + n, q), bool)], axis=2)
  own = jnp.broadcast_to(jnp.eye(q, dtype=bool)[None], (b, q, q))
  copies = jnp.concatenate([jnp.zeros((b, q, 1), bool), seen, own], axis=2)
  return jnp.concatenate([top, copies], axis=1)


def _grid_position(
  key: Array, shape: tuple[int, int], dtype: Any = jnp.float32
) -> Array:
  """Initial positions: 2-D sine and cosine waves, which converge sooner than noise.

  Converted checkpoints overwrite them; only training from scratch starts here.
  """
  del key
  count, width = shape
  grid = round((count - 1) ** 0.5)
  quarter = width // 4
  frequency = 1.0 / 10000 ** (jnp.arange(quarter) / quarter)
  y, x = jnp.divmod(jnp.arange(grid * grid), grid)
  waves = []
  for place in (y, x):
    angle = place[:, None] * frequency[None, :]
    waves += [jnp.sin(angle), jnp.cos(angle)]
  table = jnp.pad(jnp.concatenate(waves, axis=1), ((1, 0), (0, width - 4 * quarter)))
  return 0.7 * table.astype(dtype)
