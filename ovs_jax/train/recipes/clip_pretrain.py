"""Contrastive pre-training of CLIP on images and captions (CLIP, section 2.3)."""

import math
from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.limits import plain
from ovs_jax.core.tree import difference
from ovs_jax.core.types import (
  Array,
  Batch,
  Constants,
  Float,
  Int,
  Metrics,
  Params,
  UInt8,
)
from ovs_jax.data import load_dataset, transforms
from ovs_jax.data.pipeline import train_batches
from ovs_jax.models.clip import Clip, ClipConfig, init_clip, tokenize, unit
from ovs_jax.models.clip_fast import encode_images
from ovs_jax.models.stored import load
from ovs_jax.ops.losses import contrastive_loss
from ovs_jax.ops.regions import normalise
from ovs_jax.settings import Settings
from ovs_jax.train.recipes.recipe import Recipe, described
from ovs_jax.train.state import draw_params

MAX_LOGIT_SCALE = math.log(100.0)
_CELLS = 4  # images to a side of a mosaic


class ClipPretrain(Recipe):
  """Both towers from scratch; one caption per image and step."""

  def __init__(self, config: Settings) -> None:
    """Takes the whole configuration; loads nothing.

    Raises:
      UserError: nothing would be learnt, or the batch makes no whole mosaics.
    """
    self.config = config
    self.clip = config.clip
    self.model_config = described('clip', clip=plain(config.clip))
    self.all_rows = own_rows
    c, patch = config.train, config.clip.patch
    if not c.image_weight and not c.patch_weight:
      raise UserError(
        'config.train.image_weight and patch_weight are both 0: nothing would be '
        'learnt; set one of them'
      )
    if c.patch_weight and c.batch_size % (_CELLS**2 * len(c.patch_sides)):
      raise UserError(
        f'config.train.batch_size {c.batch_size} makes no whole mosaics of '
        f'{_CELLS}x{_CELLS} images in {len(c.patch_sides)} sizes; expected a multiple '
        f'of {_CELLS**2 * len(c.patch_sides)}'
      )
    if c.patch_weight and config.clip.image_tower.pool != 'class':
      raise UserError(
        'config.train.patch_weight needs an image tower that projects patches as it '
        f'does its class token; this one has the pool {config.clip.image_tower.pool!r}'
      )
    wrong = [side for side in c.patch_sides if side % patch]
    if c.patch_weight and wrong:
      raise UserError(
        f'config.train.patch_sides {wrong} are no multiples of the patch, {patch}'
      )

  def prepare(self, key: Array) -> tuple[Params, Constants]:
    """Draws both towers; a CLIP in `init.clip` gives its text tower instead.

    There are no constants. What stays as it is `config.optimizer.groups` says.
    """
    directory = self.config.init.clip
    if not directory:
      return draw_params(init_clip, self.clip, key), {}
    drawn = draw_params(init_clip, self.clip, key, '(?!text/|logit_scale)')
    found = load(directory, kinds=('clip',), what='CLIP checkpoint')
    kept = {name: found.params[name] for name in ('text', 'logit_scale')}
    kept = {**drawn, **kept}
    problem = difference(drawn, kept, what=f'the CLIP checkpoint {directory}')
    if problem:
      raise UserError(problem)
    return jax.tree.map(jnp.asarray, kept), {}

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
    """Symmetric InfoNCE over the batch: of images, of their patches, or of both."""
    del constants, key
    c, image = self.config.train, batch['image']
    tokens, scale = batch['tokens'], jnp.exp(params['logit_scale'])
    text = Clip(self.clip).apply({'params': params}, tokens, method='encode_text')
    text, losses = self.all_rows(unit(text)), {}
    metrics = {'scale': scale}
    if c.image_weight:
      pixels = normalise(image, self.clip.pixels)
      whole = unit(encode_images(self.clip, params, pixels, trained=True))
      losses['whole'], right = contrastive_loss(self.all_rows(whole), text, scale)
      metrics['accuracy'] = right
    if c.patch_weight:
      parts = mosaics(self.clip, params, image, sides=c.patch_sides)
      losses['patches'], right = contrastive_loss(self.all_rows(parts), text, scale)
      metrics |= {'patches': losses['patches'], 'named': right}
    weights = {'whole': c.image_weight, 'patches': c.patch_weight}
    return sum(weights[name] * x for name, x in losses.items()), metrics

  def project(self, params: Params) -> Params:
    """Keeps the temperature's logarithm in [0, ln 100], where a softmax has it."""
    return clamp_scale(params) if self.clip.scores == 'softmax' else params


def mosaics(
  config: ClipConfig,
  params: Params,
  image: UInt8[Array, 'b s s 3'],
  *,
  sides: tuple[int, ...],
) -> Float[Array, 'b d']:
  """Embeds images by their patches, as parts of larger pictures.

  Four by four of them make a picture, so that patches are seen at the sizes and among
  the neighbours that things have in scenes. No class token plays a part.

  Args:
    config: of the CLIP whose `params` are given.
    params: the whole CLIP's.
    image: RGB, 0..255; b is a multiple of 16 times the number of `sides`.
    sides: in pixels to which images are resized, a part of the batch to each;
      multiples of the patch.

  Returns:
    The mean of the projected patches of each image, L2-normalised.
  """
  parts = jnp.split(image.astype(jnp.float32), len(sides))
  return jnp.concatenate(
    [_mosaic(config, params, *pair) for pair in zip(parts, sides, strict=True)]
  )


def _mosaic(
  config: ClipConfig, params: Params, image: Float[Array, 'b s s 3'], side: int
) -> Float[Array, 'b d']:
  b, cells = len(image), _CELLS
  small = jax.image.resize(image, (b, side, side, 3), 'linear')
  whole = small.reshape(-1, cells, cells, side, side, 3).swapaxes(2, 3)
  whole = whole.reshape(-1, cells * side, cells * side, 3)
  last, n = config.vision_layers - 1, side // config.patch

  def patches(model: Clip, x: Array) -> Array:
    return model.visual.project(model.features(x, (last,))[last][:, 1:])

  x = Clip(config).apply(
    {'params': params}, normalise(whole, config.pixels), method=patches
  )
  x = x.reshape(len(whole), cells, n, cells, n, -1)
  return unit(jnp.mean(x, axis=(2, 4)).reshape(b, -1))


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
