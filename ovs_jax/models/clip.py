"""CLIP: two towers and a temperature, with the published sizes as presets."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.limits import Count, Natural, OneOf, Positive
from ovs_jax.core.lookup import lookup
from ovs_jax.core.types import Array, Bool, Float, Int, Params
from ovs_jax.models.clip_blocks import Tower
from ovs_jax.models.clip_text import ClipText
from ovs_jax.models.clip_vision import ClipVision
from ovs_jax.models.layers import ACTIVATIONS, NORM_EPSILON, Dtype


@dataclasses.dataclass(frozen=True)
class ClipConfig:
  """Sizes of both towers; flat, since that is how checkpoints hold it.

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
  """

  embed_dim: Count
  image_size: Count
  patch: Count
  vision_width: Count
  vision_layers: Count
  vision_heads: Count
  text_width: Count
  text_layers: Count
  text_heads: Count
  context_length: Count
  vocab_size: Count
  prompt_depth: Natural
  dtype: Dtype
  remat: bool
  unroll: Count
  # Later than the rest, with the values that all CLIPs had until then: checkpoints
  # written before know nothing of them.
  activation: Annotated[str, OneOf(ACTIVATIONS)] = 'quick_gelu'
  vision_mlp: Natural = 0
  text_mlp: Natural = 0
  vision_epsilon: Positive = NORM_EPSILON
  text_epsilon: Positive = NORM_EPSILON
  end_token: Natural = 0

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

  @property
  def vision(self) -> Tower:
    """The transformer of the image tower."""
    return self._tower('vision')

  @property
  def text(self) -> Tower:
    """The transformer of the text tower."""
    return self._tower('text')

  def _tower(self, name: str) -> Tower:
    own = ('width', 'layers', 'heads', 'mlp', 'epsilon')
    width, layers, heads, mlp, epsilon = (getattr(self, f'{name}_{x}') for x in own)
    return Tower(
      width=width,
      layers=layers,
      heads=heads,
      mlp=mlp or 4 * width,
      activation=self.activation,
      epsilon=epsilon,
      dtype=jnp.dtype(self.dtype),
      remat=self.remat,
      unroll=self.unroll,
    )


def _published(
  embed_dim: int, image_size: int, patch: int, vision_width: int, vision_layers: int
) -> ClipConfig:
  """One of OpenAI's models (CLIP, table 20): heads of 64, text as wide as the space."""
  return ClipConfig(
    embed_dim=embed_dim,
    image_size=image_size,
    patch=patch,
    vision_width=vision_width,
    vision_layers=vision_layers,
    vision_heads=vision_width // 64,
    text_width=embed_dim,
    text_layers=12,
    text_heads=embed_dim // 64,
    context_length=77,
    vocab_size=49408,
    prompt_depth=0,
    dtype='float32',
    remat=False,
    unroll=1,
  )


PRESETS: dict[str, ClipConfig] = {
  'b32': _published(512, 224, 32, 768, 12),
  'b16': _published(512, 224, 16, 768, 12),
  'l14': _published(768, 224, 14, 1024, 24),
  'l14_336': _published(768, 336, 14, 1024, 24),
  # Trains from scratch on a laptop in minutes; for the embedded world.
  'tiny': dataclasses.replace(
    _published(64, 48, 8, 64, 4),
    vision_heads=4,
    text_layers=2,
    text_heads=2,
    unroll=4,
  ),
}


def make_vision(config: ClipConfig) -> ClipVision:
  """Returns the image tower, whose parameters are a CLIP's `visual`."""
  c = config
  return ClipVision(c.vision, c.patch, c.image_size, c.embed_dim, c.prompt_depth)


class Clip(nn.Module):
  """Both towers; `config` says their sizes."""

  config: ClipConfig

  def setup(self) -> None:
    """Makes the towers and the temperature."""
    c = self.config
    self.visual = make_vision(c)
    self.text = ClipText(
      c.text, c.vocab_size, c.context_length, c.end_token, c.embed_dim
    )
    self.logit_scale = self.param(
      'logit_scale', nn.initializers.constant(math.log(1 / 0.07)), ()
    )

  def __call__(
    self, image: Float[Array, 'b h w 3'], tokens: Int[Array, 't l']
  ) -> tuple[Float[Array, 'b d'], Float[Array, 't d'], Float[Array, '']]:
    """Returns both embeddings, L2-normalised, and the factor on their cosines."""
    image = unit(self.encode_image(image))
    return image, unit(self.encode_text(tokens)), jnp.exp(self.logit_scale)

  def encode_image(
    self, image: Float[Array, 'b h w 3'], keep: Bool[Array, 'b n'] | None = None
  ) -> Float[Array, 'b d']:
    """Embeds normalised images; `keep` are the patches that mask prompts leave alone.

    Not L2-normalised. `models.clip_fast` computes the same with less work.
    """
    return self.visual(image, keep)

  def features(
    self, image: Float[Array, 'b h w 3'], blocks: tuple[int, ...]
  ) -> dict[int, Float[Array, 'b m e']]:
    """Returns the tokens after each of `blocks` (from 0), class token first."""
    return self.visual.features(image, blocks)

  def encode_text(self, tokens: Int[Array, 'b t']) -> Float[Array, 'b d']:
    """Embeds zero-padded ids of `text.tokenizer`, not L2-normalised."""
    return self.text(tokens)


def unit(x: Float[Array, '*b d']) -> Float[Array, '*b d']:
  """Scales vectors to length 1."""
  return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


@functools.partial(jax.jit, static_argnums=0)
def init_clip(config: ClipConfig, key: Array) -> Params:
  """Returns freshly drawn parameters."""
  side = config.image_size
  image = jnp.zeros((1, side, side, 3))
  tokens = jnp.zeros((1, 2), jnp.int32)
  return Clip(config).init(key, image, tokens)['params']


def encode_prompts(
  config: ClipConfig,
  params: Params,
  prompts: Sequence[Sequence[str]],
  tokenize: Callable[[Sequence[str]], Int[np.ndarray, 'k t']],
  *,
  chunk: int = 256,
) -> Float[np.ndarray, 'k d']:
  """Embeds classes that are each given as several sentences.

  Args:
    config: of the CLIP whose `params` are given.
    params: the whole CLIP's parameters.
    prompts: for each class its sentences, one per template.
    tokenize: from sentences to ids of `config.context_length` columns.
    chunk: sentences embedded at once.

  Returns:
    The mean over the sentences of the L2-normalised embeddings, L2-normalised again.
  """
  flat = [sentence for sentences in prompts for sentence in sentences]
  tokens = trim_tokens(tokenize(flat))
  rows = []
  for start in range(0, len(flat), chunk):
    part = tokens[start : start + chunk]
    padded = np.zeros((min(chunk, _bucket(len(flat))), tokens.shape[1]), np.int32)
    padded[: len(part)] = part
    rows.append(np.asarray(embed_tokens(config, params, padded))[: len(part)])
  sizes = np.cumsum([len(sentences) for sentences in prompts])[:-1]
  means = [part.mean(axis=0) for part in np.split(np.concatenate(rows), sizes)]
  return np.stack([mean / np.linalg.norm(mean) for mean in means])


def trim_tokens(tokens: Int[np.ndarray, 'k t'], multiple: int = 8) -> np.ndarray:
  """Cuts columns that are padding in every row, to a multiple of `multiple`."""
  longest = int((np.argmax(tokens, axis=1) + 1).max(initial=1))
  return tokens[:, : min(-(-longest // multiple) * multiple, tokens.shape[1])]


def _bucket(count: int) -> int:
  return max(16, 2 ** math.ceil(math.log2(count)))


@functools.partial(jax.jit, static_argnums=0)
def embed_tokens(
  config: ClipConfig, params: Params, tokens: Int[Array, 'k t']
) -> Float[Array, 'k d']:
  """Returns the text tower's embeddings of padded token ids, computed in float32.

  They are made once and used often, whatever the pictures are computed in.
  """
  config = dataclasses.replace(config, dtype='float32')
  text = Clip(config).apply({'params': params}, tokens, method='encode_text')
  return unit(text)
