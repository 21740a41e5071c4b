"""CoSeg: a language model predicts an image's labels, a decoder their masks."""

import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ovs_jax.core.errors import UserError
from ovs_jax.core.limits import OneOf, Positive, Size, Weight
from ovs_jax.core.lookup import lookup
from ovs_jax.core.types import Array, Bool, Float, Int, Num, Params
from ovs_jax.models import clip, clipseg, clipseg_decoder, coseg_slots
from ovs_jax.models.clip import Clip, ClipConfig, init_clip, unit
from ovs_jax.models.clipseg_decoder import ClipSegDecoder, DecoderConfig
from ovs_jax.models.coseg_cross import CrossModel
from ovs_jax.models.coseg_prefix import PrefixModel
from ovs_jax.models.coseg_slots import LanguageConfig
from ovs_jax.models.layers import linear
from ovs_jax.ops import regions
from ovs_jax.ops.resize import resize_bilinear

LANGUAGE_MODELS = {'prefix': PrefixModel, 'cross': CrossModel}
STATISTICS = {'clip': regions.normalise, 'imagenet': clipseg.normalise}
UNLABELED = 'unlabeled'  # the text of slots without a class
_CHOICES = {
  'condition_norm': ('none', 'l2', 'l2_scaled'),
  'size_embedding': ('none', 'slot', 'area'),
  'statistics': tuple(STATISTICS),
}


@dataclasses.dataclass(frozen=True)
class CoSegParts:
  """What the model has beside its CLIP, with the paper's ambiguities as fields.

  Attributes:
    language: sizes of the model that turns patches into label embeddings.
    decoder: how masks are decoded; all slots share it.
    image_size: side of the input in pixels; the paper's is CLIP's own.
    statistics: of the pixels: CLIP's, as the language model reads the same activations,
      or ImageNet's.
    patch_norm: whether patches go through CLIP's last norm before its projection.
    condition_norm: what is done to a token before it conditions the decoder: nothing,
      or scaling to length 1, or to `condition_scale`.
    condition_scale: the length of conditions where `condition_norm` asks for it.
    language_out: whether a linear layer follows the language model.
    size_embedding: what tells the decoder about sizes, added to the condition: nothing
      (the paper), a learned vector per slot, or the predicted logarithm of the area.
    pool: length, beside 1 of a slot's token, of the mean of the projected patches under
      its mask, which is added where names are compared: CLIP's own word, of names that
      training had no masks of, too. 0 is the paper's. Nothing is trained for it.
  """

  language: LanguageConfig
  decoder: DecoderConfig
  image_size: Size
  statistics: Annotated[str, OneOf(_CHOICES['statistics'])]
  patch_norm: bool
  condition_norm: Annotated[str, OneOf(_CHOICES['condition_norm'])]
  condition_scale: Positive
  language_out: bool
  size_embedding: Annotated[str, OneOf(_CHOICES['size_embedding'])]
  pool: Weight


@dataclasses.dataclass(frozen=True)
class CoSegConfig(CoSegParts):
  """The parts of the model.

  Attributes:
    clip: sizes of CLIP, which is frozen.
  """

  clip: ClipConfig

  def parts(self) -> CoSegParts:
    """Returns all but the CLIP."""
    names = (field.name for field in dataclasses.fields(CoSegParts))
    return CoSegParts(**{name: getattr(self, name) for name in names})

  def __post_init__(self) -> None:
    for name, choices in _CHOICES.items():
      lookup(dict.fromkeys(choices), getattr(self, name), name)
    if max(self.decoder.extract) >= self.clip.vision_layers:
      raise UserError(
        f'decoder.extract {self.decoder.extract} needs more than the '
        f'{self.clip.vision_layers} blocks of this CLIP, counted from 0'
      )
    if self.image_size < self.clip.patch or self.image_size % self.clip.patch:
      raise UserError(
        f'image_size {self.image_size} is not a multiple of patch {self.clip.patch}'
      )
    if self.clip.embed_dim % 4 and self.language.image_position == 'sine':
      raise UserError(
        f'clip.embed_dim {self.clip.embed_dim} is no multiple of 4, which sine waves '
        "need; set language.image_position to 'learned' or 'none'"
      )
    if self.clip.embed_dim % self.language.heads:
      raise UserError(
        f'clip.embed_dim {self.clip.embed_dim} is not a multiple of '
        f'{self.language.heads} heads of the language model'
      )

  @classmethod
  def from_dict(cls, config: Mapping[str, Any]) -> 'CoSegConfig':
    """Reads what `to_dict` wrote."""
    parts = {
      'clip': ClipConfig.from_dict(config['clip']),
      'language': LanguageConfig(**config['language']),
      'decoder': DecoderConfig.from_dict(config['decoder']),
    }
    # What was stored before there was `pool` had none.
    return cls(**{'pool': 0.0, **config, **parts})

  def to_dict(self) -> dict[str, Any]:
    """Returns nested dicts for a checkpoint, as JSON has them."""
    return json.loads(json.dumps(dataclasses.asdict(self)))


def _paper(language: str) -> CoSegConfig:
  return CoSegConfig(
    clip=clip.PRESETS['b16'],
    language=coseg_slots.PRESETS[language],
    decoder=clipseg_decoder.PRESETS['coseg'],
    image_size=224,
    statistics='clip',
    patch_norm=True,
    condition_norm='none',
    condition_scale=1.0,
    language_out=False,
    size_embedding='none',
    pool=0.0,
  )


PRESETS: dict[str, CoSegConfig] = {name: _paper(name) for name in LANGUAGE_MODELS}


def tiny(language: str) -> CoSegConfig:
  """Returns sizes for the tiny CLIP; they train on a laptop in minutes."""
  paper = PRESETS[language]
  layers = {'prefix': (2, 0), 'cross': (1, 2)}[language]
  return dataclasses.replace(
    paper,
    clip=clip.PRESETS['tiny'],
    language=dataclasses.replace(
      paper.language,
      num_slots=10,
      encoder_layers=layers[0],
      decoder_layers=layers[1],
      mlp=256,
      dropout=0.0,
      pre_norm=True,
    ),
    # All blocks run once per image, as the condition acts after the last one, and most
    # of the upsampling is done by the last convolution.
    decoder=dataclasses.replace(
      clipseg_decoder.tiny('coseg'), film_steps=(2,), strides=(2, 4)
    ),
    image_size=128,
  )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prediction:
  """What CoSeg predicts for images.

  Attributes:
    tokens: a label embedding for each slot, not normalised.
    logits: a mask for each slot.
    log_areas: logarithm of each mask's share of the image; None unless predicted.
    beside: masks of the texts that were decoded beside the slots; None without any.
  """

  tokens: Float[Array, 'b n d']
  logits: Float[Array, 'b n h w']
  log_areas: Float[Array, 'b n'] | None
  beside: Float[Array, 'b t h w'] | None = None


class SizeEmbedding(nn.Module):
  """Adds to conditions what the decoder should know of sizes."""

  kind: str

  @nn.compact
  def __call__(
    self, tokens: Float[Array, 'b n d']
  ) -> tuple[Float[Array, 'b n d'], Float[Array, 'b n'] | None]:
    """Returns what to add, and the predicted logarithms of areas."""
    _, count, width = tokens.shape
    if self.kind == 'slot':
      table = self.param('slots', nn.initializers.normal(0.02), (count, width))
      return jnp.broadcast_to(table[None], tokens.shape), None
    area = linear(1, name='area', dtype=jnp.float32)(tokens)
    return linear(width, name='embed', dtype=jnp.float32)(area), area[..., 0]


class CoSeg(nn.Module):
  """CLIP, language model and mask decoder. No gradient enters CLIP."""

  config: CoSegConfig

  def setup(self) -> None:
    """Makes the parts."""
    c = self.config
    dtype = jnp.dtype(c.clip.dtype)
    self.clip = Clip(c.clip)
    self.language = LANGUAGE_MODELS[c.language.kind](c.language, dtype)
    self.decoder = ClipSegDecoder(c.decoder, dtype, c.clip.remat)
    if c.language_out:
      self.out = linear(c.clip.embed_dim, name='out', dtype=jnp.float32)
    if c.size_embedding != 'none':
      self.size = SizeEmbedding(c.size_embedding)

  def __call__(
    self,
    image: Num[Array, 'b h w 3'],
    *,
    train: bool = False,
    texts: Float[Array, 'b n d'] | None = None,
    forced: Bool[Array, 'b n'] | None = None,
    beside: Float[Array, 'b t d'] | None = None,
  ) -> Prediction:
    """Predicts tokens and masks.

    Args:
      image: RGB, 0..255; any size that is a multiple of the patch.
      train: whether to drop units out.
      texts: embeddings that replace tokens as conditions (teacher forcing).
      forced: slots where they do.
      beside: texts whose masks are decoded, too, and have nothing to do with slots.
    """
    activations, patches = self.encode(image)
    patch = self.config.clip.patch
    grid = (image.shape[1] // patch, image.shape[2] // patch)
    return self.predict(
      activations,
      patches,
      grid,
      train=train,
      texts=texts,
      forced=forced,
      beside=beside,
    )

  def encode(
    self, image: Num[Array, 'b h w 3']
  ) -> tuple[tuple[Float[Array, 'b m e'], ...], Float[Array, 'b l d']]:
    """Returns what the frozen CLIP gives: activations, and projected patches.

    Both are functions of the image alone and can be stored.
    """
    c = self.config
    pixels = STATISTICS[c.statistics](image.astype(jnp.float32))
    last = c.clip.vision_layers - 1
    out = self.clip.features(pixels, (*c.decoder.extract, last))
    patches = self.clip.visual.project(out[last][:, 1:], norm=c.patch_norm)
    activations = tuple(out[i] for i in c.decoder.extract)
    return jax.lax.stop_gradient((activations, patches))

  def predict(
    self,
    activations: tuple[Float[Array, 'b m e'], ...],
    patches: Float[Array, 'b l d'],
    grid: tuple[int, int],
    *,
    train: bool = False,
    texts: Float[Array, 'b n d'] | None = None,
    forced: Bool[Array, 'b n'] | None = None,
    beside: Float[Array, 'b t d'] | None = None,
  ) -> Prediction:
    """Predicts tokens and masks from what the frozen CLIP gives: the part that trains.

    Args:
      activations: from `encode`.
      patches: from `encode`.
      grid: patches per column and row.
      train: whether to drop units out.
      texts: embeddings that replace tokens as conditions (teacher forcing).
      forced: slots where they do; None is all of them.
      beside: texts whose masks are decoded, too, and have nothing to do with slots.
    """
    tokens = self.language(patches, grid, train=train)
    if self.config.language_out:
      tokens = self.out(tokens)
    condition = tokens
    if texts is not None:
      chosen = jnp.ones(tokens.shape[:2], bool) if forced is None else forced
      condition = jnp.where(chosen[:, :, None], texts, tokens)
    logits, areas = self.masks(activations, condition, grid, train=train)
    others = None
    if beside is not None:
      # Of texts nobody knows the place in the order of slots, and so no size.
      others, _ = self.masks(activations, beside, grid, train=train, sizes=False)
    if self.config.pool and not train:
      tokens = pooled(tokens, logits, patches, grid, share=self.config.pool)
    return Prediction(tokens, logits, areas, others)

  def masks(
    self,
    activations: tuple[Float[Array, 'b m e'], ...],
    condition: Float[Array, 'b n d'],
    grid: tuple[int, int],
    *,
    train: bool = False,
    sizes: bool = True,
  ) -> tuple[Float[Array, 'b n h w'], Float[Array, 'b n'] | None]:
    """Decodes one mask per condition; slots do not see each other here.

    With `sizes` the decoder is told of them as `config.size_embedding` has it. Masks
    have the size of the image; those of training that of the decoder's last layer,
    which is smaller where its strides have a smaller product than the patch.
    """
    c = self.config
    if c.condition_norm != 'none':
      scale = 1.0 if c.condition_norm == 'l2' else c.condition_scale
      condition = scale * unit(condition)
    areas = None
    if sizes and c.size_embedding != 'none':
      extra, areas = self.size(condition)
      condition = condition + extra
    logits = self.decoder(activations, condition, grid, train=train)
    if train:
      return logits, areas
    size = (grid[0] * c.clip.patch, grid[1] * c.clip.patch)
    return resize_bilinear(logits, size), areas


def pooled(
  tokens: Float[Array, 'b n d'],
  logits: Float[Array, 'b n h w'],
  patches: Float[Array, 'b l d'],
  grid: tuple[int, int],
  *,
  share: float,
) -> Float[Array, 'b n d']:
  """Adds to each token what is under its mask; both count by their directions.

  Args:
    tokens: of any length.
    logits: of the masks; their sides are multiples of the grid's.
    patches: in the same space, row by row.
    grid: patches per column and row.
    share: length of what is added, beside 1.
  """
  b, n, h, w = logits.shape
  cells = jax.nn.sigmoid(logits).reshape(b, n, grid[0], h // grid[0], grid[1], -1)
  weights = jnp.mean(cells, axis=(3, 5)).reshape(b, n, -1)
  return unit(tokens) + share * unit(jnp.einsum('bnl,bld->bnd', weights, patches))


@functools.partial(jax.jit, static_argnums=0)
def init_coseg(config: CoSegConfig, key: Array) -> Params:
  """Returns freshly drawn parameters; those of CLIP are under `clip`."""
  c = config.clip
  first, second = jax.random.split(key)
  side = config.image_size // c.patch
  tokens = tuple(
    jnp.zeros((1, 1 + side * side, c.vision_width)) for _ in config.decoder.extract
  )
  patches = jnp.zeros((1, side * side, c.embed_dim))
  drawn = CoSeg(config).init(second, tokens, patches, (side, side), method='predict')
  return {'clip': init_clip(c, first), **drawn['params']}


def slot_labels(
  tokens: Float[Array, 'b n d'], anchors: Float[Array, 'c d']
) -> tuple[Int[Array, 'b n'], Float[Array, 'b n c']]:
  """Returns the label of each slot, -1 for "unlabeled", and all cosines.

  Args:
    tokens: predicted, of any length.
    anchors: L2-normalised texts of the labels, that of "unlabeled" last.
  """
  cosines = unit(tokens) @ anchors.T
  labels = jnp.argmax(cosines, axis=2).astype(jnp.int32)
  return jnp.where(labels == anchors.shape[0] - 1, -1, labels), cosines
