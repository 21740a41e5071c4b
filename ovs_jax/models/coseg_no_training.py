"""CoSeg without training (section 3.3): CLIP chooses labels, CLIPSeg segments each."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from ovs_jax.core.lookup import lookup
from ovs_jax.core.types import Array, Float, Int, Params, UInt8
from ovs_jax.models import clipseg
from ovs_jax.models.clip import Clip, ClipConfig, unit
from ovs_jax.models.clipseg import ClipSegConfig
from ovs_jax.models.clipseg_prompts import squash
from ovs_jax.ops import merging, regions
from ovs_jax.ops.resize import resize_bilinear

LABELS = 20  # k, two standard deviations of the classes per image (figure 6)
SELECT = ('a photo of {}',)  # section 3.6: no article, no full stop
PROMPT = ('a photo of a {}.',)  # one of the sentences that CLIPSeg was trained with


@dataclasses.dataclass(frozen=True)
class Choice:
  """What was done with some images.

  Attributes:
    maps: label of every pixel, `merging.UNASSIGNED` where there is none.
    labels: those that CLIP chose, best first.
    cosines: of the labels with the image.
  """

  maps: Int[np.ndarray, 'b h w']
  labels: Int[np.ndarray, 'b k']
  cosines: Float[np.ndarray, 'b k']


def clip_view(
  image: UInt8[np.ndarray, 'h w 3'], side: int
) -> UInt8[np.ndarray, 's s 3']:
  """Resizes the shorter side (bicubic, antialiased) and cuts out the centre: CLIP's."""
  h, w = image.shape[:2]
  scale = side / min(h, w)
  size = (max(round(w * scale), side), max(round(h * scale), side))
  picture = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
  x, y = (round((n - side) / 2) for n in size)
  return np.asarray(picture.crop((x, y, x + side, y + side)))


@functools.partial(jax.jit, static_argnums=0)
def _embed(
  config: ClipConfig, params: Params, image: UInt8[Array, 'b s s 3']
) -> Float[Array, 'b d']:
  pixels = regions.normalise(image)
  embedded = Clip(config).apply({'params': params}, pixels, method='encode_image')
  return unit(embedded)


def segment(
  config: ClipSegConfig,
  params: Params,
  images: Sequence[UInt8[np.ndarray, 'h w 3']],
  text: Float[np.ndarray, 'c d'],
  prompts: Float[np.ndarray, 'c d'],
  *,
  k: int = LABELS,
  threshold: float = merging.THRESHOLD,
  rule: str = 'A',
) -> Choice:
  """Segments images of one size.

  Args:
    config: of CLIPSeg, whose CLIP also chooses the labels.
    params: with the subtrees `clip` and `decoder`.
    images: RGB, 0..255, all of one size.
    text: L2-normalised embeddings of the labels in `SELECT`, for the choice.
    prompts: embeddings of the labels in `PROMPT`, not normalised, for CLIPSeg.
    k: labels per image. With at least as many labels, all are chosen.
    threshold: a mask claims pixels with at least this probability.
    rule: 'A', or 'B', which paints from the largest mask to the smallest.

  Raises:
    ValueError: no images or no labels, or an unknown rule.
  """
  lookup(dict.fromkeys('AB'), rule, 'merging rule without training')
  if not len(images) or not len(text):
    raise ValueError(f'{len(images)} images and {len(text)} labels; give one at least')
  size = images[0].shape[:2]
  views = np.stack([clip_view(image, config.clip.image_size) for image in images])
  embedded = _embed(config.clip, params['clip'], jnp.asarray(views))
  labels, cosines = merging.top_labels(embedded, jnp.asarray(text), k)
  side = (config.image_size, config.image_size)
  pixels = np.stack([squash(image, side) for image in images])
  pixels = clipseg.normalise(jnp.asarray(pixels))
  activations = clipseg.encode(config, params, pixels)
  parts = clipseg.decode_chunks(
    config, params, activations, np.asarray(prompts)[np.asarray(labels)], side
  )
  logits = np.concatenate([part for _, part in parts], axis=1)  # b k y x
  maps = [
    _merge(one, chosen, threshold, rule, size)
    for one, chosen in zip(logits, labels, strict=True)
  ]
  return Choice(np.stack(maps), np.asarray(labels), np.asarray(cosines))


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _merge(
  logits: Float[Array, 'k y x'],
  labels: Int[Array, 'k'],
  threshold: float,
  rule: str,
  size: tuple[int, int],
) -> Int[Array, 'h w']:
  # Resized before the threshold, so that borders are smooth.
  p = resize_bilinear(jax.nn.sigmoid(logits), size)
  if rule == 'B':
    order = jnp.argsort(-jnp.sum(p >= threshold, axis=(1, 2)), stable=True)
    p, labels = p[order], labels[order]
  return merging.merge(rule, p, labels, threshold=threshold)
