"""OVSeg: proposals, their crops through CLIP, and the two classifiers side by side."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.flops import count_flops
from ovs_jax.core.lookup import lookup
from ovs_jax.core.types import Array, Bool, Float, Num, Params
from ovs_jax.models.clip import ClipConfig
from ovs_jax.models.clip_fast import encode_crops
from ovs_jax.models.content import bucket_size
from ovs_jax.models.maskformer import IMAGENET_MEAN, MaskFormer, MaskFormerConfig
from ovs_jax.ops.ensemble import TEMPERATURE, class_logits
from ovs_jax.ops.regions import (
  RegionConfig,
  Regions,
  crop_regions,
  map_valid,
  patch_mask,
)
from ovs_jax.ops.resize import resize_bilinear

# Crops through CLIP at once, at most: as few as keep the device busy, since the last
# chunk is filled up with crops that nobody wants.
CROPS_AT_ONCE = {'cpu': 8}
_CROPS_ELSEWHERE = 32
DTYPES = ('float32', 'bfloat16')


@dataclasses.dataclass(frozen=True)
class Inference:
  """What the authors' configuration files set for the evaluation of a model.

  Attributes:
    threshold: of a mask's probability, above which its pixels are shown to CLIP.
    shortest: side in pixels that images are resized to.
    longest: and what their longer side is at most.
  """

  threshold: float
  shortest: int
  longest: int


# By the kind of the proposer's backbone.
PUBLISHED = {'Swin': Inference(0.4, 640, 2560), 'ResNet': Inference(0.5, 512, 2048)}


@dataclasses.dataclass(frozen=True)
class OvSegConfig:
  """The parts of the model.

  Attributes:
    proposer: sizes of the MaskFormer.
    clip: sizes of CLIP; its prompt depth says whether mask prompts are used.
    region: how proposals become crops; its size is CLIP's.
    chunk: regions that go through CLIP at once.
  """

  proposer: MaskFormerConfig
  clip: ClipConfig
  region: RegionConfig
  chunk: int

  def __post_init__(self) -> None:
    if self.region.size != self.clip.image_size:
      raise UserError(
        f'region.size {self.region.size} must be the clip.image_size '
        f'{self.clip.image_size}'
      )
    if self.proposer.embed_dim != self.clip.embed_dim:
      raise UserError(
        f'proposer.embed_dim {self.proposer.embed_dim} must be the clip.embed_dim '
        f'{self.clip.embed_dim}'
      )

  @classmethod
  def from_dict(cls, config: Mapping[str, Any]) -> 'OvSegConfig':
    """Reads what `to_dict` wrote."""
    return cls(
      proposer=MaskFormerConfig(**config['proposer']),
      clip=ClipConfig.from_dict(config['clip']),
      region=RegionConfig(**config['region']),
      chunk=config['chunk'],
    )

  def to_dict(self) -> dict[str, Any]:
    """Returns nested dicts for a checkpoint."""
    return dataclasses.asdict(self)

  def computing_in(self, dtype: str) -> 'OvSegConfig':
    """Returns the configuration with both networks in another precision of `DTYPES`."""
    lookup(dict.fromkeys(DTYPES), dtype, 'dtype')
    return dataclasses.replace(
      self,
      proposer=dataclasses.replace(self.proposer, dtype=dtype),
      clip=dataclasses.replace(self.clip, dtype=dtype),
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Encoded:
  """All that segmenting an image needs, whatever the names.

  Attributes:
    embeddings: of the proposals by the proposer.
    regions: of the proposals by CLIP.
    masks: probabilities at the network's resolution.
    boxes: x0, y0, x1, y1 at that resolution, exclusive ends.
    valid: proposals with any pixel above the mask threshold.
    no_object: L2-normalised embedding of "no object".
  """

  embeddings: Float[Array, '*b q d']
  regions: Float[Array, '*b q d']
  masks: Float[Array, '*b q h w']
  boxes: Num[Array, '*b q 4']
  valid: Bool[Array, '*b q']
  no_object: Float[Array, '*b 1 d']


def pad_image(
  image: Num[np.ndarray | Array, 'h w 3'], multiple: int
) -> Float[np.ndarray, 'H W 3']:
  """Pads right and bottom with the mean colour, which normalises to 0.

  On the host: a device would do it behind all that it was given before, and compile it
  for each new size.
  """
  h, w = image.shape[:2]
  return _pad(image, (-(-h // multiple) * multiple, -(-w // multiple) * multiple))


def pad_to_bucket(
  image: Num[np.ndarray | Array, 'h w 3'],
) -> Float[np.ndarray, 'H W 3']:
  """Pads like `pad_image`, but to one of few sizes (`models.content.SIDES`).

  What comes after the next multiple of 32 changes nothing in the image's part, as
  long as `encode_image` is told its size.
  """
  return _pad(image, bucket_size(*image.shape[:2]))


def _pad(image: np.ndarray | Array, size: tuple[int, int]) -> np.ndarray:
  padded = np.empty((*size, 3), np.float32)
  padded[...] = IMAGENET_MEAN
  padded[: image.shape[0], : image.shape[1]] = image
  return padded


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Proposed:
  """What the proposer says of an image.

  Attributes:
    embeddings: of the proposals by the proposer, in CLIP's space.
    mask_logits: at stride 4; `full_masks` makes the masks of them.
    no_object: L2-normalised embedding of "no object".
  """

  embeddings: Float[Array, 'q d']
  mask_logits: Float[Array, 'q y x']
  no_object: Float[Array, '1 d']


def propose(
  config: OvSegConfig,
  params: Params,
  image: Num[Array, 'h w 3'],
  size: Num[Array, '2'] | None = None,
) -> Proposed:
  """Proposes masks.

  Args:
    config: the model's.
    params: with the subtree `proposer`.
    image: RGB, 0..255, padded by `pad_image` or `pad_to_bucket`.
    size: height and width of the part that is not padding; None is all of it.
  """
  out = MaskFormer(config.proposer).apply(
    {'params': params['proposer']}, image[None].astype(jnp.float32), size=size
  )
  return Proposed(out.embeddings[-1, 0], out.mask_logits[-1, 0], out.no_object)


def full_masks(
  mask_logits: Float[Array, 'q y x'],
  full: tuple[int, int],
  size: Num[Array, '2'] | None = None,
) -> Float[Array, 'q h w']:
  """Returns the masks' probabilities.

  Args:
    mask_logits: at stride 4.
    full: height and width of the padded image.
    size: of the part that is not padding, outside of which masks are 0.
  """
  masks = jax.nn.sigmoid(resize_bilinear(mask_logits, full))
  if size is None:
    return masks
  y, x = (jnp.arange(length) for length in full)
  inside = (y[:, None] < size[0]) & (x[None] < size[1])
  return jnp.where(inside[None], masks, 0.0)


def encode_image(
  config: OvSegConfig,
  params: Params,
  image: Num[Array, 'h w 3'],
  size: Num[Array, '2'] | None = None,
  *,
  side: int = 0,
) -> Encoded:
  """Proposes masks and embeds each of them twice (OVSeg, sections 3.2-3.3).

  Args:
    config: the model's.
    params: with the subtrees `proposer` and `clip`.
    image: RGB, 0..255, padded by `pad_image` or `pad_to_bucket`.
    size: height and width of the part that is not padding; None is all of it.
      Masks are 0 in the padding. The networks see it up to the next multiple of 32,
      as in the reference.
    side: of the square that the proposer sees instead, while crops are cut from the
      image itself; 0 shows it the image. Not together with `size`.
  """
  seen = image.astype(jnp.float32)
  if side:
    seen = resize_bilinear(seen.transpose(2, 0, 1), (side, side)).transpose(1, 2, 0)
  proposed = propose(config, params, seen, size)
  masks = full_masks(proposed.mask_logits, image.shape[:2], size)
  regions = crop_regions(image, masks, config.region, statistics=config.clip.pixels)
  embeddings = embed_regions(config, params['clip'], regions)
  return Encoded(
    embeddings=proposed.embeddings,
    regions=embeddings,
    masks=masks,
    boxes=regions.boxes,
    valid=regions.valid,
    no_object=proposed.no_object,
  )


def embed_regions(
  config: OvSegConfig, params: Params, regions: Regions
) -> Float[Array, 'q d']:
  """Returns CLIP's embeddings of the crops, not L2-normalised.

  Args:
    config: the model's.
    params: CLIP's.
    regions: crops of one image, or of several one after the other. Only valid ones
      go through CLIP; the rows of the others are ones.
  """

  def embed(places: Array) -> Array:
    return embed_crops(config, params, regions.pixels[places], regions.masks[places])

  count = len(regions.valid)
  shown = _shown_patches(config, regions.masks)
  return map_valid(
    embed,
    regions.valid,
    jnp.ones((count, config.clip.embed_dim)),
    chunk=chunk_size(config),
    # Crops that show as many patches together: the largest decides for all.
    order=None if shown is None else jnp.sum(shown, axis=1),
  )


def chunk_size(config: OvSegConfig) -> int:
  """Returns how many crops go through CLIP at once."""
  most = CROPS_AT_ONCE.get(jax.default_backend(), _CROPS_ELSEWHERE)
  return min(config.chunk, most)


def embed_crops(
  config: OvSegConfig,
  params: Params,
  pixels: Float[Array, 'c s s 3'],
  masks: Float[Array, 'c s s'],
) -> Float[Array, 'c d']:
  """Returns CLIP's embeddings of crops, all at once, not L2-normalised.

  Args:
    config: the model's.
    params: CLIP's.
    pixels: the crops, normalised.
    masks: which of their pixels are foreground; patches without any are replaced by
      the mask prompts.
  """
  keep = _shown_patches(config, masks)
  return encode_crops(config.clip, params, pixels, keep)


def _shown_patches(
  config: OvSegConfig, masks: Float[Array, 'c s s']
) -> Bool[Array, 'c n'] | None:
  """Returns which patches keep their own content; None without mask prompts."""
  return patch_mask(masks, config.clip.patch) if config.clip.prompt_depth else None


def temperature(config: ClipConfig, params: Params) -> float:
  """Returns what cosines of regions are multiplied with, before the softmax over names.

  The papers' constant for a CLIP that was trained with a softmax. One that was trained
  with sigmoids has its own, `exp(logit_scale)`; its bias is the same for all names, and
  drops out: the ensemble asks which name it is, and not whether any is right.

  Args:
    config: of the CLIP.
    params: its parameters.
  """
  if config.scores == 'softmax':
    return TEMPERATURE
  return float(np.exp(np.asarray(params['logit_scale'], np.float32)))


def classify(
  encoded: Encoded,
  text: Float[Array, 'k d'],
  temperature: float | Float[Array, ''] = TEMPERATURE,
) -> tuple[Float[Array, 'q k1'], Float[Array, 'q k']]:
  """Returns the logits of the proposer (last column "no object") and of CLIP.

  Args:
    encoded: of one image.
    text: L2-normalised class embeddings.
    temperature: of CLIP; the proposer is trained with the papers'.

  Raises:
    ValueError: the embeddings are of another width.
  """
  widths = (encoded.embeddings.shape[-1], encoded.regions.shape[-1])
  if widths != (text.shape[1],) * 2:
    raise UserError(
      f'the class embeddings have {text.shape[1]} dimensions, those of the proposals '
      f'{widths[0]} (proposer) and {widths[1]} (CLIP): another CLIP wrote them'
    )
  with_none = jnp.concatenate([text, encoded.no_object])
  proposer = class_logits(encoded.embeddings, with_none)
  return proposer, class_logits(encoded.regions, text, temperature)


def image_gflops(
  config: OvSegConfig, params: Params, size: tuple[int, int]
) -> dict[str, float]:
  """Returns what one image costs, in 1e9 operations of matrix products.

  Args:
    config: of the model.
    params: its parameters.
    size: height and width of the proposer's input.

  Returns:
    `proposer`, for all masks, and `clip`, for as many crops as there are queries.
  """
  queries, crop = config.proposer.num_queries, config.region.size
  pixels = jax.ShapeDtypeStruct((queries, crop, crop, 3), jnp.float32)
  masks = jax.ShapeDtypeStruct((queries, crop, crop), jnp.float32)
  image = jax.ShapeDtypeStruct((*size, 3), jnp.float32)
  programs = {
    'proposer': jax.jit(lambda p, x: propose(config, p, x)).trace(params, image),
    'clip': jax.jit(lambda p, x, m: embed_crops(config, p['clip'], x, m)).trace(
      params, pixels, masks
    ),
  }
  return {k: round(count_flops(p.jaxpr) / 1e9, 4) for k, p in programs.items()}
