"""What a CLIP is: sizes of two towers, and how each differs from OpenAI's."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import jax.numpy as jnp

from ovs_jax.core.errors import UserError
from ovs_jax.core.limits import Depth, Maybe, Natural, OneOf, Positive, Range, Size
from ovs_jax.core.lookup import lookup
from ovs_jax.core.types import Array, Float
from ovs_jax.models.clip_blocks import Tower
from ovs_jax.models.layers import ACTIVATIONS, NORM_EPSILON, Dtype
from ovs_jax.ops.regions import CLIP_PIXELS, INTERPOLATIONS, Pixels
from ovs_jax.ops.resize import resize_positions
from ovs_jax.ops.rotary import grid_angles
from ovs_jax.text.trained_tokenizer import CLEANINGS

# How tokens become one embedding, and what maps it to the joint space.
POOLS = ('class', 'map', 'mean')
TEXT_POOLS = ('end', 'last', 'mean')
POSITIONS = ('learned', 'sinusoidal')
PROJECTIONS = ('matrix', 'bias', 'none')
IMAGE_PROJECTIONS = (*PROJECTIONS, 'mlp')
STRIDE = 32  # pixels of a ConvNeXt's place
STAGES = 4
ROPES = ('', 'eva', 'pe')
SCORES = ('softmax', 'sigmoid')
NO_TOKENIZER = 'none'
TOKENIZER_FIELDS = ('tokenizer', 'cleaning', 'start', 'end', 'pad')  # of `TextTower`


@dataclasses.dataclass(frozen=True)
class ImageTower:
  """What an image tower computes; the defaults are OpenAI's vision transformer.

  Attributes:
    class_token: whether a learned token comes before the patches.
    patch_bias: whether patches are embedded with a bias.
    pre_norm: whether a norm comes before the first block.
    pool: 'class': the class token is the embedding. 'map': a learned probe attends to
      all tokens, and an MLP follows (SigLIP). 'mean': of the patches, before the last
      norm (CLIPA).
    pool_heads: of the probe's attention.
    projection: to the joint space: a matrix, one with a bias, or none; or of a ConvNeXt
      an MLP whose last matrix has no bias.
    pool_mlp: hidden units of the MLP behind the probe, 0: those of a block's.
    norm_after: whether norms come behind attention and MLP, and not before them.
    gated: whether MLPs are SwiGLU, with a SiLU in place of the activation.
    inner_norms: whether attention and MLP have a norm before their last projection.
    key_bias: whether keys are projected with a bias.
    rope: by which queries and keys are turned, beside the table of positions: '' (not
      at all), 'eva' (EVA02), 'pe' (PE-Core: columns first, and from 1 behind a class
      token). Tokens before the patches are not turned.
    rope_grid: rows and columns that places are told in, whatever the picture's grid;
      0: its own.
    resize_positions: how the table becomes one of another grid.
    antialias: whether that antialiases, as open_clip, timm and TIPSv2 do; no
      antialiasing is Hugging Face's way.
    stages: blocks of each of a ConvNeXt's four stages, the last of `vision_width` and
      those before half as wide each; its `patch` is 32. (): a vision transformer.
    registers: learned tokens without a position behind the class token (TIPSv2).
  """

  class_token: bool = True
  patch_bias: bool = False
  pre_norm: bool = True
  pool: Annotated[str, OneOf(POOLS)] = 'class'
  pool_heads: Maybe = 0
  projection: Annotated[str, OneOf(IMAGE_PROJECTIONS)] = 'matrix'
  pool_mlp: Maybe = 0
  norm_after: bool = False
  gated: bool = False
  inner_norms: bool = False
  key_bias: bool = True
  rope: Annotated[str, OneOf(ROPES)] = ''
  rope_grid: Maybe = 0
  resize_positions: Annotated[str, OneOf(INTERPOLATIONS)] = 'bicubic'
  stages: tuple[Size, ...] = ()
  registers: Maybe = 0
  antialias: bool = False

  @property
  def first(self) -> int:
    """Tokens before the patches."""
    return int(self.class_token) + self.registers

  def resized(
    self, table: Float[Array, 'n e'], grid: tuple[int, int]
  ) -> Float[Array, 'm e']:
    """Returns the table of positions for another grid of patches."""
    how = {'first': int(self.class_token), 'antialias': self.antialias}
    return resize_positions(table, grid, self.resize_positions, **how)

  @property
  def kind(self) -> 'ImageTower':
    """The same, but for how a table becomes another, which is no part of a network."""
    usual = ImageTower()
    own = {'resize_positions': usual.resize_positions, 'antialias': usual.antialias}
    return dataclasses.replace(self, **own)

  def angles(
    self, grid: tuple[int, int], size: int, copies: int = 0
  ) -> Float[Array, 'm p'] | None:
    """Returns by how much tokens are turned, or None.

    Args:
      grid: rows and columns of patches.
      size: features of a head.
      copies: of the class token, which follow the patches.
    """
    if not self.rope:
      return None
    start = self.first if self.rope == 'pe' else 0
    order = 'yx' if self.rope == 'eva' else 'xy'
    found = grid_angles(grid, size, order=order, start=start, reference=self.rope_grid)
    return jnp.pad(found, ((self.first, copies), (0, 0)))


@dataclasses.dataclass(frozen=True)
class TextTower:
  """What a text tower reads and computes; the defaults are OpenAI's.

  Attributes:
    activation: of the MLPs, where it is not the image tower's.
    causal: whether tokens see earlier ones alone; otherwise all, padding too.
    pool: 'end': the end token is the embedding (`ClipConfig.end_token`). 'last': the
      last of `context_length` tokens, whatever it is. 'mean': of all but padding.
    projection: to the joint space: a matrix, one with a bias, or none.
    tokenizer: sha256 of the tokenizer.json that the checkpoint has; '' is CLIP's own,
      'none' says that it came without.
    cleaning: of texts before that, of `text.trained_tokenizer.CLEANINGS`.
    start: id before all others, -1: none. This and the next are of a tokenizer.json.
    end: id after all others, -1: none.
    pad: id that fills up.
    hide_padding: whether no token sees padding.
    positions: a learned table, or waves (TIPSv2).
    scale_tokens: whether embeddings of tokens are multiplied with the width's root.
  """

  activation: Annotated[str, OneOf(('', *ACTIVATIONS))] = ''
  causal: bool = True
  pool: Annotated[str, OneOf(TEXT_POOLS)] = 'end'
  projection: Annotated[str, OneOf(PROJECTIONS)] = 'matrix'
  tokenizer: str = ''
  cleaning: Annotated[str, OneOf(CLEANINGS)] = 'none'
  start: int = -1
  end: int = -1
  pad: Natural = 0
  hide_padding: bool = False
  positions: Annotated[str, OneOf(POSITIONS)] = 'learned'
  scale_tokens: bool = False

  @property
  def sees_padding(self) -> bool:
    """Whether the embedding depends on how much padding there is."""
    return self.pool == 'last' or not (self.causal or self.hide_padding)


@dataclasses.dataclass(frozen=True)
class ClipConfig:
  """Sizes of both towers, flat, since that is how checkpoints hold it, and their kinds.

  Attributes:
    embed_dim: of the joint space.
    image_size: side of the input in pixels, a multiple of `patch`.
    patch: side of a patch in pixels.
    vision_width: features of a token; `text_width` likewise.
    vision_layers: blocks; `text_layers` likewise.
    vision_heads: of attention, which share the width; `text_heads` likewise.
    context_length: tokens of a text at the most.
    vocab_size: ids of the tokenizer.
    prompt_depth: D; mask prompts stand in at the input and after blocks 1 to D - 1.
    dtype: of the computation; parameters are float32.
    remat: whether blocks are computed again in the backward pass.
    unroll: blocks that one turn of the scan computes.
    activation: of the MLPs, one of `layers.ACTIVATIONS`.
    vision_mlp: hidden units of a block's MLP, 0: four times the width; `text_mlp`
      likewise.
    vision_epsilon: of the layer norms; `text_epsilon` likewise.
    end_token: id whose first place is the text's summary; 0: the largest id.
    image_tower: what the image tower computes.
    text_tower: what the text tower reads and computes.
    pixels: how pictures are prepared.
    scores: what becomes of a cosine: a share of the names' (softmax), or a probability
      of its own (sigmoid, with a learned bias).
  """

  embed_dim: Size
  image_size: Size
  patch: Size
  vision_width: Size
  vision_layers: Depth
  vision_heads: Size
  text_width: Size
  text_layers: Depth
  text_heads: Size
  context_length: Size
  vocab_size: Annotated[int, Range(least=1, most=2**24)]
  prompt_depth: Maybe
  dtype: Dtype
  remat: bool
  unroll: Size
  # Later than the rest, with the values that all CLIPs had until then: checkpoints
  # written before know nothing of them.
  activation: Annotated[str, OneOf(ACTIVATIONS)] = 'quick_gelu'
  vision_mlp: Maybe = 0
  text_mlp: Maybe = 0
  vision_epsilon: Positive = NORM_EPSILON
  text_epsilon: Positive = NORM_EPSILON
  end_token: Natural = 0
  image_tower: ImageTower = ImageTower()
  text_tower: TextTower = TextTower()
  pixels: Pixels = CLIP_PIXELS
  scores: Annotated[str, OneOf(SCORES)] = 'softmax'

  def __post_init__(self) -> None:
    lookup(ACTIVATIONS, self.activation, 'activation')
    if self.image_size % self.patch:
      raise UserError(
        f'image_size {self.image_size} is not a multiple of patch {self.patch}'
      )
    for tower in ('vision', 'text'):
      width, heads = getattr(self, f'{tower}_width'), getattr(self, f'{tower}_heads')
      if width % heads:
        raise UserError(f'{tower}_width {width} is not a multiple of {heads} heads')
      kind = self.image_tower if tower == 'vision' else self.text_tower
      if kind.projection == 'none' and width != self.embed_dim:
        raise UserError(
          f'without a projection {tower}_width {width} must be embed_dim '
          f'{self.embed_dim}'
        )
    self._check_image()

  def _check_image(self) -> None:
    """Raises ValueError if the image tower's kind contradicts itself or the sizes."""
    image, width, heads = self.image_tower, self.vision_width, self.vision_heads
    if image.stages:
      self._check_convnext()
    elif image.projection == 'mlp':
      raise UserError("image_tower.projection 'mlp' is that of a ConvNeXt (stages)")
    if image.pool == 'class' and not image.class_token:
      raise UserError("image_tower.pool 'class' needs image_tower.class_token")
    if image.pool == 'map' and (not image.pool_heads or width % image.pool_heads):
      raise UserError(
        f'image_tower.pool_heads {image.pool_heads} must divide vision_width {width}'
      )
    if image.rope and width // heads % 4:
      raise UserError(
        f'image_tower.rope {image.rope!r} turns pairs of features on two axes: '
        f'vision_width {width} over vision_heads {heads} must be a multiple of 4'
      )

  def _check_convnext(self) -> None:
    """Raises ValueError unless all is as a ConvNeXt has it."""
    image = self.image_tower
    usual = ImageTower(
      class_token=False,
      patch_bias=True,
      pool='mean',
      projection=image.projection,
      stages=image.stages,
    )
    wanted = {
      'patch': STRIDE,
      'vision_layers': sum(image.stages),
      'vision_heads': 1,
      'vision_mlp': 0,
      'image_tower': usual,
    }
    have = {**vars(self), 'image_tower': image.kind}
    odd = [f'{k} {have[k]}' for k, x in wanted.items() if have[k] != x]
    if len(image.stages) != STAGES or self.vision_width % 2 ** (STAGES - 1):
      odd.append(f'stages {image.stages} of vision_width {self.vision_width}')
    if odd or image.projection not in ('matrix', 'mlp'):
      raise UserError(
        f'this is no ConvNeXt of {STAGES} stages, each twice as wide as the last: '
        f'{", ".join(odd) or image.projection}; expected '
        f'{", ".join(f"{k} {x}" for k, x in wanted.items())}'
      )
    if self.prompt_depth:
      raise UserError(
        'mask prompts stand in for the tokens of a vision transformer; a ConvNeXt '
        '(image_tower.stages) has none. Set prompt_depth to 0, and fine-tune it'
      )

  @classmethod
  def from_dict(cls, config: Any) -> 'ClipConfig':
    """Reads what a checkpoint or a configuration says.

    Args:
      config: names and values, which may lack what is newer than the checkpoint.
    """
    parts = {
      name: make(config[name]) for name, make in _PARTS.items() if name in config
    }
    return cls(**{**config, **parts})

  @property
  def is_plain(self) -> bool:
    """Whether the image tower is OpenAI's in all but its sizes."""
    return self.image_tower.kind == ImageTower()

  def check_like_openai(self, what: str) -> None:
    """Raises ValueError unless both towers are OpenAI's in all but their sizes."""
    odd = [
      f'{section}.{field.name} {getattr(part, field.name)!r}'
      for section, part, usual in (
        ('image_tower', self.image_tower.kind, ImageTower()),
        ('text_tower', self.text_tower, TextTower()),
      )
      for field in dataclasses.fields(part)
      if getattr(part, field.name) != getattr(usual, field.name)
    ]
    if odd:
      raise UserError(
        f"{what} needs a CLIP with towers like OpenAI's; this one has "
        f'{", ".join(odd)}. Take another CLIP'
      )

  @property
  def vision(self) -> Tower:
    """The transformer of the image tower."""
    return self._tower('vision', self.activation, self.image_tower)

  @property
  def text(self) -> Tower:
    """The transformer of the text tower."""
    activation = self.text_tower.activation or self.activation
    return self._tower('text', activation, ImageTower())

  def _tower(self, name: str, activation: str, kind: ImageTower) -> Tower:
    own = ('width', 'layers', 'heads', 'mlp', 'epsilon')
    width, layers, heads, mlp, epsilon = (getattr(self, f'{name}_{x}') for x in own)
    return Tower(
      width=width,
      layers=layers,
      heads=heads,
      mlp=mlp or 4 * width,
      activation=activation,
      epsilon=epsilon,
      dtype=jnp.dtype(self.dtype),
      remat=self.remat,
      unroll=self.unroll,
      norm_after=kind.norm_after,
      gated=kind.gated,
      inner_norms=kind.inner_norms,
      key_bias=kind.key_bias,
    )


_PARTS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
  'image_tower': lambda part: ImageTower(**_tuples(part)),
  'text_tower': lambda part: TextTower(**part),
  'pixels': lambda part: Pixels(**_tuples(part)),
}


def _tuples(part: Any) -> dict[str, Any]:
  """Returns a mapping with tuples in place of JSON's lists."""
  return {k: tuple(x) if isinstance(x, list) else x for k, x in part.items()}
