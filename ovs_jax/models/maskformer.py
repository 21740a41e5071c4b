"""The proposer: MaskFormer whose queries carry CLIP-space embeddings (OVSeg, 3.2)."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ovs_jax.core.errors import UserError
from ovs_jax.core.limits import Depth, Maybe, Rate, Size
from ovs_jax.core.types import Array, Float, Int, Num, Params
from ovs_jax.models import backbones
from ovs_jax.models.content import SIZE_DIVISIBILITY, Content, repeat_edge, zero_outside
from ovs_jax.models.layers import Dtype, MlpHead, linear
from ovs_jax.models.pixel_decoder import PixelDecoder
from ovs_jax.models.query_decoder import QueryDecoder

# Pixel statistics of the backbones, RGB in 0..255.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


@dataclasses.dataclass(frozen=True)
class MaskFormerConfig:
  """Sizes of the proposer.

  Attributes:
    backbone: a preset of `models.backbones`, or its sizes.
    pixel_width: channels of the pixel decoder.
    mask_dim: channels of the mask features.
    groups: of the pixel decoder's group norms.
    num_queries: proposals per image.
    width: of the query decoder.
    heads: its attention heads.
    feed_forward: its hidden width.
    layers: its number of layers.
    dropout: its rate in training.
    embed_hidden: hidden width of the embedding head.
    embed_dim: of the CLIP that names the proposals.
    dtype: of the computation; parameters, softmax and statistics stay float32.
    remat: whether the backward pass computes the blocks of the backbone again
      instead of keeping what is inside them: a third more time, far less memory.
    num_classes: 0 for embeddings; else a linear classifier of so many classes and
      "no object" takes their place (MaskFormer without CLIP).
    project_input: whether a layer leads from the coarsest features to the decoder's
      width; Hugging Face has none where both have that width.
  """

  backbone: backbones.Preset | backbones.Config | Mapping[str, Any]
  pixel_width: Size
  mask_dim: Size
  groups: Size
  num_queries: Size
  width: Size
  heads: Size
  feed_forward: Size
  layers: Depth
  dropout: Rate
  embed_hidden: Size
  embed_dim: Size
  dtype: Dtype
  remat: bool = False
  num_classes: Maybe = 0
  project_input: bool = True

  def __post_init__(self) -> None:
    if self.num_queries < 1:
      raise UserError(f'num_queries must be at least 1, got {self.num_queries}')
    if isinstance(self.backbone, Mapping):  # as read from a checkpoint
      object.__setattr__(self, 'backbone', backbones.from_dict(self.backbone))

  def check_multiples(self) -> None:
    """Raises ValueError for widths that cannot be divided as they have to be."""
    if self.pixel_width % self.groups:
      raise UserError(
        f'pixel_width {self.pixel_width} is not a multiple of {self.groups} groups'
      )
    if self.width % self.heads or self.width % 4:
      raise UserError(
        f'width {self.width} is not a multiple of {self.heads} heads, and of 4, which '
        'sine waves need'
      )

  def backbone_config(self) -> backbones.Config:
    """Returns the sizes of the backbone."""
    return backbones.resolve(self.backbone)


_PUBLISHED = MaskFormerConfig(
  backbone='r101c',
  pixel_width=256,
  mask_dim=256,
  groups=32,
  num_queries=100,
  width=256,
  heads=8,
  feed_forward=2048,
  layers=6,
  dropout=0.1,
  embed_hidden=1024,
  embed_dim=512,
  dtype='float32',
)

PRESETS: dict[str, MaskFormerConfig] = {
  'r101c_b16': _PUBLISHED,
  'swin_b_l14': dataclasses.replace(_PUBLISHED, backbone='swin_base', embed_dim=768),
  # For the embedded world: 128x128 images of at most nine things.
  'tiny': MaskFormerConfig(
    backbone='tiny',
    pixel_width=48,
    mask_dim=48,
    groups=8,
    num_queries=20,
    width=128,
    heads=8,
    feed_forward=512,
    layers=2,
    dropout=0.0,
    embed_hidden=128,
    embed_dim=64,
    dtype='float32',
  ),
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Proposals:
  """What the proposer says of each query, for every decoder layer asked for.

  Attributes:
    embeddings: in CLIP's space, not L2-normalised; of a model with `num_classes` its
      logits, the last column for "no object".
    mask_logits: at stride 4.
    no_object: the embedding of "no object", L2-normalised; None with `num_classes`.
  """

  embeddings: Float[Array, 'l b q d']
  mask_logits: Float[Array, 'l b q y x']
  no_object: Float[Array, '1 d'] | None


def normalise(image: Num[Array, 'b h w 3']) -> Float[Array, 'b h w 3']:
  """Maps RGB in 0..255 to units of ImageNet's statistics."""
  shape = (1, 1, 1, 3)
  return (image - jnp.asarray(IMAGENET_MEAN).reshape(shape)) / jnp.asarray(
    IMAGENET_STD
  ).reshape(shape)


class MaskFormer(nn.Module):
  """Backbone, pixel decoder, query decoder and the two heads."""

  config: MaskFormerConfig

  @nn.compact
  def __call__(
    self,
    image: Num[Array, 'b h w 3'],
    *,
    size: Int[Array, '2'] | None = None,
    train: bool = False,
    all_layers: bool = False,
    masks: Float[Array, 'b t y x'] | None = None,
  ) -> Proposals:
    """Proposes masks.

    Args:
      image: RGB, 0..255; its sides are multiples of `SIZE_DIVISIBILITY`. Padding
        must hold `IMAGENET_MEAN`, which normalises to 0.
      size: height and width of the images without padding. Padding up to the next
        multiple of `SIZE_DIVISIBILITY` is seen, as in the reference, what comes
        after it is not. None shows everything.
      train: whether dropout is active (needs the rng 'dropout').
      all_layers: returns every decoder layer (deep supervision), not only the last.
      masks: appends a pilot for each (`QueryDecoder`); may be smaller than the image.
    """
    c = self.config
    c.check_multiples()
    dtype = jnp.dtype(c.dtype)
    h, w = image.shape[1:3]
    if min(h, w) < backbones.PATCH:
      raise UserError(
        f'an image of {h}x{w} pixels is smaller than a patch of {backbones.PATCH}x'
        f'{backbones.PATCH}'
      )
    content = None if size is None else Content.of_image(size, (h, w))
    image = zero_outside(normalise(image), content)
    backbone = backbones.build(
      c.backbone_config(), dtype, remat=c.remat, name='backbone'
    )
    features = backbone(image, content=content, train=train)
    decoder = PixelDecoder(
      c.pixel_width, c.mask_dim, c.groups, dtype, name='pixel_decoder'
    )
    pixels = decoder(features, content)
    queries = QueryDecoder(
      num_queries=c.num_queries,
      width=c.width,
      heads=c.heads,
      feed_forward=c.feed_forward,
      layers=c.layers,
      dropout=c.dropout,
      dtype=dtype,
      project_input=c.project_input,
      name='query_decoder',
    )(features[-1], train, content, masks)
    if not all_layers:
      queries = queries[-1:]
    widths = (c.width, c.width, c.mask_dim)
    mask_embed = MlpHead(widths, dtype, name='mask_embed')(queries)
    mask_logits = jnp.einsum(
      'lbqd,byxd->lbqyx', mask_embed, pixels, preferred_element_type=jnp.float32
    )
    embed, no_object = self._classes(queries, dtype)
    return Proposals(embed, repeat_edge(mask_logits, content), no_object)

  def _classes(self, queries: Array, dtype: Any) -> tuple[Array, Array | None]:
    """Returns what names the queries, and "no object"."""
    c = self.config
    no_object = None
    if c.num_classes:
      head = linear(c.num_classes + 1, name='class_predictor', dtype=dtype)
    else:
      head = MlpHead((c.embed_hidden, c.embed_dim), dtype, name='class_embed')
      no_object = self.param(
        'no_object', nn.initializers.normal(c.embed_dim**-0.5), (1, c.embed_dim)
      )
      no_object = no_object / jnp.linalg.norm(no_object, axis=-1, keepdims=True)
    return head(queries).astype(jnp.float32), no_object


@functools.partial(jax.jit, static_argnums=0)
def init_maskformer(config: MaskFormerConfig, key: Array) -> Params:
  """Returns freshly drawn parameters."""
  image = jnp.zeros((1, 2 * SIZE_DIVISIBILITY, 2 * SIZE_DIVISIBILITY, 3))
  return MaskFormer(config).init(key, image)['params']
