"""CLIPSeg: a frozen CLIP and a small decoder; texts or pictures say what to segment."""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.limits import Size
from ovs_jax.core.types import Array, Float, Int, Num, Params
from ovs_jax.models import clip, clipseg_decoder
from ovs_jax.models.clip import Clip, ClipConfig, init_clip, trim_tokens
from ovs_jax.models.clipseg_decoder import (
  ClipSegDecoder,
  DecoderConfig,
  init_decoder,
)
from ovs_jax.models.maskformer import IMAGENET_MEAN, IMAGENET_STD
from ovs_jax.ops.resize import resize_bilinear

# Statistics of the pixels, RGB in 0..1. CLIPSeg takes these and not CLIP's own.


@dataclasses.dataclass(frozen=True)
class ClipSegParts:
  """What the model has beside its CLIP.

  Attributes:
    decoder: how masks are decoded.
    image_size: side that pictures are squashed to, in pixels.
    chunk: prompts that are decoded at once; bounds the memory.
  """

  decoder: DecoderConfig
  image_size: Size
  chunk: Size


@dataclasses.dataclass(frozen=True)
class ClipSegConfig(ClipSegParts):
  """The parts of the model.

  Attributes:
    clip: sizes of CLIP; mask prompts are not used.
  """

  clip: ClipConfig

  def __post_init__(self) -> None:
    self.clip.check_like_openai('CLIPSeg')
    if max(self.decoder.extract) >= self.clip.vision_layers:
      raise UserError(
        f'decoder.extract {self.decoder.extract} needs more than the '
        f'{self.clip.vision_layers} blocks of this CLIP, counted from 0'
      )
    if self.image_size < self.clip.patch or self.image_size % self.clip.patch:
      raise UserError(
        f'image_size {self.image_size} is not a multiple of patch {self.clip.patch}'
      )
    if self.chunk < 1:
      raise UserError(f'chunk {self.chunk} must be at least 1')

  @classmethod
  def from_dict(cls, config: Mapping[str, Any]) -> 'ClipSegConfig':
    """Reads what `to_dict` wrote."""
    parts = {
      'clip': ClipConfig.from_dict(config['clip']),
      'decoder': DecoderConfig.from_dict(config['decoder']),
    }
    return cls(**{**config, **parts})

  def to_dict(self) -> dict[str, Any]:
    """Returns nested dicts for a checkpoint, as JSON has them."""
    return json.loads(json.dumps(dataclasses.asdict(self)))


def _released(decoder: str) -> ClipSegConfig:
  return ClipSegConfig(
    clip=clip.PRESETS['b16'],
    decoder=clipseg_decoder.PRESETS[decoder],
    image_size=352,
    chunk=32,
  )


PRESETS: dict[str, ClipSegConfig] = {
  name: _released(name) for name in ('rd64', 'rd64_refined', 'rd16')
}


class ClipSeg(nn.Module):
  """CLIP and the decoder; `config` says their sizes. No gradient enters CLIP's image.

  Images are normalised with `normalise`, and may have any size that is a multiple of
  the patch.
  """

  config: ClipSegConfig

  def setup(self) -> None:
    """Makes both parts."""
    c = self.config
    self.clip = Clip(c.clip)
    self.decoder = ClipSegDecoder(c.decoder, jnp.dtype(c.clip.dtype), c.clip.remat)

  def __call__(
    self,
    image: Float[Array, 'b h w 3'],
    condition: Float[Array, 'b k d'],
    *,
    train: bool = False,
  ) -> Float[Array, 'b k y x']:
    """Returns the logits of every image under every condition.

    Their size is that of the image if the decoder's strides multiply to the patch.
    """
    patch = self.config.clip.patch
    grid = (image.shape[1] // patch, image.shape[2] // patch)
    return self.decode(self.activations(image), condition, grid, train=train)

  def activations(
    self, image: Float[Array, 'b h w 3']
  ) -> tuple[Float[Array, 'b n e'], ...]:
    """Returns CLIP's activations that the decoder reads, shallowest first."""
    out = self.clip.features(image, self.config.decoder.extract)
    return tuple(jax.lax.stop_gradient(out[i]) for i in self.config.decoder.extract)

  def decode(
    self,
    activations: tuple[Float[Array, 'b n e'], ...],
    condition: Float[Array, 'b k d'],
    grid: tuple[int, int],
    *,
    train: bool = False,
  ) -> Float[Array, 'b k y x']:
    """Decodes one mask for every image and condition; returns logits.

    Args:
      activations: of CLIP, from `activations`.
      condition: embeddings that say what to segment, not normalised.
      grid: patches per column and row.
      train: whether to drop units out.
    """
    return self.decoder(activations, condition, grid, train=train)

  def encode_text(self, tokens: Int[Array, 'k t']) -> Float[Array, 'k d']:
    """Returns conditions: CLIP's embeddings of texts, not normalised."""
    return self.clip.encode_text(tokens)

  def encode_prompt_image(self, image: Float[Array, 'k h w 3']) -> Float[Array, 'k d']:
    """Returns conditions: CLIP's embeddings of pictures, not normalised."""
    last = self.config.clip.vision_layers - 1
    out = self.clip.features(image, (last,))
    return self.clip.visual.project(out[last][:, 0])


@functools.partial(jax.jit, static_argnums=0)
def init_clipseg(config: ClipSegConfig, key: Array) -> Params:
  """Returns freshly drawn parameters, with the subtrees `clip` and `decoder`."""
  c = config.clip
  first, second = jax.random.split(key)
  decoder = init_decoder(
    config.decoder, second, width=c.vision_width, embed_dim=c.embed_dim
  )
  return {'clip': init_clip(c, first), 'decoder': decoder}


def check_decoder(config: ClipSegConfig, params: Params) -> None:
  """Raises ValueError if the decoder was made for another CLIP."""
  width = params['decoder']['reduce_0']['kernel'].shape[0]
  conditions = {
    x['kernel'].shape[0]
    for name, x in params['decoder'].items()
    if name.startswith('film_')
  }
  want = (config.clip.vision_width, config.clip.embed_dim)
  if width != want[0] or conditions - {want[1]}:
    raise UserError(
      f'this decoder was made for a CLIP of width {width} with embeddings of '
      f'{max(conditions, default=want[1])}; the CLIP given has width {want[0]} and '
      f'embeddings of {want[1]}. Give the CLIP that it was trained with'
    )


def normalise(image: Num[Array, '*b 3']) -> Float[Array, '*b 3']:
  """Maps RGB in 0..255 to units of ImageNet's statistics."""
  shape = (1,) * (image.ndim - 1) + (3,)
  # In float32 these are no products of 255 and those in 0..1, which are published.
  mean, std = (
    255 * np.float32(np.asarray(x) / 255).reshape(shape)
    for x in (IMAGENET_MEAN, IMAGENET_STD)
  )
  return (image - mean) / std


def embed_texts(
  config: ClipConfig,
  params: Params,
  sentences: Sequence[str],
  tokenize: Callable[[Sequence[str]], Int[np.ndarray, 'k t']],
  *,
  chunk: int = 256,
) -> Float[np.ndarray, 'k d']:
  """Returns conditions for sentences, not normalised, computed in float32.

  Args:
    config: of the CLIP whose `params` are given.
    params: the whole CLIP's parameters.
    sentences: whole prompts, such as 'a photo of a cat.'.
    tokenize: from sentences to ids of `config.context_length` columns.
    chunk: sentences embedded at once.

  Raises:
    ValueError: there are none.
  """
  if not sentences:
    raise UserError('no prompts given; expected at least one sentence')
  tokens = trim_tokens(tokenize(sentences))
  size = min(chunk, max(8, 2 ** (len(tokens) - 1).bit_length()))
  rows = []
  for start in range(0, len(tokens), size):
    part = tokens[start : start + size]
    padded = np.zeros((size, tokens.shape[1]), np.int32)
    padded[: len(part)] = part
    rows.append(np.asarray(_embed(config, params, padded))[: len(part)])
  return np.concatenate(rows)


@functools.partial(jax.jit, static_argnums=0)
def _embed(
  config: ClipConfig, params: Params, tokens: Int[Array, 'k t']
) -> Float[Array, 'k d']:
  config = dataclasses.replace(config, dtype='float32')
  return Clip(config).apply({'params': params}, tokens, method='encode_text')


@functools.partial(jax.jit, static_argnums=0)
def encode(
  config: ClipSegConfig, params: Params, image: Float[Array, 'b h w 3']
) -> tuple[Float[Array, 'b n e'], ...]:
  """Returns what decoding needs of images, whatever the prompts."""
  return ClipSeg(config).apply({'params': params}, image, method='activations')


@functools.partial(jax.jit, static_argnums=(0, 4))
def decode(
  config: ClipSegConfig,
  params: Params,
  activations: tuple[Float[Array, 'b n e'], ...],
  condition: Float[Array, 'b k d'],
  size: tuple[int, int],
) -> Float[Array, 'b k h w']:
  """Returns the logits of the prompts' masks, from CLIP's activations."""
  grid = (size[0] // config.clip.patch, size[1] // config.clip.patch)
  logits = ClipSeg(config).apply(
    {'params': params}, activations, condition, grid, method='decode'
  )
  # Strides that do not multiply to the patch give another size.
  return resize_bilinear(logits, size)


def decode_chunks(
  config: ClipSegConfig,
  params: Params,
  activations: tuple[Float[Array, 'b n e'], ...],
  condition: Float[Any, '*b k d'],
  size: tuple[int, int],
) -> Iterator[tuple[int, Float[np.ndarray, 'b c h w']]]:
  """Decodes `config.chunk` prompts at a time.

  Args:
    config: the model's.
    params: with the subtrees `clip` and `decoder`.
    activations: from `encode`.
    condition: embeddings of the prompts, the same for all images or per image.
    size: height and width of the images that were encoded.

  Yields:
    The index of the first prompt, and the logits of the prompts from there on.

  Raises:
    ValueError: there are no prompts, or they are of another CLIP.
  """
  condition = np.asarray(condition, np.float32)
  count, width = condition.shape[-2:]
  if not count:
    raise UserError('no prompts given; expected at least one embedding')
  check_decoder(config, params)
  if width != config.clip.embed_dim:
    raise UserError(
      f'the prompts have {width} dimensions, this CLIP embeds in '
      f'{config.clip.embed_dim}; embed them with the same CLIP'
    )
  images = activations[0].shape[0]
  condition = np.broadcast_to(condition, (images, count, width))
  for start in range(0, count, config.chunk):
    part = condition[:, start : start + config.chunk]
    used = part.shape[1]
    padding = min(config.chunk, few(used)) - used
    part = np.pad(part, ((0, 0), (0, padding), (0, 0)))
    logits = decode(config, params, activations, part, tuple(size))
    yield start, np.asarray(logits[:, :used])


def few(count: int) -> int:
  """Returns the next of 1, 2, 3, 4, 6, 8, 12, 16, 24, ...: few programs, few zeros."""
  power = 2 ** (count - 1).bit_length()
  return 3 * power // 4 if power >= 4 and count <= 3 * power // 4 else power


def segment(
  config: ClipSegConfig,
  params: Params,
  image: Float[Any, 'b h w 3'],
  condition: Float[Any, '*b k d'],
) -> Float[np.ndarray, 'b k h w']:
  """Returns the logits of every image under every prompt; sigmoid is outside.

  CLIP sees each image once, whatever the number of prompts.

  Args:
    config: the model's.
    params: with the subtrees `clip` and `decoder`.
    image: normalised with `normalise`; both sides multiples of the patch.
    condition: from `embed_texts` or `ClipSeg.encode_prompt_image`; the same for all
      images, or per image.

  Raises:
    ValueError: no prompts, an image that does not consist of whole patches, or a
      decoder or prompts of another CLIP.
  """
  image = jnp.asarray(image, jnp.float32)
  check_decoder(config, params)
  activations = encode(config, params, image)
  size = (image.shape[1], image.shape[2])
  parts = decode_chunks(config, params, activations, condition, size)
  return np.concatenate([logits for _, logits in parts], axis=1)
