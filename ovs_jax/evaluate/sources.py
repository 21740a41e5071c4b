"""The data sets that an evaluation reads, image by image."""

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.lookup import lookup
from ovs_jax.core.types import Int, UInt8
from ovs_jax.data import DATASETS, load_dataset, load_names, transforms
from ovs_jax.data.pipeline import Arrays, eval_batches
from ovs_jax.settings import Settings
from ovs_jax.text import vocabulary

_TARGET = re.compile(r'(\w+)(?:/(.+?))?(?::(\w+(?:\[.*\])?(?:\+.*)?))?')
# Splits that no published number is measured on.
_TRAINING_SPLITS = ('train', 'clip')


@dataclasses.dataclass(frozen=True)
class Target:
  """A data set to evaluate on: `name`, its TFDS configuration and its split."""

  name: str
  variant: str
  split: str

  @classmethod
  def parse(cls, text: str) -> 'Target':
    """Reads NAME, NAME/VARIANT, NAME:SPLIT or NAME/VARIANT:SPLIT.

    Raises:
      ValueError: another form.
    """
    match = _TARGET.fullmatch(text)
    if match is None:
      raise UserError(
        f'config.suite.datasets has {text!r}; expected NAME, NAME/VARIANT or '
        'NAME/VARIANT:SPLIT, such as ade20k_847/original:val'
      )
    return cls(match[1], match[2] or 'default', match[3] or 'val')

  def __str__(self) -> str:
    return f'{self.name}/{self.variant}:{self.split}'

  @property
  def folder(self) -> str:
    """A name for its results."""
    return re.sub(r'[^A-Za-z0-9]+', '_', str(self)).strip('_')

  @property
  def is_test(self) -> bool:
    """Whether any part of the split is none of the training splits."""
    parts = (part.split('[')[0].strip() for part in self.split.split('+'))
    return any(part not in _TRAINING_SPLITS for part in parts)


@dataclasses.dataclass(frozen=True)
class Source:
  """A data set that is there.

  Attributes:
    target: where it comes from.
    builder: its TFDS builder.
    names: its class list.
    images: in its split.
  """

  target: Target
  builder: Any
  names: vocabulary.Vocabulary
  images: int


@dataclasses.dataclass(frozen=True)
class Sample:
  """One image of a data set.

  Attributes:
    image_id: its name there.
    image: RGB, 0..255.
    label: the truth; values that are no class are void.
    position: in the order of the data set.
  """

  image_id: str
  image: UInt8[np.ndarray, 'h w 3']
  label: Int[np.ndarray, 'h w']
  position: int


def load_sources(config: Settings, targets: list[Target]) -> list[Source]:
  """Returns all data sets.

  Raises:
    ValueError: one comes twice, is unknown, or has no labelled images.
    FileNotFoundError: with all that are not prepared.
  """
  if len(set(targets)) < len(targets):
    raise UserError('config.suite.datasets names a data set twice; name each once')
  sources, missing = [], []
  for target in targets:
    try:
      sources.append(load_source(config, target))
    except FileNotFoundError as error:
      missing.append(str(error))
  if missing:
    raise FileNotFoundError(
      f'{len(missing)} of {len(targets)} data sets are missing:\n  '
      + '\n  '.join(missing)
    )
  return sources


def load_source(config: Settings, target: Target) -> Source:
  """Returns a data set.

  Raises:
    ValueError: it is unknown, or has no labelled images.
    FileNotFoundError: it is not prepared.
  """
  lookup(DATASETS, target.name, 'data set')
  section = dataclasses.replace(
    config.dataset, name=target.name, variant=target.variant
  )
  builder = load_dataset(section)[1]
  if 'label' not in builder.info.features:
    raise UserError(f'{target} has no label maps; evaluation needs them')
  return Source(target, builder, load_names(section), _images(builder, target))


def _images(builder: Any, target: Target) -> int:
  try:
    images = builder.info.splits[target.split].num_examples
  except (KeyError, ValueError) as error:
    known = ', '.join(builder.info.splits)
    raise UserError(f'{target} has no such split; known: {known}') from error
  if not images:
    raise UserError(f'{target} has no images; there is nothing to evaluate')
  return int(images)


def batches(source: Source, index: int, count: int, start: int = 0) -> Any:
  """Yields the images of a host, from its step `start` on, in batches of one."""
  # One image at a time and as it is: sizes differ, and grey frames would change scores.
  return eval_batches(
    source.builder,
    source.target.split,
    [transforms.keep('image', 'label', 'image_id')],
    batch_size=1,
    start=start,
    process_index=index,
    process_count=count,
  )


def sample_of(batch: Arrays, position: int) -> Sample:
  """Returns the image of a batch of one."""
  return Sample(
    image_id=batch['image_id'][0].decode(),
    image=batch['image'][0],
    label=batch['label'][0].astype(np.int32),
    position=position,
  )


def samples(source: Source) -> Iterator[Sample]:
  """Yields all images, in the order of the data set."""
  for step, batch in enumerate(batches(source, 0, 1)):
    yield sample_of(batch, step)
