"""One look of CLIP at a picture, instead of one at each proposal's crop.

The picture goes through the image tower once, at its own aspect ratio. Each proposal
adds a copy of the class token, which attends to itself and to the patches that its mask
covers; patches and class token do not see the copies. Towers that pool by a probe or by
the mean pool those patches. An approximation: the crop of a proposal shows it larger
and without its surroundings, and mask prompts take no part.
"""

import functools

import jax
import jax.numpy as jnp

from ovs_jax.core.types import Array, Bool, Float, Num, Params
from ovs_jax.models.clip_fast import encode_masks
from ovs_jax.models.ovseg import OvSegConfig
from ovs_jax.ops.regions import normalise
from ovs_jax.ops.resize import EXACT, cubic_matrix

_SIDES = 2  # the picture's shorter side in sides of CLIP's input


def embed_masks(
  config: OvSegConfig,
  params: Params,
  image: Num[Array, 'h w 3'],
  masks: Float[Array, 'q H W'],
  *,
  enlarge: bool = True,
) -> Float[Array, 'q d']:
  """Returns an embedding per mask, not L2-normalised.

  Args:
    config: the model's.
    params: CLIP's.
    image: RGB, 0..255, without padding.
    masks: probabilities; they may have padding at the right and bottom.
    enlarge: whether CLIP sees the picture in a size of its own, twice its input's, and
      not up to whole patches in that of the proposer.
  """
  h, w = image.shape[:2]
  grid = grid_of(config, (h, w), enlarge=enlarge)
  return embed(config, grid, params, image, masks[:, :h, :w])


def grid_of(
  config: OvSegConfig, size: tuple[int, int], *, enlarge: bool = True
) -> tuple[int, int]:
  """Returns the rows and columns of patches of a picture; see `embed_masks`."""
  patch, side = config.clip.patch, _SIDES * config.clip.image_size
  scale = side / min(size) if enlarge else 1
  rows, columns = (max(round(length * scale / patch), 1) for length in size)
  return rows, columns


@functools.partial(jax.jit, static_argnums=(0, 1))
def embed(
  config: OvSegConfig,
  grid: tuple[int, int],
  params: Params,
  image: Num[Array, 'h w 3'],
  masks: Float[Array, 'q h w'],
) -> Float[Array, 'q d']:
  """Resizes the picture to `grid` patches and embeds all masks."""
  seen = patches_of(masks, grid, config.region.threshold)
  return look(config, grid, params, image, seen)


@functools.partial(jax.jit, static_argnums=(0, 1))
def look(
  config: OvSegConfig,
  grid: tuple[int, int],
  params: Params,
  image: Num[Array, 'h w 3'],
  seen: Bool[Array, 'q n'],
) -> Float[Array, 'q d']:
  """Resizes the picture to `grid` patches and embeds sets of them."""
  patch, (h, w) = config.clip.patch, image.shape[:2]
  size = (grid[0] * patch, grid[1] * patch)
  rows = cubic_matrix(jnp.asarray(0), jnp.asarray(h), h, size[0])
  columns = cubic_matrix(jnp.asarray(0), jnp.asarray(w), w, size[1])
  pixels = normalise(image.astype(jnp.float32), config.clip.pixels)
  pixels = jnp.einsum('sh,hwc->swc', rows, pixels, precision=EXACT)
  pixels = jnp.einsum('tw,swc->stc', columns, pixels, precision=EXACT)
  return encode_masks(config.clip, params, pixels[None], seen[None])[0]


def patches_of(
  masks: Float[Array, 'q h w'], grid: tuple[int, int], threshold: float
) -> Bool[Array, 'q n']:
  """Marks the patches that a mask covers by half, or else the one it covers most."""
  binary = (masks > threshold).astype(jnp.float32)
  rows = _areas(masks.shape[1], grid[0])
  columns = _areas(masks.shape[2], grid[1])
  share = jnp.einsum('yh,qhw->qyw', rows, binary, precision=EXACT)
  share = jnp.einsum('xw,qyw->qyx', columns, share, precision=EXACT)
  share = share.reshape(len(masks), -1)  # q n
  most = jnp.max(share, axis=1, keepdims=True)
  return (share >= 0.5) | ((share == most) & (most < 0.5))


def _areas(num_in: int, num_out: int) -> Float[Array, 'o i']:
  """The weights that average an axis over `num_out` equal parts of it."""
  edges = jnp.arange(num_out + 1) * (num_in / num_out)
  place = jnp.arange(num_in)
  inside = jnp.minimum(edges[1:, None], place[None] + 1) - jnp.maximum(
    edges[:-1, None], place[None]
  )
  return jnp.maximum(inside, 0) * (num_out / num_in)
