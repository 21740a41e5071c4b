"""Masks that are given in place of proposals: CLIP sees them as it sees proposals."""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from ovs_jax.core.errors import UserError
from ovs_jax.core.images import resize_shortest
from ovs_jax.core.mask_set import MaskSet
from ovs_jax.core.types import Array, Bool, Float, Num, Params, UInt8
from ovs_jax.inference.weigh import Weights
from ovs_jax.models import clip_mix, ovseg

_AT_ONCE = 32  # masks on the device, in the network's size
_WEIGHED_AT_ONCE = 4096  # masks that names are compared with at once


@dataclasses.dataclass(frozen=True)
class EncodedMasks:
  """A picture with masks that were given, whatever the names.

  Attributes:
    masks: in the picture's size.
    regions: embeddings of the masks by all CLIPs; ones where nothing is shown.
    valid: masks with any pixel above the mask threshold; the others get no name.
  """

  masks: MaskSet
  regions: Float[np.ndarray, 'n e']
  valid: Bool[np.ndarray, 'n']

  @property
  def size(self) -> tuple[int, int]:
    """Height and width of the picture."""
    return self.masks.size


def encode_masks(
  config: ovseg.OvSegConfig,
  params: Params,
  picture: UInt8[np.ndarray, 'h w 3'],
  masks: MaskSet,
  *,
  shortest: int,
  longest: int,
) -> EncodedMasks:
  """Embeds what masks show, some at a time.

  The picture and the masks are resized as a picture is for the proposer. A mask that is
  too thin to be seen there shows all pixels that it touches.

  Args:
    config: the model's.
    params: the model's.
    picture: RGB.
    masks: of the picture's size.
    shortest: the picture's shorter side for CLIP's crops.
    longest: limit of the longer one.
  """
  small = resize_shortest(picture, shortest=shortest, longest=longest)
  image = ovseg.pad_to_bucket(small)
  regions, valid = [], []
  for _, rows, shown in _seen(config, params, image, small.shape[:2], masks):
    regions.append(np.asarray(rows))
    valid.append(np.asarray(shown))
  count = len(masks)
  return EncodedMasks(
    masks, np.concatenate(regions)[:count], np.concatenate(valid)[:count]
  )


def as_proposals(
  config: ovseg.OvSegConfig,
  params: Params,
  image: Num[np.ndarray, 'h w 3'],
  content: tuple[int, int],
  masks: MaskSet,
) -> ovseg.Encoded:
  """Returns masks as proposals, of which the proposer says nothing.

  All of them are in memory in the network's size. They are followed by empty ones up to
  a multiple of 32.

  Args:
    config: the model's.
    params: the model's.
    image: as the network sees it, in a bucket.
    content: height and width of the part of it that is the picture.
    masks: of the picture's own size.
  """
  parts = zip(*_seen(config, params, image, content, masks), strict=True)
  shown, regions, valid = (jnp.concatenate(part) for part in parts)
  own = config.proposer.embed_dim
  return ovseg.Encoded(
    embeddings=jnp.ones((len(regions), own)),
    regions=regions,
    masks=shown,
    boxes=jnp.zeros((len(regions), 4)),
    valid=valid,
    no_object=jnp.ones((1, own)),
  )


def _seen(
  config: ovseg.OvSegConfig,
  params: Params,
  image: Num[np.ndarray, 'h w 3'],
  content: tuple[int, int],
  masks: MaskSet,
) -> Iterator[tuple[Float[np.ndarray, 'q h w'], Array, Array]]:
  """Yields some masks at a time, CLIP's embeddings of them, and which show anything."""
  pixels = jnp.asarray(image)
  for block in _blocks(masks, content, image.shape[:2], config.region.threshold):
    yield (block, *_embed(config, params, pixels, block))


def _blocks(
  masks: MaskSet, small: tuple[int, int], padded: tuple[int, int], threshold: float
) -> Iterator[Float[np.ndarray, 'q h w']]:
  """Yields masks in the network's size, the last ones followed by empty ones."""
  for start in range(0, len(masks), _AT_ONCE):
    block = np.zeros((_AT_ONCE, *padded), np.float32)
    for i in range(start, min(start + _AT_ONCE, len(masks))):
      block[i - start, : small[0], : small[1]] = shrink(masks.full(i), small, threshold)
    yield block


def shrink(
  mask: Float[np.ndarray, 'h w'], size: tuple[int, int], threshold: float
) -> Float[np.ndarray, 'y x']:
  """Resizes a mask; what has a pixel above the threshold keeps one.

  Args:
    mask: in 0..1.
    size: wanted height and width.
    threshold: above which pixels are shown.
  """
  if mask.shape == size:
    return mask
  resized = Image.fromarray(mask).resize(size[::-1], Image.Resampling.BILINEAR)
  found = np.asarray(resized)
  if (found > threshold).any():
    return found
  y, x = np.nonzero(mask > threshold)
  found = found.copy()
  found[y * size[0] // mask.shape[0], x * size[1] // mask.shape[1]] = 1
  return found


@functools.partial(jax.jit, static_argnums=0)
def _embed(
  config: ovseg.OvSegConfig,
  params: Params,
  image: Num[Array, 'h w 3'],
  masks: Float[Array, 'q h w'],
) -> tuple[Float[Array, 'q e'], Bool[Array, 'q']]:
  """Cuts the crops of some masks and embeds them; empty ones cost nothing."""
  regions = clip_mix.cut_regions(config, image, masks)
  return clip_mix.embed_all(config, params, regions), regions[0].valid


def weigh_masks(
  picture: EncodedMasks,
  run: Callable[[ovseg.Encoded], Weights],
  count: int,
  rule: str,
  own: int,
) -> tuple[Float[np.ndarray, 'n k'], Float[np.ndarray, 'n k']]:
  """Returns the masks' class weights and CLIP's probabilities.

  Args:
    picture: with the masks' embeddings.
    run: `weigh`, of the classifier 'clip'.
    count: of the classes.
    rule: one of `RULES`; under 'demo' masks compete, and all are needed at once.
    own: length of the first CLIP's embeddings, which is the proposer's.
  """
  total = len(picture.masks)
  step = total if rule == 'demo' else _WEIGHED_AT_ONCE
  weights, by_clip = [], []
  for start in range(0, total, step):
    part = slice(start, min(start + step, total))
    found = run(_encoded(picture, part, own))
    weights.append(np.asarray(found[0])[: part.stop - start, :count])
    by_clip.append(np.asarray(found[2])[: part.stop - start, :count])
  return np.concatenate(weights), np.concatenate(by_clip)


def _encoded(picture: EncodedMasks, part: slice, own: int) -> ovseg.Encoded:
  """Returns masks as proposals, of which the proposer says nothing.

  They are padded to a power of 2 with invalid ones, so that few programs are compiled.
  """
  rows, valid = picture.regions[part], picture.valid[part]
  more = max(8, 1 << (len(rows) - 1).bit_length()) - len(rows)
  rows = np.pad(rows, ((0, more), (0, 0)), constant_values=1)
  count = len(rows)
  return ovseg.Encoded(
    embeddings=jnp.ones((count, own)),
    regions=jnp.asarray(rows),
    masks=jnp.zeros((count, 1, 1)),
    boxes=jnp.zeros((count, 4)),
    valid=jnp.asarray(np.pad(valid, (0, more))),
    no_object=jnp.ones((1, own)),
  )


def clip_alone(
  classifier: str | None, weight: float | None, panoptic: bool, mode: str
) -> str:
  """Returns the classifier of masks that are given.

  Raises:
    ValueError: something does not go with such masks.
  """
  if classifier not in (None, 'clip') or weight is not None:
    raise UserError(
      'masks that are given are named by CLIP alone: the proposer knows its own; '
      "leave classifier and weight out, or take classifier='clip'"
    )
  if panoptic:
    raise UserError(
      'a panoptic result divides proposals, not masks that are given; leave panoptic '
      "out, or take rule='each' for a name per mask"
    )
  if mode != 'exact':
    raise UserError(
      f'the mode {mode!r} chooses among proposals; of masks that are given CLIP sees '
      "each: load the model in the mode 'exact'"
    )
  return 'clip'
