"""OVSeg: proposals, their crops through CLIP, and the two classifiers side by side."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.flops import count_flops
from ovs_jax.core.types import Array, Bool, Float, Num, Params
from ovs_jax.models.clip_mix import (
  Mix,
  chunk_size,
  cut_regions,
  embed_all,
  embed_crops,
  embed_regions,
  temperature,
  towers,
)
from ovs_jax.models.content import bucket_size
from ovs_jax.models.maskformer import IMAGENET_MEAN, MaskFormer
from ovs_jax.models.ovseg_config import DTYPES, PUBLISHED, Inference, OvSegConfig
from ovs_jax.ops.ensemble import TEMPERATURE, average, class_logits
from ovs_jax.ops.resize import resize_bilinear

__all__ = [  # and what is below
  'DTYPES',
  'PUBLISHED',
  'Inference',
  'OvSegConfig',
  'chunk_size',
  'embed_crops',
  'embed_regions',
  'temperature',
]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Encoded:
  """All that segmenting an image needs, whatever the names.

  Attributes:
    embeddings: of the proposals by the proposer.
    regions: of the proposals by CLIP; by several, one after the other.
    masks: probabilities at the network's resolution.
    boxes: x0, y0, x1, y1 at that resolution, exclusive ends.
    valid: proposals with any pixel above the mask threshold.
    no_object: L2-normalised embedding of "no object".
  """

  embeddings: Float[Array, '*b q d']
  regions: Float[Array, '*b q e']
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
    params: with the subtrees `proposer` and `clip`, and those of further CLIPs.
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
  regions = cut_regions(config, image, masks)
  return Encoded(
    embeddings=proposed.embeddings,
    regions=embed_all(config, params, regions),
    masks=masks,
    boxes=regions[0].boxes,
    valid=regions[0].valid,
    no_object=proposed.no_object,
  )


def classify(
  encoded: Encoded, text: Float[Array, 'k e'], mix: Mix | None = None
) -> tuple[Float[Array, 'q k1'], Float[Array, 'q k']]:
  """Returns the logits of the proposer (last column "no object") and of CLIP.

  Arguments and errors are those of `classify_each`; of several CLIPs it is what
  `ops.ensemble.average` makes of them.
  """
  proposer, by_clips = classify_each(encoded, text, mix)
  return proposer, average(by_clips, (1.0,) if mix is None else mix.weights)


def classify_each(
  encoded: Encoded, text: Float[Array, 'k e'], mix: Mix | None = None
) -> tuple[Float[Array, 'q k1'], Float[Array, 'm q k']]:
  """Returns the logits of the proposer (last column "no object") and of each CLIP.

  Args:
    encoded: of one image.
    text: L2-normalised class embeddings; of several CLIPs from `clip_mix.join_names`.
    mix: of the CLIPs; None: one, with the papers' temperature. The proposer is trained
      with that.

  Raises:
    ValueError: the embeddings are of another width.
  """
  own, regions = encoded.embeddings.shape[-1], encoded.regions.shape[-1]
  mix = mix or Mix((own,), (TEMPERATURE,))
  widths = mix.widths if len(mix.widths) > 1 else (own,)
  if widths[0] != own or {regions, text.shape[1]} != {sum(widths)}:
    raise UserError(
      f'the class embeddings have {text.shape[1]} dimensions, those of the proposals '
      f'{own} (proposer) and {regions} (CLIP): another CLIP wrote them'
    )
  names = mix.split(text)
  with_none = jnp.concatenate([names[0], encoded.no_object])
  return class_logits(encoded.embeddings, with_none), mix.logits(encoded.regions, text)


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
  queries = config.proposer.num_queries
  image = jax.ShapeDtypeStruct((*size, 3), jnp.float32)
  programs = [jax.jit(lambda p, x: propose(config, p, x)).trace(params, image)]
  for one, own in towers(config, params):
    crops = (queries, one.region.size, one.region.size)
    pixels, masks = (
      jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((*crops, 3), crops)
    )
    run = jax.jit(embed_crops, static_argnums=0)
    programs.append(run.trace(one, own, pixels, masks))
  proposer, *by_clip = (count_flops(program.jaxpr) / 1e9 for program in programs)
  return {'proposer': round(proposer, 4), 'clip': round(sum(by_clip), 4)}
