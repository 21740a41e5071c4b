"""CLIP's vision transformer with mask prompts (OVSeg, section 3.4)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from ovs_jax.core.errors import UserError
from ovs_jax.core.types import Array, Bool, Float
from ovs_jax.models.clip_blocks import ClipBlocks, Tower
from ovs_jax.models.clip_config import ImageTower
from ovs_jax.models.layers import layer_norm


class ClipVision(nn.Module):
  """Embeds images; fully masked patches can be replaced by learned tokens.

  Every token goes through every block. `models.clip_fast` has ways to the same
  embeddings that compute less.

  Attributes:
    tower: sizes of the transformer.
    patch: side of a patch in pixels.
    image_size: side of the input in pixels.
    embed_dim: of the joint image-text space.
    prompt_depth: D; prompts stand in at the input and after blocks 1 to D - 1.
    kind: how the table of positions is resized; all else is OpenAI's.
  """

  tower: Tower
  patch: int
  image_size: int
  embed_dim: int
  prompt_depth: int
  kind: ImageTower

  def setup(self) -> None:
    """Makes the layers, in the order in which data flows through them."""
    t, sides = self.tower, (self.patch, self.patch)
    normal = nn.initializers.normal(t.width**-0.5)
    count = (self.image_size // self.patch) ** 2
    self.conv1 = nn.Conv(
      t.width, sides, sides, 'VALID', use_bias=False, dtype=t.dtype, name='conv1'
    )
    if self.prompt_depth:
      shape = (self.prompt_depth, count, t.width)
      self.mask_prompt = self.param('mask_prompt', nn.initializers.normal(0.02), shape)
    self.class_embedding = self.param('class_embedding', normal, (t.width,))
    self.positional_embedding = self.param(
      'positional_embedding', grid_position, (1 + count, t.width)
    )
    self.ln_pre = layer_norm('ln_pre', t.dtype, t.epsilon)
    self.blocks = ClipBlocks(t, name='blocks')
    self.ln_post = layer_norm('ln_post', jnp.float32, t.epsilon)
    self.proj = self.param('proj', normal, (t.width, self.embed_dim))

  def __call__(
    self, image: Float[Array, 'b h w 3'], keep: Bool[Array, 'b n'] | None = None
  ) -> Float[Array, 'b d']:
    """Embeds an image, seeing only the patches in `keep`.

    Args:
      image: RGB, normalised with `ops.regions.normalise`.
      keep: patches to show; the rest are replaced by the mask prompts. None shows
        everything and leaves the prompts out.

    Returns:
      The class token after the final projection, not L2-normalised, float32.

    Raises:
      ValueError: the image is not of the tower's size.
    """
    x = self.tokens(image, keep)
    if keep is None or not self.prompt_depth:
      x, _ = self.blocks(x)
    else:
      x, _ = self.blocks(x, prompts=self.mask_prompt[1:], keep=keep)
    return self.project(x[:, 0])

  def tokens(
    self,
    image: Float[Array, 'b h w 3'],
    keep: Bool[Array, 'b n'] | None = None,
    *,
    resize: bool = False,
  ) -> Float[Array, 'b m e']:
    """Returns what the first block sees: the class token and the patches.

    Args:
      image: RGB, normalised with `ops.regions.normalise`.
      keep: patches to show; the rest are replaced by the first mask prompts. None shows
        everything and leaves the prompts out.
      resize: whether images of other sizes are welcome. The table of positions is
        resized to their grid (by default bicubic without antialiasing, as Hugging Face
        does it for CLIPSeg).

    Raises:
      ValueError: the image is of another size, or does not consist of whole patches.
    """
    check_size(image, self.patch, self.image_size, resize=resize)
    b, h, w, _ = image.shape
    dtype = self.tower.dtype
    x = self.conv1(image.astype(dtype)).reshape(b, -1, self.tower.width)  # b n e
    if keep is not None and self.prompt_depth:
      x = jnp.where(keep[:, :, None], x, self.mask_prompt[:1].astype(dtype))
    token = self.class_embedding.astype(dtype)
    x = jnp.concatenate([jnp.broadcast_to(token, (b, 1, len(token))), x], axis=1)
    grid = (h // self.patch, w // self.patch)
    position = self.kind.resized(jnp.asarray(self.positional_embedding), grid)
    return self.ln_pre(x + position.astype(dtype)[None])

  def features(
    self, image: Float[Array, 'b h w 3'], blocks: tuple[int, ...]
  ) -> dict[int, Float[Array, 'b m e']]:
    """Returns what other networks build on; mask prompts are left out.

    Args:
      image: RGB, normalised; of any size, both sides multiples of the patch.
      blocks: 0-based indices. Blocks beyond the last of them are not computed.

    Returns:
      The residual stream after each of `blocks`, class token first, before any norm.

    Raises:
      ValueError: the image does not consist of whole patches, or there is no such
        block.
    """
    absent = [i for i in blocks if not 0 <= i < self.tower.layers]
    if absent:
      raise UserError(f'blocks {absent} of a CLIP of {self.tower.layers}, from 0')
    last = max(blocks)
    x = self.tokens(image, resize=True)
    x, every = self.blocks(x, span=(0, last + 1), collect=len(set(blocks)) > 1)
    return {i: x if i == last else every[i] for i in blocks}

  def project(
    self, x: Float[Array, '*b e'], *, norm: bool = True
  ) -> Float[Array, '*b d']:
    """Maps tokens after the last block to the joint space, in float32.

    Args:
      x: class token or patches.
      norm: whether they go through the last norm first, as the class token does.
    """
    return (self.ln_post(x) if norm else x) @ self.proj


def check_size(
  image: Float[Array, 'b h w 3'], patch: int, side: int, *, resize: bool
) -> None:
  """Raises ValueError unless an image is of a tower's size, or of whole patches.

  Args:
    image: of any size.
    patch: side of a patch in pixels.
    side: of the tower's input.
    resize: whether other sizes are welcome.
  """
  h, w = image.shape[1:3]
  if not resize and (h, w) != (side, side):
    raise UserError(f'this CLIP sees {side}x{side} pixels, got {h}x{w}')
  if min(h, w) < patch:
    raise UserError(
      f'the image has {h}x{w} pixels, less than a patch of {patch}x{patch}'
    )
  if h % patch or w % patch:
    raise UserError(
      f'the image has {h}x{w} pixels; both sides must be multiples of the patch, '
      f'{patch}'
    )


def grid_position(
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
