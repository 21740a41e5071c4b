"""The embedded world `scenes`: drawn pictures with captions and exact masks.

A TFDS builder that needs no download. It stands in for the web photographs and the
benchmarks: 72 classes (64 things of a colour and a shape, 8 stuff), 46 of them seen
in training masks and 26 only in captions.

Splits, each drawn from its own random stream:
  clip: close-ups of mostly one thing or stuff, with one or two captions; no masks.
  train: whole scenes, one to five captions, masks of the seen classes.
  val: whole scenes, captions, masks of all classes.

In `parted` things have parts, which are smaller things of another colour on them and
belong to them; `parts` has the same pictures, and masks of these parts alone. What is
no part there is void in `train`, and of the first stuff in `val`: a mask of the whole
thing is wrong.
"""

import dataclasses
import functools
import io
import os
import pathlib
import shutil
import zlib
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tqdm.auto import tqdm

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Place, local, place
from ovs_jax.core.types import VOID
from ovs_jax.data import scenes_captions, scenes_draw
from ovs_jax.data.build import advance, locked, nearby, quiet_tfds, same_records
from ovs_jax.data.scenes_draw import NUM_THINGS, UNSEEN, Region, Scene
from ovs_jax.data.stored import opened

SPLITS = ('clip', 'train', 'val')
_NEEDED_BYTES = 6_000  # per example, a little more than measured


@dataclasses.dataclass(eq=False, kw_only=True)
class ScenesConfig(tfds.core.BuilderConfig):
  """How much to draw.

  Attributes:
    clip: number of captioned close-ups.
    train: number of scenes with masks of the seen classes.
    val: number of scenes with all masks.
    seed: selects the world; every seed gives other pictures.
    parts: whether things have parts; 2: and masks are those of the parts.
  """

  clip: int
  train: int
  val: int
  seed: int = 0
  parts: Literal[0, 1, 2] = 0

  @property
  def numbers(self) -> dict[str, int]:
    """What decides the pictures and masks; stored beside them."""
    found = {name: getattr(self, name) for name in (*SPLITS, 'seed')}
    return found | ({'parts': self.parts} if self.parts else {})


def _with_parts(name: str, train: int, val: int, seed: int) -> list[ScenesConfig]:
  both = ('parted', 1, 'of wholes'), ('parts', 2, 'of parts')
  return [
    ScenesConfig(
      name=f'{name}{variant}',
      description=f'Scenes of things with parts; masks {what}.',
      **{'clip': 16, 'train': train, 'val': val, 'seed': seed, 'parts': parts},
    )
    for variant, parts, what in both
  ]


CONFIGS = (
  ScenesConfig(
    name='default',
    description='36,000 close-ups and 2,400 scenes; trains a small model.',
    clip=36_000,
    train=2_000,
    val=400,
    seed=1,
  ),
  ScenesConfig(
    name='smoke',
    description='A few hundred pictures, ready in a second.',
    clip=256,
    train=32,
    val=16,
  ),
  *_with_parts('', 2_000, 400, 1),
  *_with_parts('smoke_', 32, 16, 0),
)


def _encode(image: np.ndarray) -> bytes:
  """PNG of an (h, w, 3) or (h, w) uint8 array."""
  buffer = io.BytesIO()
  # Noise has no repeats to look for: this is quicker, and smaller too.
  Image.fromarray(image).save(buffer, 'png', compress_type=zlib.Z_HUFFMAN_ONLY)
  return buffer.getvalue()


@functools.lru_cache(maxsize=4096)
def _encode_void(height: int, width: int) -> bytes:
  """PNG of a label map without labels."""
  return _encode(np.full((height, width), VOID, np.uint8))


def generator(seed: int, split: str, index: int) -> np.random.Generator:
  """The random stream of one scene; no two scenes of any split share one."""
  return np.random.default_rng([seed, SPLITS.index(split), index])


def crop_thing(rng: np.random.Generator, region: Region) -> tuple[int, int, int, int]:
  """Box around a thing: 1.0-1.3 times its extent, moved up to 10 %, half squared."""
  top, left, bottom, right = region.box
  height, width = bottom - top, right - left
  if rng.random() < 0.5:
    height = width = max(height, width)
  scale = rng.uniform(1.0, 1.3)
  shift = rng.uniform(-0.1, 0.1, 2)
  cy = (top + bottom) / 2 + shift[0] * height
  cx = (left + right) / 2 + shift[1] * width
  height, width = height * scale / 2, width * scale / 2
  limit = scenes_draw.SIZE
  return (
    max(0, round(cy - height)),
    max(0, round(cx - width)),
    min(limit, round(cy + height)),
    min(limit, round(cx + width)),
  )


def _crop_stuff(
  rng: np.random.Generator, mask: np.ndarray
) -> tuple[int, int, int, int] | None:
  """A square of 24-64 px with more than 60 % of this stuff, or None if not found."""
  for _ in range(20):
    side = int(rng.integers(24, 65))
    top, left = (int(v) for v in rng.integers(0, scenes_draw.SIZE - side + 1, 2))
    if mask[top : top + side, left : left + side].mean() > 0.6:
      return top, left, top + side, left + side
  return None


def close_ups(
  rng: np.random.Generator, scene: Scene
) -> Iterator[tuple[np.ndarray, int]]:
  """Cuts a scene into close-ups: every thing, and one of its stuff regions.

  Yields:
    The picture, (h, w, 3) uint8 of varying size, and the train id it shows.
  """
  chosen = int(rng.integers(len(scene.stuff)))
  for index, region in enumerate(scene.regions):
    if region.train_id < NUM_THINGS:
      box = crop_thing(rng, region)
    elif index == chosen:
      box = _crop_stuff(rng, scene.mask(index))
    else:
      continue
    if box is not None:
      top, left, bottom, right = box
      yield scene.image[top:bottom, left:right], region.train_id


def clip_examples(config: ScenesConfig) -> Iterator[dict[str, Any]]:
  """Close-ups with captions, `image` (h, w, 3) uint8 and no labels."""
  count = 0
  for index in range(config.clip):  # one scene gives at least one close-up
    rng = generator(config.seed, 'clip', index)
    scene = scenes_draw.draw_scene(rng, parts=bool(config.parts))
    for number, (image, train_id) in enumerate(close_ups(rng, scene)):
      if count == config.clip:
        return
      count += 1
      yield {
        'image': image,
        'label': np.full(image.shape[:2], VOID, np.uint8),
        'captions': scenes_captions.describe_one(rng, train_id),
        'image_id': f'clip_{index:05d}_{number}',
      }


def scene_examples(config: ScenesConfig, split: str) -> Iterator[dict[str, Any]]:
  """Whole scenes of `train` or `val`, `image` and `label` (128, 128, ..) uint8."""
  hidden = np.arange(256, dtype=np.uint8)
  if split == 'train':
    hidden[list(UNSEEN)] = VOID
  for index in range(getattr(config, split)):
    rng = generator(config.seed, split, index)
    scene = scenes_draw.draw_scene(rng, parts=bool(config.parts))
    label = scene.label if config.parts < 2 else scene.parts
    if config.parts == 2 and split == 'val':
      label = np.where(label == VOID, np.uint8(NUM_THINGS), label)
    yield {
      'image': scene.image,
      'label': hidden[label],
      'captions': scenes_captions.describe(rng, scene),
      'image_id': f'{split}_{index:05d}',
    }


def examples(config: ScenesConfig, split: str) -> Iterator[dict[str, Any]]:
  """All examples of a split as arrays, in the order they are drawn."""
  return clip_examples(config) if split == 'clip' else scene_examples(config, split)


class Scenes(tfds.core.GeneratorBasedBuilder):
  """Drawn scenes of coloured shapes on textured stuff, with captions and masks."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'First version.'}
  BUILDER_CONFIGS = list(CONFIGS)

  url_infos = {}  # nothing is downloaded: no checksum file to look for
  progress: tqdm | None = None  # advanced by one per example, if given

  def _info(self) -> tfds.core.DatasetInfo:
    return self.dataset_info_from_configs(
      description=__doc__,
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(shape=(None, None, 3), encoding_format='png'),
          'label': tfds.features.Image(shape=(None, None, 1), encoding_format='png'),
          'captions': tfds.features.Sequence(tfds.features.Text()),
          'image_id': tfds.features.Text(),
        }
      ),
      metadata=tfds.core.MetadataDict(self.builder_config.numbers),
    )

  def _split_generators(
    self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
    del dl_manager  # nothing to download
    return {split: self._generate_examples(split) for split in SPLITS}

  def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for example in examples(self.builder_config, split):
      label = example['label']
      encoded = {
        'image': _encode(example['image']),
        'label': _encode_void(*label.shape) if split == 'clip' else _encode(label),
      }
      yield example['image_id'], {**example, **encoded}
      advance(self)


def _is_prepared(builder: Scenes) -> bool:
  """Whether the data are there; TFDS renames a folder into place when it is done.

  Raises:
    ValueError: what is there was drawn with other numbers under the same name.
  """
  if not (builder.data_path / 'dataset_info.json').exists():
    return False
  config, drawn = builder.builder_config, dict(builder.info.metadata)
  if drawn != config.numbers:
    raise UserError(
      f'{builder.data_dir} holds scenes drawn with {drawn}, and the configuration '
      f'{config.name!r} asks for {config.numbers}. Give it another name or data_dir.'
    )
  return True


def _generate(builder: Scenes) -> None:
  """Draws and writes everything, after sweeping away what a killed run left."""
  config, target = builder.builder_config, local(builder.data_dir)
  for stale in target.parent.glob(f'{tfds.core.constants.INCOMPLETE_PREFIX}*'):
    shutil.rmtree(stale)
  if target.exists():  # without its dataset_info.json, or we would not be here
    shutil.rmtree(target)
  total = config.clip + config.train + config.val
  needed, free = total * _NEEDED_BYTES, shutil.disk_usage(target.parent).free
  if free < needed:
    raise OSError(f'{free / 1e6:.0f} MB free, {needed / 1e6:.0f} MB needed')
  label = f'drawing scenes/{config.name}'
  bar = tqdm(total=total, desc=label, unit=' pictures')
  with bar as progress, quiet_tfds(), same_records():
    builder.progress = progress
    builder.download_and_prepare()


def prepare(
  data_dir: str | os.PathLike, config: str | ScenesConfig = 'default'
) -> tfds.core.DatasetBuilder:
  """Draws the world into `data_dir`, unless it is there, and returns its builder.

  Safe to call again after a kill, and from several processes: one draws, the others
  wait for it.

  Args:
    data_dir: where TFDS keeps its data sets.
    config: 'default', 'smoke', or a configuration of your own.

  Raises:
    ValueError: the configuration is unknown, or differs from what `data_dir` holds
      under its name.
    OSError: `data_dir` cannot be written or is full.
  """
  known = [c.name for c in CONFIGS]
  if isinstance(config, str) and config not in known:
    raise UserError(
      f'unknown configuration {config!r} of scenes; known: {", ".join(known)}.'
    )
  data_dir = place(data_dir, schemes=('gs',))
  builder = _open(data_dir, config)
  if _is_prepared(builder):
    return builder
  if not isinstance(data_dir, pathlib.Path):
    with nearby(data_dir) as near:
      prepare(near, config)
    return _open(data_dir, config)
  folder = local(builder.data_dir).parent
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
      builder = _open(data_dir, config)  # may be there by now
      if not _is_prepared(builder):
        _generate(builder)
  except OSError as error:
    raise OSError(
      f'cannot prepare scenes in {data_dir}: {error}. Choose a data_dir on a disk '
      'with free space and write permission.'
    ) from error
  return _open(data_dir, config)


def _open(data_dir: Place, config: str | ScenesConfig) -> Scenes:
  name = config if isinstance(config, str) else config.name
  path = data_dir / Scenes.name / name / str(Scenes.VERSION)
  return opened(path, lambda: Scenes(data_dir=data_dir, config=config))
