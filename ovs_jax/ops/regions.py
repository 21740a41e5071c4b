"""From proposals to what CLIP sees: crop, fill, resize, and the mask of patches.

OVSeg's order of operations (its section 3.3 and the official code): threshold, tight
box, crop, fill the background, normalise, bicubic resize that ignores the aspect
ratio, nearest-neighbour resize of the mask. Every proposal keeps its place, so shapes
are static; empty ones are marked invalid.
"""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from ovs_jax.core.errors import UserError
from ovs_jax.core.limits import OneOf
from ovs_jax.core.types import Array, Bool, Float, Int, Num
from ovs_jax.ops.resize import EXACT, cubic_matrix, nearest_indices

# CLIP's pixel statistics, RGB in 0..1.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

RESIZES = ('shortest', 'squash')
INTERPOLATIONS = ('bicubic', 'bilinear')


@dataclasses.dataclass(frozen=True)
class Pixels:
  """How a CLIP wants its pictures.

  Attributes:
    mean: of the channels R, G, B, of values from 0 to 1.
    std: likewise.
    resize: of whole pictures to the square: the shortest side, and then the centre; or
      both sides, whatever the aspect ratio. Crops of regions are always squashed.
    interpolation: of whole pictures. Crops of regions are bicubic, as OVSeg has them.
  """

  mean: tuple[float, float, float] = CLIP_MEAN
  std: tuple[float, float, float] = CLIP_STD
  resize: Annotated[str, OneOf(RESIZES)] = 'shortest'
  interpolation: Annotated[str, OneOf(INTERPOLATIONS)] = 'bicubic'


CLIP_PIXELS = Pixels()

FILLS = ('mean', 'zero', 'none')


@dataclasses.dataclass(frozen=True)
class RegionConfig:
  """How proposals become crops.

  Attributes:
    size: side of the square crop in pixels; CLIP's input size.
    threshold: a pixel is foreground if its mask value is above it (strictly).
    fill: background colour: OpenAI's mean, black, or 'none' to keep the image.
    expand: factor on the box about its centre; 1 in every published setting.
    matting: whether to blend with the soft mask instead of the binary one.
  """

  size: int
  threshold: float
  fill: str
  expand: float
  matting: bool

  def __post_init__(self) -> None:
    if self.fill not in FILLS:
      raise UserError(f'unknown fill {self.fill!r}; known: {", ".join(FILLS)}')


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Regions:
  """Crops of one image.

  Attributes:
    pixels: normalised; with OpenAI's statistics a filled background is exactly 0.
    masks: 1 where the crop shows the proposal (soft values if `matting`).
    boxes: x0, y0, x1, y1 in pixels, exclusive ends.
    valid: whether the proposal has any pixel above the threshold.
  """

  pixels: Float[Array, 'q s s 3']
  masks: Float[Array, 'q s s']
  boxes: Int[Array, 'q 4']
  valid: Bool[Array, 'q']


def normalise(
  image: Num[Array, '*b 3'], pixels: Pixels = CLIP_PIXELS
) -> Float[Array, '*b 3']:
  """Maps RGB in 0..255 to a CLIP's normalised units; without `pixels`, OpenAI's."""
  mean = 255 * jnp.asarray(pixels.mean, jnp.float32)
  std = 255 * jnp.asarray(pixels.std, jnp.float32)
  shape = (1,) * (image.ndim - 1) + (3,)
  return (image - mean.reshape(shape)) / std.reshape(shape)


def tight_boxes(
  binary: Bool[Array, 'q h w'],
) -> tuple[Int[Array, 'q 4'], Bool[Array, 'q']]:
  """Returns the boxes x0, y0, x1, y1 (exclusive ends) and which are not empty.

  An empty mask gets the box of the first pixel, so that later steps stay defined.
  """
  h, w = binary.shape[1:]
  rows, columns = jnp.any(binary, axis=2), jnp.any(binary, axis=1)  # q h, q w
  x0, y0 = jnp.argmax(columns, axis=1), jnp.argmax(rows, axis=1)
  x1 = w - jnp.argmax(columns[:, ::-1], axis=1)
  y1 = h - jnp.argmax(rows[:, ::-1], axis=1)
  valid = jnp.any(rows, axis=1)
  boxes = jnp.stack([x0, y0, x1, y1], axis=1)
  return jnp.where(valid[:, None], boxes, jnp.array([[0, 0, 1, 1]])), valid


def expand_boxes(
  boxes: Int[Array, 'q 4'], factor: float, size: tuple[int, int]
) -> Int[Array, 'q 4']:
  """Scales boxes about their centres, truncates, and clips them to (h, w)."""
  if factor == 1.0:
    return boxes
  corners = boxes.astype(jnp.float32)
  centre = (corners[:, :2] + corners[:, 2:]) / 2
  half = (corners[:, 2:] - corners[:, :2]) * factor / 2
  limit = jnp.array([[size[1], size[0]]])
  low = jnp.clip(jnp.trunc(centre - half).astype(jnp.int32), 0, limit)
  high = jnp.clip(jnp.trunc(centre + half).astype(jnp.int32), 0, limit)
  return jnp.concatenate([low, high], axis=1)


def crop_regions(
  image: Num[Array, 'h w 3'],
  masks: Float[Array, 'q h w'],
  config: RegionConfig,
  *,
  statistics: Pixels = CLIP_PIXELS,
  size: tuple[int, int] | None = None,
  chunk: int = 8,
  cut: bool = True,
) -> Regions:
  """Cuts every proposal out of the image (OVSeg, section 3.3).

  Args:
    image: RGB in 0..255 at the resolution of the network, not normalised.
    masks: probabilities in 0..1 at the same resolution.
    config: the threshold of masks, the fill, the factor on boxes and the crops' side.
    statistics: that the crops' pixels are normalised with.
    size: height and width of the part that is not padding; boxes end there.
    chunk: proposals resampled at once; bounds the memory.
    cut: whether to make the crops; otherwise they have no pixels.

  Returns:
    The crops in the proposals' order. Those of invalid proposals are not cut, and 0.
  """
  h, w = image.shape[:2]
  binary = masks > config.threshold
  boxes, valid = tight_boxes(binary)
  boxes = expand_boxes(boxes, config.expand, size or (h, w))
  if not cut:
    nothing = jnp.zeros((len(valid), 0, 0))
    return Regions(nothing[..., None] * jnp.ones((1, 1, 1, 3)), nothing, boxes, valid)
  image = image.astype(jnp.float32)
  fill = 255 * jnp.asarray(CLIP_MEAN, jnp.float32).reshape(1, 1, 3)
  if config.fill == 'zero':
    fill = jnp.zeros_like(fill)
  weights = masks if config.matting else binary.astype(jnp.float32)

  def cut_one(weight: Array, box: Array) -> tuple[Array, Array]:
    shown = image
    if config.fill != 'none':
      shown = image * weight[..., None] + fill * (1 - weight[..., None])
    rows = cubic_matrix(box[1], box[3], h, config.size)  # s h
    columns = cubic_matrix(box[0], box[2], w, config.size)  # s w
    pixels = jnp.einsum(
      'sh,hwc->swc', rows, normalise(shown, statistics), precision=EXACT
    )
    pixels = jnp.einsum('tw,swc->stc', columns, pixels, precision=EXACT)
    y = nearest_indices(box[1], box[3], config.size)
    x = nearest_indices(box[0], box[2], config.size)
    return pixels, weight[y][:, x]

  side = config.size
  pixels, cropped = map_valid(
    lambda places: jax.vmap(cut_one)(weights[places], boxes[places]),
    valid,
    (jnp.zeros((len(valid), side, side, 3)), jnp.zeros((len(valid), side, side))),
    chunk=chunk,
  )
  return Regions(pixels=pixels, masks=cropped, boxes=boxes, valid=valid)


def map_valid(
  function: Callable[[Int[Array, 'c']], Any],
  valid: Bool[Array, 'n'],
  empty: Any,
  *,
  chunk: int,
  order: Int[Array, 'n'] | None = None,
) -> Any:
  """Fills in the valid rows of arrays, some at a time, as often as there are any.

  A loop on the device whose length is the number of valid rows: nothing is computed
  for the others but to fill the last chunk up, and nothing waits for the host. It has
  no gradient.

  Args:
    function: from the indices of some rows to their values.
    valid: rows to fill in.
    empty: arrays of n rows; those that are not valid stay as they are.
    chunk: rows at once.
    order: not negative; rows go by it, the smallest first. None: as they are.
  """
  count = len(valid)
  chunk = min(chunk, count)
  last = jnp.iinfo(jnp.int32).max
  queue = jnp.argsort(
    jnp.where(valid, 0 if order is None else order, last), stable=True
  )

  def fill(i: Array | int, rows: Any) -> Any:
    # The last chunk is moved up instead of cut; what it repeats is the same again.
    start = jnp.minimum(i * chunk, count - chunk)
    places = jax.lax.dynamic_slice(queue, (start,), (chunk,))
    use = valid[places]

    def put(old: Array, new: Array) -> Array:
      keep = use.reshape(-1, *(1,) * (old.ndim - 1))
      return old.at[places].set(jnp.where(keep, new, old[places]))

    return jax.tree.map(put, rows, function(places))

  steps = -(-jnp.sum(valid) // chunk)
  return jax.lax.fori_loop(0, steps, fill, empty)


def patch_mask(masks: Float[Array, '*b s s'], patch: int) -> Bool[Array, '*b n']:
  """Marks the patches that show any foreground, in row-major order.

  A patch is dropped only if all its pixels are background (average-pool, then ceil).
  """
  *batch, s, _ = masks.shape
  grid = s // patch
  tiles = masks.reshape(*batch, grid, patch, grid, patch)
  return jnp.any(tiles > 0, axis=(-3, -1)).reshape(*batch, grid * grid)
