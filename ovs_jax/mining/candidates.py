"""The masks of an image among which a noun finds its own: proposals or the truth."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.images import resize_shortest
from ovs_jax.core.masks import box_of
from ovs_jax.core.types import Array, Bool, Float, Int, Num, Params, UInt8, void_of
from ovs_jax.models import ovseg
from ovs_jax.models.clip import ClipConfig
from ovs_jax.models.clip_fast import encode_images
from ovs_jax.ops.regions import RegionConfig, crop_regions, patch_mask
from ovs_jax.settings import Mining

_MULTIPLE = 64  # sides of padded images, so that few sizes are compiled


@dataclasses.dataclass(frozen=True)
class Candidates:
  """The masks of one image.

  Attributes:
    image: in which the masks are; the pairs are cut out of it.
    boxes: x0, y0, x1, y1, exclusive ends.
    areas: pixels of every mask; 0 for one that is none.
    regions: what CLIP makes of the crops, not L2-normalised; None if not asked.
    classes: train id of every mask, where they are the truth.
    mask: gives a mask by its number.
  """

  image: UInt8[np.ndarray, 'h w 3']
  boxes: Int[np.ndarray, 'q 4']
  areas: Int[np.ndarray, 'q']
  regions: Float[np.ndarray, 'q d'] | None
  classes: Int[np.ndarray, 'q'] | None
  mask: Callable[[int], Bool[np.ndarray, 'h w']]


def propose(
  model: ovseg.OvSegConfig,
  params: Params,
  image: UInt8[np.ndarray, 'h w 3'],
  *,
  shortest: int,
  longest: int,
) -> Candidates:
  """Proposes masks for a photo, on the device where the parameters lie.

  Args:
    model: sizes of the OVSeg.
    params: of the model, on one device.
    image: RGB; the candidates hold it resized.
    shortest: side that it is resized to, as for prediction; 0 leaves it as it is, a
      size of its own to compile for.
    longest: limit of the other side.
  """
  padded, size = image, None
  if shortest:
    image = resize_shortest(image, shortest=shortest, longest=longest)
    padded, size = ovseg.pad_to_bucket(image), np.array(image.shape[:2], np.int32)
  binary, *found = propose_masks(model, params, padded, size)
  areas, boxes, regions = (np.asarray(x) for x in found)
  mask = functools.partial(_mask, binary, image.shape[:2])
  return Candidates(image, boxes, areas, regions, None, mask)


@functools.partial(jax.jit, static_argnums=0)
def propose_masks(
  model: ovseg.OvSegConfig,
  params: Params,
  image: Num[Array, 'h w 3'],
  size: Int[Array, '2'] | None,
) -> tuple[
  Bool[Array, 'q h w'], Int[Array, 'q'], Int[Array, 'q 4'], Float[Array, 'q d']
]:
  """Returns the masks, and of each its area, box and embedding."""
  encoded = ovseg.encode_image(model, params, image, size)
  binary = encoded.masks > model.region.threshold
  areas = jnp.where(encoded.valid, jnp.sum(binary, axis=(1, 2)), 0)
  return binary, areas, encoded.boxes, encoded.regions


def _mask(binary: Array, size: tuple[int, int], q: int) -> Bool[np.ndarray, 'h w']:
  """Fetches one mask from its device."""
  return np.asarray(binary[q])[: size[0], : size[1]]


def true_masks(
  image: UInt8[np.ndarray, 'h w 3'],
  label: Num[np.ndarray, 'h w'],
  *,
  embed: Callable[..., Float[np.ndarray, 'q d']] | None = None,
) -> Candidates:
  """One mask for each class of a label map.

  Args:
    image: RGB.
    label: train ids; the largest number of its type is void.
    embed: from the image and its masks to CLIP's embeddings; None: not needed.
  """
  classes = np.array(
    [k for k in np.unique(label) if k != void_of(label.dtype)], np.int32
  )
  masks = label[None] == classes[:, None, None]
  return Candidates(
    image=image,
    boxes=np.array([box_of(mask) for mask in masks], np.int32).reshape(-1, 4),
    areas=masks.sum(axis=(1, 2)),
    regions=embed(image, masks) if embed is not None and len(classes) else None,
    classes=classes,
    mask=masks.__getitem__,
  )


def embed_masks(
  config: ClipConfig,
  params: Params,
  region: RegionConfig,
  image: UInt8[np.ndarray, 'h w 3'],
  masks: Bool[np.ndarray, 'q h w'],
) -> Float[np.ndarray, 'q d']:
  """Embeds masked crops with CLIP, not L2-normalised; pads to few shapes."""
  count, h, w = masks.shape
  sides = (-(-h // _MULTIPLE) * _MULTIPLE - h, -(-w // _MULTIPLE) * _MULTIPLE - w)
  corner = ((0, sides[0]), (0, sides[1]))
  image = np.pad(image, (*corner, (0, 0)))
  masks = np.pad(masks, ((0, -count % 8), *corner))
  rows = embed_padded(config, params, region, image, masks.astype(np.float32))
  return np.asarray(rows)[:count]


@functools.partial(jax.jit, static_argnums=(0, 2))
def embed_padded(
  config: ClipConfig,
  params: Params,
  region: RegionConfig,
  image: UInt8[Array, 'h w 3'],
  masks: Float[Array, 'q h w'],
) -> Float[Array, 'q d']:
  """Embeds the masked crops of a picture that was padded."""
  crops = crop_regions(image, masks, region, statistics=config.pixels)
  keep = patch_mask(crops.masks, config.patch) if config.prompt_depth else None
  return encode_images(config, params, crops.pixels, keep)


def check_sources(config: Mining, features: Sequence[str]) -> None:
  """Refuses settings of `config.mining` that the data set cannot serve.

  Raises:
    ValueError: masks or class names without label maps, or captions without any.
  """
  truth = [
    key
    for key, value in (('masks', 'truth'), ('nouns', 'classes'))
    if getattr(config, key) == value
  ]
  if truth and 'label' not in features:
    raise UserError(
      f'config.mining.{truth[0]}={getattr(config, truth[0])!r} needs label maps, '
      'which this data set does not have'
    )
  if config.nouns == 'captions' and not (config.caption_file or 'captions' in features):
    raise UserError(
      "config.mining.nouns='captions' needs captions, which this data set does not "
      'have; name a file of COCO captions with config.mining.caption_file'
    )
