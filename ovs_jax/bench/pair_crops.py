"""Crops of pairs as mining may store them: their bytes, and what training sees of them.

Crops of true masks stand for those of proposals. A variant encodes all of them by one
choice of `config.mining.crop_format` and `crop_shortest`. Its facts compare what a
training would decode and resize to CLIP's input with what it makes of lossless crops of
all pixels, and are averages over the crops: bytes of crop and mask; grey levels (mean
absolute difference where the mask is); the share of the mask's pixels that differ; and
the embeddings' distance (1 - cosine), in units of that of two different crops.
"""

import dataclasses
import functools
import io
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from ovs_jax.bench.measure import Variant, Workload
from ovs_jax.core.errors import UserError
from ovs_jax.core.files import local
from ovs_jax.core.images import read_image, resize_shortest
from ovs_jax.core.lookup import lookup
from ovs_jax.core.types import Float, Num, UInt8
from ovs_jax.data import crops, transforms
from ovs_jax.mining.candidates import true_masks
from ovs_jax.models.clip import PRESETS, init_clip
from ovs_jax.models.clip_fast import encode_images
from ovs_jax.ops.regions import normalise

CHOICES = (
  *(('png', 0), ('png', 336), ('png', 224)),
  *(('jpeg', 0), ('jpeg', 448), ('jpeg', 336), ('jpeg', 224)),
)
Crop = tuple[UInt8[np.ndarray, '_ _ 3'], UInt8[np.ndarray, '_ _']]
Encoded = tuple[bytes, bytes]
Embed = Callable[[Sequence[Any]], Float[np.ndarray, 'n d']]
_AT_ONCE = 8  # crops through CLIP


@dataclasses.dataclass(frozen=True)
class Options:
  """What `--set` changes.

  Attributes:
    images: directory with photographs (.jpg) below; drawn noise without.
    labels: directory with their label maps below, PNG of the same names; 255 is none.
    shortest: side that mining resizes photographs to.
    count: of photographs at most.
    preset: of the CLIP with drawn parameters that embeds the crops; '' leaves it out.
  """

  images: str = ''
  labels: str = ''
  shortest: int = 640
  count: int = 100
  preset: str = 'b32'


def build(options: Options) -> Workload:
  """Encoding as mining does by default, and by the other choices."""
  found = [
    crop for picture in _pictures(options) for crop in _cut(*picture, options.shortest)
  ]
  if not found:
    raise UserError(
      f'{options.images!r} and {options.labels!r} have no files in common'
    )
  sides = np.array([min(mask.shape) for _, mask in found])
  facts: dict[str, Any] = {
    'crops': len(found),
    'mean pixels': round(float(np.mean([mask.size for _, mask in found]))),
    'shorter side above 224': f'{(sides > 224).mean():.0%}',
  }
  embed = _embedder(options.preset)
  size = PRESETS[options.preset].image_size if options.preset else 224
  seen = [_as_trained(image, mask, size) for image, mask in found]
  rows = embed([image for image, _ in seen])
  variants = []
  for image_format, shortest in CHOICES:
    name = f'{image_format} {shortest}'
    store = functools.partial(_store, image_format=image_format, shortest=shortest)
    facts[name] = _compare([store(*crop) for crop in found], seen, rows, embed)
    variants.append(Variant(name, lambda s=store: [len(s(*x)[0]) for x in found]))
  return Workload('crops', len(found), variants, facts)


def _pictures(options: Options) -> list[tuple[Any, Any]]:
  if not options.images:
    generator = np.random.default_rng(0)
    shape = (options.shortest, options.shortest * 4 // 3)
    image = generator.integers(0, 256, (*shape, 3)).astype(np.uint8)
    return [(image, np.arange(shape[1])[None].repeat(shape[0], axis=0) * 5 // shape[1])]
  labels = {path.stem: path for path in sorted(local(options.labels).rglob('*.png'))}
  photographs = sorted(local(options.images).rglob('*.jpg'))
  files = [path for path in photographs if path.stem in labels]
  return [
    (read_image(path), np.asarray(Image.open(labels[path.stem])))
    for path in files[: options.count]
  ]


def _cut(
  image: UInt8[np.ndarray, 'h w 3'], label: Num[np.ndarray, '_ _'], shortest: int
) -> list[Crop]:
  """The crops of a photograph, as mining cuts them."""
  image = resize_shortest(image, shortest=shortest, longest=2560)
  rows, columns = (
    np.arange(new) * old // new
    for new, old in zip(image.shape[:2], label.shape, strict=True)
  )
  found = true_masks(image, label[rows][:, columns])
  cut = []
  for q, (x0, y0, x1, y1) in enumerate(found.boxes):
    mask = found.mask(q)[y0:y1, x0:x1]
    cut.append((image[y0:y1, x0:x1], (255 * mask).astype(np.uint8)))
  return cut


def _store(
  image: UInt8[np.ndarray, 'h w 3'],
  mask: UInt8[np.ndarray, 'h w'],
  *,
  image_format: str,
  shortest: int,
) -> Encoded:
  image, mask = crops.shrink(image, mask, shortest)
  return crops.encode(image, image_format), crops.encode(mask, 'png')


def _as_trained(image: Any, mask: Any, size: int) -> Crop:
  """What CLIP is shown of a crop: filled around its mask, and resized."""
  made = transforms.region_crop(size, 'mean')({'image': image, 'mask': mask})
  pixels = np.clip(np.rint(made['image'].numpy()), 0, 255)
  return pixels.astype(np.uint8), made['mask'].numpy().astype(np.uint8)


def _embedder(preset: str) -> Embed:
  if not preset:
    return lambda images: np.zeros((len(images), 0))
  config = lookup(PRESETS, preset, 'CLIP preset')
  params = init_clip(config, jax.random.key(0))
  program = jax.jit(lambda x: encode_images(config, params, normalise(x)))

  def embed(images: Sequence[Any]) -> Float[np.ndarray, 'n d']:
    padded = np.stack([*images, *images[:1] * (-len(images) % _AT_ONCE)])
    parts = np.split(padded.astype(np.float32), len(padded) // _AT_ONCE)
    rows = np.concatenate([np.asarray(program(jnp.asarray(x))) for x in parts])
    return rows[: len(images)] / np.linalg.norm(rows[: len(images)], axis=1)[:, None]

  return embed


def _compare(
  stored: Sequence[Encoded],
  seen: Sequence[Crop],
  rows: Float[np.ndarray, 'n d'],
  embed: Embed,
) -> dict[str, Any]:
  """The facts of one choice."""
  images, grey, masks = [], [], []
  for (image, mask), (of_image, of_mask) in zip(stored, seen, strict=True):
    decoded = (np.asarray(Image.open(io.BytesIO(x))) for x in (image, mask))
    new_image, new_mask = _as_trained(*decoded, len(of_mask))
    images.append(new_image)
    masks.append((new_mask != of_mask).mean())
    if of_mask.any():
      apart = np.abs(new_image.astype(int) - of_image)[of_mask > 0]
      grey.append(apart.mean())
  facts = {
    'crop bytes': round(float(np.mean([len(image) for image, _ in stored]))),
    'mask bytes': round(float(np.mean([len(mask) for _, mask in stored]))),
    'grey levels': round(float(np.mean(grey)), 2),
    'mask pixels': round(float(np.mean(masks)), 4),
  }
  if rows.size:
    apart = 1 - (embed(images) * rows).sum(axis=1)
    others = (1 - rows @ rows.T)[np.triu_indices(len(rows), 1)]
    facts['distance'] = round(float(apart.mean() / others.mean()), 4)
  return facts
