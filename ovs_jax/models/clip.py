"""CLIP: two towers and a temperature."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.types import Array, Bool, Float, Int, Params
from ovs_jax.models.clip_config import NO_TOKENIZER, ClipConfig
from ovs_jax.models.clip_presets import PRESETS
from ovs_jax.models.clip_text import ClipText
from ovs_jax.models.clip_vision import ClipVision
from ovs_jax.models.convnext import ConvNextVision
from ovs_jax.models.pooled_vision import PooledVision
from ovs_jax.text import tokenizer
from ovs_jax.text.trained_tokenizer import load_tokenizer

__all__ = ['PRESETS', 'Clip', 'ClipConfig']  # and what is below

Vision = ClipVision | PooledVision | ConvNextVision


def make_vision(config: ClipConfig) -> Vision:
  """Returns the image tower, whose parameters are a CLIP's `visual`."""
  c = config
  if c.image_tower.stages:
    return ConvNextVision(c.vision, c.patch, c.image_size, c.embed_dim, c.image_tower)
  kind = ClipVision if c.is_plain else PooledVision
  sizes = (c.vision, c.patch, c.image_size, c.embed_dim, c.prompt_depth)
  return kind(*sizes, c.image_tower)


class Clip(nn.Module):
  """Both towers; `config` says their sizes."""

  config: ClipConfig

  def setup(self) -> None:
    """Makes the towers and the temperature."""
    c = self.config
    self.visual = make_vision(c)
    self.text = ClipText(
      c.text, c.vocab_size, c.context_length, c.end_token, c.embed_dim, c.text_tower
    )
    constant = nn.initializers.constant
    if c.scores == 'sigmoid':  # SigLIP, section 3.2
      self.logit_scale = self.param('logit_scale', constant(math.log(10)), ())
      self.logit_bias = self.param('logit_bias', constant(-10.0), ())
    else:
      self.logit_scale = self.param('logit_scale', constant(math.log(1 / 0.07)), ())

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
    """Returns the tokens after each of `blocks` (from 0), class token first.

    Raises:
      ValueError: this image tower is not one that other networks build on.
    """
    self.config.check_like_openai('what builds on features of blocks')
    return self.visual.features(image, blocks)

  def encode_text(self, tokens: Int[Array, 'b t']) -> Float[Array, 'b d']:
    """Embeds ids of `tokenize`, not L2-normalised."""
    return self.text(tokens)


def unit(x: Float[Array, '*b d']) -> Float[Array, '*b d']:
  """Scales vectors to length 1."""
  return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


@functools.partial(jax.jit, static_argnums=0)
def init_clip(config: ClipConfig, key: Array) -> Params:
  """Returns freshly drawn parameters."""
  side = config.image_size
  image = jnp.zeros((1, side, side, 3))
  tokens = jnp.zeros((1, config.context_length), jnp.int32)
  return Clip(config).init(key, image, tokens)['params']


def tokenize(
  config: ClipConfig,
  texts: Sequence[str],
  *,
  length: int | None = None,
  truncate: bool = False,
) -> Int[np.ndarray, 'k t']:
  """Tokenizes texts as a CLIP was trained to read them.

  Args:
    config: of the CLIP.
    texts: any strings; may be empty.
    length: of a row; None, and always where towers see padding: the context length.
    truncate: cut long texts instead of raising.

  Raises:
    ValueError: a text is too long and `truncate` is false; or the tokenizer that the
      checkpoint names is not there, or its package is not installed.
  """
  tower = config.text_tower
  if length is None or tower.sees_padding:
    length = config.context_length
  if tower.tokenizer == NO_TOKENIZER:
    raise UserError(
      'this CLIP was converted without its tokenizer.json, and cannot read texts; '
      'convert it again from a folder that has the file'
    )
  if not tower.tokenizer:
    return tokenizer.tokenize(texts, context_length=length, truncate=truncate)
  own = load_tokenizer(tower.tokenizer)
  return own.tokenize(
    texts,
    cleaning=tower.cleaning,
    special=(tower.start, tower.end, tower.pad),
    context_length=length,
    truncate=truncate,
  )


def encode_prompts(
  config: ClipConfig,
  params: Params,
  prompts: Sequence[Sequence[str]],
  encode: Callable[[Sequence[str]], Int[np.ndarray, 'k t']] | None = None,
  *,
  chunk: int = 256,
) -> Float[np.ndarray, 'k d']:
  """Embeds classes that are each given as several sentences.

  Args:
    config: of the CLIP whose `params` are given.
    params: the whole CLIP's parameters.
    prompts: for each class its sentences, one per template.
    encode: from sentences to ids of `config.context_length` columns; None: `tokenize`.
    chunk: sentences embedded at once.

  Returns:
    The mean over the sentences of the L2-normalised embeddings, L2-normalised again.

  Raises:
    ValueError: CLIP's tokenizer is to be used for a tower that has another.
  """
  if encode is tokenizer.tokenize and config.text_tower.tokenizer:
    raise UserError(
      'this CLIP reads texts with a tokenizer of its own, which is not supported here; '
      "take a CLIP that has OpenAI's"
    )
  flat = [sentence for sentences in prompts for sentence in sentences]
  tokens = (encode or functools.partial(tokenize, config))(flat)
  if not config.text_tower.sees_padding:
    tokens = trim_tokens(tokens, pad=config.text_tower.pad)
  rows = []
  for start in range(0, len(flat), chunk):
    part = tokens[start : start + chunk]
    padded = np.zeros((min(chunk, _bucket(len(flat))), tokens.shape[1]), np.int32)
    padded[: len(part)] = part
    rows.append(np.asarray(embed_tokens(config, params, padded))[: len(part)])
  sizes = np.cumsum([len(sentences) for sentences in prompts])[:-1]
  means = [part.mean(axis=0) for part in np.split(np.concatenate(rows), sizes)]
  return np.stack([mean / np.linalg.norm(mean) for mean in means])


def trim_tokens(
  tokens: Int[np.ndarray, 'k t'], multiple: int = 8, *, pad: int = 0
) -> Int[np.ndarray, 'k s']:
  """Cuts columns that are padding in every row, to a multiple of `multiple`.

  Exact for towers that do not see padding (`TextTower.sees_padding`).
  """
  used = np.flatnonzero((tokens != pad).any(axis=0))
  longest = int(used[-1]) + 1 if len(used) else 1
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
