"""Shorter ways through CLIP's image tower, to what `models.clip_vision` computes.

They take parameters of a whole CLIP. Up to rounding, `encode_images` and `encode_crops`
give what `Clip.encode_image` gives; `encode_masks` gives it for many parts of an image
at once, each seen as if its patches were all there is. What computes less is exact
where the class token is the embedding (`ImageTower.pool`); other towers go the plain
way in `encode_images` and `encode_crops`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from ovs_jax.core.types import Array, Bool, Float, Params
from ovs_jax.models.clip import ClipConfig, make_vision
from ovs_jax.models.clip_blocks import ClipBlock, ClipBlocks
from ovs_jax.models.layers import layer_norm
from ovs_jax.models.shown_patches import prompted_blocks


def encode_images(
  config: ClipConfig,
  params: Params,
  image: Float[Array, 'b h w 3'],
  keep: Bool[Array, 'b n'] | None = None,
  *,
  resize: bool = False,
  trained: bool = False,
) -> Float[Array, 'b d']:
  """Embeds images; the last block is computed for the class token alone.

  Where all tokens are pooled, it is computed for all of them, as in
  `Clip.encode_image`. Its gradient, too, is that of `Clip.encode_image`.

  Args:
    config: of the CLIP whose `params` are given.
    params: the whole CLIP's.
    image: RGB, normalised with `ops.regions.normalise`.
    keep: patches to show; the rest are replaced by the mask prompts. None shows
      everything and leaves the prompts out.
    resize: whether images of other sizes are welcome, as for `ClipVision.tokens`.
    trained: whether the gradient of the blocks is asked for, which then costs less;
      without it their parameters are read where they lie, and not copied before.

  Returns:
    The embeddings after the final projection, not L2-normalised, float32.

  Raises:
    ValueError: the images are of another size, or do not consist of whole patches.
  """
  visual, prompts = params['visual'], None
  if keep is None or not config.prompt_depth:
    keep = None
  else:
    prompts = visual['mask_prompt'][1:]
  if config.image_tower.pool != 'class':
    x = _apply(config, visual, 'encode', image, keep, resize=resize)
    seen = None if keep is None else keep[:, None]
    return _apply(config, visual, 'pooled', x, seen)[:, 0]
  x = _apply(config, visual, 'tokens', image, keep, resize=resize)
  span, angles = (0, config.vision_layers - 1), _angles(config, image)
  if trained or keep is not None:
    x = _run(config, visual, x, prompts=prompts, keep=keep, span=span, angles=angles)
  else:
    x = _read(config, visual, x, span=span, angles=angles)
  return _class_token(config, visual, x, angles)


def encode_crops(
  config: ClipConfig,
  params: Params,
  image: Float[Array, 'b h w 3'],
  keep: Bool[Array, 'b n'] | None,
) -> Float[Array, 'b d']:
  """Embeds crops without computing the patches that mask prompts overwrite.

  The result is that of `encode_images` up to rounding (`models.shown_patches` skips the
  patches of towers like OpenAI's; others compute them). Meant for inference: training
  would scatter gradients.

  Args:
    config: of the CLIP whose `params` are given.
    params: the whole CLIP's.
    image: RGB, normalised with `ops.regions.normalise`.
    keep: patches to show; None shows everything and leaves the prompts out.
  """
  if keep is None or not config.prompt_depth or not config.is_plain:
    return encode_images(config, params, image, keep)
  visual, last = params['visual'], config.vision_layers - 1
  dtype = config.vision.dtype
  prompts = visual['mask_prompt'].astype(dtype)
  first = prompts[0] + visual['positional_embedding'][1:].astype(dtype)
  norm = layer_norm('ln_pre', dtype, config.vision_epsilon)
  first = norm.apply({'params': visual['ln_pre']}, first)
  x = _apply(config, visual, 'tokens', image, keep)
  done = min(config.prompt_depth, last)
  x = prompted_blocks(
    ClipBlock(config.vision),
    visual['blocks'],
    x,
    (first, *prompts[1 : last + 1]),
    keep,
    count=done,
  )
  x = _read(config, visual, x, span=(done, last))
  return _class_token(config, visual, x)


def encode_masks(
  config: ClipConfig,
  params: Params,
  image: Float[Array, 'b h w 3'],
  seen: Bool[Array, 'b q n'],
) -> Float[Array, 'b q d']:
  """Embeds parts of images in one forward pass, without mask prompts.

  Args:
    config: of the CLIP whose `params` are given.
    params: the whole CLIP's.
    image: RGB, normalised; of any size, both sides multiples of the patch.
    seen: patches that each part consists of. A copy of the class token attends to
      them and to itself; nothing attends to the copies. Towers that pool otherwise
      pool these patches alone, after blocks in which all see all.

  Returns:
    The copies, or what was pooled, after the final projection, not L2-normalised,
    float32.
  """
  visual = params['visual']
  if config.image_tower.pool != 'class':
    x = _apply(config, visual, 'encode', image, resize=True)
    return _apply(config, visual, 'pooled', x, seen)
  b, q, _ = seen.shape
  x = _apply(config, visual, 'tokens', image, resize=True)
  copies = jnp.broadcast_to(x[:, :1], (b, q, x.shape[2]))
  x = jnp.concatenate([x, copies], axis=1)
  see = _copies_see(seen, config.image_tower.registers)
  x = _run(config, visual, x, see, angles=_angles(config, image, q))
  return _apply(config, visual, 'project', x[:, -q:])


def _apply(
  config: ClipConfig, visual: Params, method: str, *args: Any, **options: Any
) -> Array:
  """Calls a method of the plain tower."""
  vision = make_vision(config)
  return vision.apply({'params': visual}, *args, method=method, **options)


def _run(
  config: ClipConfig, visual: Params, x: Array, *args: Any, **options: Any
) -> Float[Array, 'b m e']:
  """Runs the blocks with the arguments of `ClipBlocks`; returns the last tokens."""
  blocks = ClipBlocks(config.vision)
  return blocks.apply({'params': visual['blocks']}, x, *args, **options)[0]


def _read(
  config: ClipConfig,
  visual: Params,
  x: Float[Array, 'b m e'],
  *,
  span: tuple[int, int],
  angles: Float[Array, 'm a'] | None = None,
) -> Float[Array, 'b m e']:
  """Runs some of the blocks as `_run` does, without a copy of their parameters.

  Of a large tower that is a gigabyte, and for few images a sixth of the time.
  """
  block = ClipBlock(config.vision)

  def step(x: Array, at: Array) -> tuple[Array, None]:
    take = functools.partial(jax.lax.dynamic_index_in_dim, keepdims=False)
    own = jax.tree.map(lambda leaf: take(leaf, at), visual['blocks'])
    return block.apply({'params': own}, x, angles=angles), None

  unroll = min(config.unroll, max(span[1] - span[0], 1))
  return jax.lax.scan(step, x, jnp.arange(*span), unroll=unroll)[0]


def _angles(
  config: ClipConfig, image: Float[Array, 'b h w 3'], copies: int = 0
) -> Float[Array, 'm a'] | None:
  """Returns by how much a picture's tokens, and copies of the first, are turned."""
  grid = (image.shape[1] // config.patch, image.shape[2] // config.patch)
  size = config.vision_width // config.vision_heads
  return config.image_tower.angles(grid, size, copies)


def _class_token(
  config: ClipConfig,
  visual: Params,
  x: Float[Array, 'b m e'],
  angles: Float[Array, 'm a'] | None = None,
) -> Float[Array, 'b d']:
  """Runs the last block for the class token alone, and projects it."""
  last = jax.tree.map(lambda leaf: leaf[-1], visual['blocks'])
  block = ClipBlock(config.vision)
  x = block.apply({'params': last}, x, first_only=True, angles=angles)
  return _apply(config, visual, 'project', x[:, 0])


def _copies_see(seen: Bool[Array, 'b q n'], registers: int) -> Bool[Array, 'b t t']:
  """The attention that is allowed.

  Tokens are class, registers, patches, copies of the class.
  """
  b, q, n = seen.shape
  first = 1 + registers
  image = jnp.ones((b, first + n, first + n), bool)
  top = jnp.concatenate([image, jnp.zeros((b, first + n, q), bool)], axis=2)
  own = jnp.broadcast_to(jnp.eye(q, dtype=bool)[None], (b, q, q))
  before = jnp.arange(first).reshape(1, 1, -1) > 0  # not the class token itself
  before = jnp.broadcast_to(before, (b, q, first))
  copies = jnp.concatenate([before, seen, own], axis=2)
  return jnp.concatenate([top, copies], axis=1)
