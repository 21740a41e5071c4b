"""What one core feeds: each training pipeline on images of the benchmarks' sizes.

The pictures are drawn, with the detail of photographs; JPEG and PNG have to decode as
much. Time is that of all threads together, so that other programs on the machine
disturb the figures per core little.
"""

import dataclasses
import io
import itertools
import json
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ovs_jax.bench.measure import Variant, Workload
from ovs_jax.core.files import local
from ovs_jax.core.lookup import lookup
from ovs_jax.core.types import UInt8
from ovs_jax.data import augment, folder, pairs, transforms
from ovs_jax.data.pipeline import train_batches
from ovs_jax.data.transforms import Transform

_TARGETS = 40  # masks per image for the proposer
_WANTED = 1000  # images per second whose cores are counted
_CLASSES = 12  # regions in a drawn label map


@dataclasses.dataclass(frozen=True)
class Options:
  """What `--set` changes.

  Attributes:
    pipeline: regions (masked crops), proposer, clip, clipseg or coseg.
    size: side of what the model gets; 0 takes that of the papers' models.
    batch: images of a batch.
    batches: of one timed run.
    images: drawn ones, read again and again.
  """

  pipeline: str = 'regions'
  size: int = 0
  batch: int = 32
  batches: int = 4
  images: int = 128


@dataclasses.dataclass(frozen=True)
class Pipeline:
  """The transforms of a recipe, and the papers' side.

  Attributes:
    size: side of what the model gets.
    transforms: from the side to what the recipe of that name does to an example.
    cropped: whether it reads mined crops, and not whole images.
  """

  size: int
  transforms: Callable[[int], Sequence[Transform]]
  cropped: bool = False


def _sides(size: int) -> tuple[int, ...]:
  """Shorter sides of the jitter, as configs/proposer_*.py have them."""
  return tuple(range(size // 2, 2 * size + 1, size // 10))


PIPELINES: dict[str, Pipeline] = {
  'regions': Pipeline(
    224,
    lambda size: (
      transforms.random_crop(0.9),
      transforms.region_crop(size, 'mean'),
      transforms.keep('image', 'mask', 'noun'),
    ),
    cropped=True,
  ),
  'proposer': Pipeline(
    640,
    lambda size: (
      augment.only_classes(range(_CLASSES)),
      augment.jittered_crop(_sides(size), 4 * size, size),
      augment.colour_jitter,
      transforms.random_flip,
      augment.pad_square(size),
      transforms.label_targets(_TARGETS),
      transforms.keep('image', 'label', 'ids', 'valid'),
    ),
  ),
  'clip': Pipeline(
    224,
    lambda size: (
      transforms.random_crop(0.9),
      transforms.squash(size),
      transforms.random_caption,
      transforms.keep('image', 'text'),
    ),
  ),
  'clipseg': Pipeline(
    352,
    lambda size: (transforms.squash(size), transforms.keep('image', 'label')),
  ),
  'coseg': Pipeline(
    224,
    lambda size: (
      transforms.random_flip,
      transforms.squash(size),
      transforms.keep('image', 'label'),
    ),
  ),
}


def build(options: Options) -> Workload:
  """The pipeline as training runs it, and decoding alone."""
  pipeline = lookup(PIPELINES, options.pipeline, 'pipeline')
  size = options.size or pipeline.size
  # Lives as long as the variants that read it.
  directory = tempfile.TemporaryDirectory()
  make = make_crops if pipeline.cropped else make_photographs
  builder, split = make(local(directory.name), options.images)

  def batches(steps: Sequence[Transform]) -> Iterator[Any]:
    return train_batches(
      builder, split, steps, batch_size=options.batch, seed=0, start=0
    )

  count = options.batch * options.batches
  streams = {
    'package': batches(pipeline.transforms(size)),
    'decoding alone': batches([_corner]),
  }
  facts: dict[str, Any] = {'size': size, 'pictures of': _describe(pipeline)}
  variants = []
  for name, stream in streams.items():
    for _ in range(2):
      next(stream)  # starts threads, fills buffers
    seconds = _cpu_seconds(stream, options.batches) / count
    facts[f'{name}, images/s per core'] = round(1 / seconds, 1)
    if name == 'package':
      facts[f'cores that feed {_WANTED:,} images/s'] = round(_WANTED * seconds, 1)
    variants.append(Variant(name, _runner(stream, options.batches, directory)))
  return Workload('images', count, variants, facts)


def _runner(stream: Iterator[Any], batches: int, directory: Any) -> Callable[[], Any]:
  def run() -> Any:
    assert directory.name  # which is removed with the last reference to it
    return list(itertools.islice(stream, batches))

  return run


def _cpu_seconds(stream: Iterator[Any], batches: int) -> float:
  """Returns the processor time of some batches, summed over threads.

  The stream has prefetched batches at the start, and as many at the end.
  """
  began = time.process_time()
  for _ in range(batches):
    next(stream)
  return time.process_time() - began


def _corner(example: dict[str, Any]) -> dict[str, Any]:
  """Keeps a pixel of each picture, which has to be decoded whole for it."""
  maps = [name for name in ('image', 'label', 'mask') if name in example]
  return {name: example[name][0, 0] for name in maps}


def _describe(pipeline: Pipeline) -> str:
  if pipeline.cropped:
    return 'crops of 80 to 400 pixels a side, PNG'
  return '640 x 480 pixels, JPEG, labels PNG'


def _picture(
  generator: np.random.Generator, h: int, w: int
) -> UInt8[np.ndarray, 'h w 3']:
  """Smooth colours, edges and a little noise."""
  coarse = generator.integers(0, 256, (h // 40 + 2, w // 40 + 2, 3), np.uint8)
  smooth = Image.fromarray(coarse).resize((w, h), Image.Resampling.BICUBIC)
  noise = generator.normal(0, 4, (h, w, 3))
  return np.clip(np.asarray(smooth) + noise, 0, 255).astype(np.uint8)


def _labels(generator: np.random.Generator, h: int, w: int) -> UInt8[np.ndarray, 'h w']:
  coarse = generator.integers(0, _CLASSES, (6, 8), np.uint8)
  return np.asarray(Image.fromarray(coarse).resize((w, h), Image.Resampling.NEAREST))


def make_crops(directory: pathlib.Path, count: int) -> tuple[Any, str]:
  """Writes mined pairs to read; returns their data set and split."""
  generator = np.random.default_rng(0)
  found = []
  for i in range(count):
    h, w = (int(n) for n in generator.integers(80, 400, 2))
    ellipse = np.hypot(*np.ogrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]) < 1
    found.append(
      {
        'image': _picture(generator, h, w),
        'mask': (255 * ellipse).astype(np.uint8)[..., None],
        'noun': 'thing',
        'image_id': f'{i}',
        'caption': 0,
        'proposal': 0,
        'box': np.array([0, 0, w, h], np.int32),
        'score': 0.5,
        'cosine': 0.5,
      }
    )
  pairs.write(directory / 'pairs', found, {})
  return pairs.load(directory / 'pairs'), 'train'


def make_photographs(directory: pathlib.Path, count: int) -> tuple[Any, str]:
  """Writes photographs with label maps to read; returns their data set and split."""
  generator = np.random.default_rng(0)
  source = directory / 'source'
  for part in ('images/train', 'masks/train'):
    (source / part).mkdir(parents=True)
  lines = []
  for i in range(count):
    buffer = io.BytesIO()
    Image.fromarray(_picture(generator, 480, 640)).save(buffer, 'JPEG', quality=90)
    (source / f'images/train/{i}.jpg').write_bytes(buffer.getvalue())
    labels = Image.fromarray(_labels(generator, 480, 640))
    labels.save(source / f'masks/train/{i}.png')
    lines.append({'image': f'train/{i}.jpg', 'captions': ['some things'] * 5})
  text = '\n'.join(json.dumps(line) for line in lines)
  (source / 'captions.jsonl').write_text(text)
  (source / 'names.txt').write_text('\n'.join(f'name {k}' for k in range(_CLASSES)))
  return folder.prepare(directory / 'data', source), 'train'
