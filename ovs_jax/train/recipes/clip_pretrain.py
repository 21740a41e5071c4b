"""Contrastive pre-training of CLIP on images and captions (CLIP, section 2.3)."""

import math
from collections.abc import Iterable, Iterator

import jax.numpy as jnp
import numpy as np

from ovs_jax.core.limits import plain
from ovs_jax.core.types import Array, Batch, Constants, Int, Metrics, Params
from ovs_jax.data import load_dataset, transforms
from ovs_jax.data.pipeline import train_batches
from ovs_jax.models.clip import Clip, ClipConfig, init_clip, tokenize, unit
from ovs_jax.models.clip_fast import encode_images
from ovs_jax.ops.losses import contrastive_loss
from ovs_jax.ops.regions import normalise
from ovs_jax.settings import Settings
from ovs_jax.train.recipes.recipe import Recipe, described
from ovs_jax.train.state import draw_params

MAX_LOGIT_SCALE = math.log(100.0)


class ClipPretrain(Recipe):
  """Both towers from scratch; one caption per image and step."""

  def __init__(self, config: Settings) -> None:
    """Takes the whole configuration; loads nothing."""
    self.config = config
    self.clip = config.clip
    self.model_config = described('clip', clip=plain(config.clip))
    self.all_rows = own_rows

  def prepare(self, key: Array) -> tuple[Params, Constants]:
    """Draws both towers; there are no constants."""
    return draw_params(init_clip, self.clip, key), {}

  def batches(
    self, start: int, rows: Int[np.ndarray, 'r'] | None = None
  ) -> Iterator[Batch]:
    """Yields `image` (b, s, s, 3) uint8 and `tokens` (b, t) int32."""
    c = self.config
    _, builder = load_dataset(c.dataset)
    for batch in train_batches(
      builder,
      c.train.split,
      [
        transforms.random_crop(c.train.min_crop),
        transforms.squash(self.clip.image_size),
        transforms.random_caption,
        transforms.keep('image', 'text'),
      ],
      batch_size=c.train.batch_size,
      seed=c.seed,
      start=start,
      rows=rows,
    ):
      yield {
        'image': batch['image'],
        'tokens': tokenize_batch(self.clip, batch['text'], c.train.text_length),
      }

  def loss(
    self, params: Params, constants: Constants, batch: Batch, key: Array
  ) -> tuple[Array, Metrics]:
    """Symmetric InfoNCE over the batch."""
    del constants, key
    pixels = normalise(batch['image'], self.clip.pixels)
    image = unit(encode_images(self.clip, params, pixels))
    tokens, scale = batch['tokens'], jnp.exp(params['logit_scale'])
    text = Clip(self.clip).apply({'params': params}, tokens, method='encode_text')
    rows = self.all_rows(image), self.all_rows(unit(text))
    loss, accuracy = contrastive_loss(*rows, scale)
    return loss, {'accuracy': accuracy, 'scale': scale}

  def project(self, params: Params) -> Params:
    """Keeps the temperature's logarithm in [0, ln 100], where a softmax has it."""
    return clamp_scale(params) if self.clip.scores == 'softmax' else params


def own_rows(rows: Array) -> Array:
  """Returns `rows`, which are the whole batch's unless a framework splits it."""
  return rows


def clamp_scale(params: Params) -> Params:
  """Keeps `logit_scale` in [0, ln 100], as open_clip does after every step.

  Where it is frozen it may be missing.
  """
  if 'logit_scale' not in params:
    return params
  scale = jnp.clip(params['logit_scale'], 0.0, MAX_LOGIT_SCALE)
  return {**params, 'logit_scale': scale}


def tokenize_batch(
  clip: ClipConfig, texts: Iterable[bytes], length: int
) -> Int[np.ndarray, 'k t']:
  """Tokenises a batch of UTF-8 bytes to a fixed length, cutting longer texts."""
  sentences = [text.decode('utf-8') for text in texts]
  return tokenize(clip, sentences, length=length, truncate=True)
