"""Padding that does not show: images in a few sizes, results as if they had no more.

The reference pads every image on its own to the next multiple of 32 with zeros (after
normalisation) and hides nothing of that padding: its backbone, its group norms and its
cross-attention all see it. So do we. What a bucket adds beyond that multiple is not
part of the reference and is hidden everywhere: a network that is told the `Content`
gives inside of it what it would give without the rest.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ovs_jax.core.errors import UserError
from ovs_jax.core.types import Array, Bool, Float, Int

SIZE_DIVISIBILITY = 32  # of what the networks see
# Sides that images are padded to: few, so that few programs are compiled, and never
# more than half again as long as needed.
SIDES = (64, 96, 128, 192, 256, 384, 512, 640, 768, 896, 1024, 1280, 1536, 2048, 2560)


def bucket_size(
  height: int, width: int, sides: Sequence[int] = SIDES
) -> tuple[int, int]:
  """Returns the smallest allowed height and width that an image fits into.

  Args:
    height: of the image in pixels.
    width: of the image in pixels.
    sides: allowed sides, multiples of `SIZE_DIVISIBILITY`. An image longer than all
      of them gets a multiple of the longest.
  """
  odd = [side for side in sides if side < 1 or side % SIZE_DIVISIBILITY]
  if odd or not sides:
    raise UserError(
      f'padded sides must be multiples of {SIZE_DIVISIBILITY}, got {list(sides)}'
    )

  def fit(length: int) -> int:
    longest = max(sides)
    whole = -(-length // longest) * longest
    return min((side for side in sides if side >= length), default=whole)

  return fit(height), fit(width)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Content:
  """The part of a padded input that the networks may see; it starts top left.

  Attributes:
    size: its height and width, multiples of `SIZE_DIVISIBILITY`.
    full: height and width of the whole input.
  """

  size: Int[Array, '2']
  full: tuple[int, int] = dataclasses.field(metadata={'static': True})

  @classmethod
  def of_image(cls, size: Int[Array, '2'], full: tuple[int, int]) -> 'Content':
    """Returns the content of an image of this size: the reference's padding counts."""
    whole = -(-size // SIZE_DIVISIBILITY) * SIZE_DIVISIBILITY
    return cls(whole.astype(jnp.int32), full)

  def mask(self, grid: tuple[int, int]) -> Bool[Array, 'y x']:
    """Returns which positions of a feature grid over the input lie inside."""
    # Position i covers the pixels from i * full / grid on.
    rows = jnp.arange(grid[0]) * self.full[0] < self.size[0] * grid[0]
    columns = jnp.arange(grid[1]) * self.full[1] < self.size[1] * grid[1]
    return rows[:, None] & columns[None, :]


def zero_outside(
  x: Float[Array, 'b y x c'], content: Content | None
) -> Float[Array, 'b y x c']:
  """Returns `x` with zeros outside, as a convolution's own padding would have."""
  if content is None:
    return x
  inside = content.mask(x.shape[1:3])[None, :, :, None]
  return jnp.where(inside, x, jnp.zeros((), x.dtype))


def norm_mask(x: Float[Array, 'b y x c'], content: Content | None) -> Array | None:
  """Returns the `mask` for the statistics of a group norm over `x`."""
  if content is None:
    return None
  return jnp.broadcast_to(content.mask(x.shape[1:3])[None, :, :, None], x.shape)


def repeat_edge(
  x: Float[Array, '*b y x'], content: Content | None
) -> Float[Array, '*b y x']:
  """Returns `x` with its last row and column inside repeated outside.

  Interpolation at the border then sees what it sees at the border of an array.
  """
  if content is None:
    return x
  inside = content.mask(x.shape[-2:])
  last = jnp.sum(inside[:, 0]) - 1, jnp.sum(inside[0]) - 1
  x = jnp.take(x, jnp.minimum(jnp.arange(x.shape[-2]), last[0]), axis=-2)
  return jnp.take(x, jnp.minimum(jnp.arange(x.shape[-1]), last[1]), axis=-1)
