"""TFDS builders of the benchmarks; `ovs_jax.data.layouts` says what each one is.

An example is `image` as published, `label` with train ids of the class list and void as
the largest number of its type (255, or 65535 where there are more classes), `captions`
where the benchmark has them, and `image_id`.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import place
from ovs_jax.core.lookup import lookup
from ovs_jax.data import build, shrink
from ovs_jax.data.class_table import ClassTable, class_table
from ovs_jax.data.layouts import LAYOUTS, Layout, Split
from ovs_jax.data.sources import (
  Pair,
  Problem,
  Reader,
  label_png,
)
from ovs_jax.data.stored import noted, opened
from ovs_jax.text import vocabulary


@dataclasses.dataclass(eq=False, kw_only=True)
class BenchmarkConfig(tfds.core.BuilderConfig):
  """What of a benchmark to build.

  Attributes:
    splits: only these; empty for all.
    partial: take what is there of a sample and do not compare with published counts.
    shrink: make the reference's copy with a shorter side of 512 pixels.
  """

  splits: tuple[str, ...] = ()
  partial: bool = False
  shrink: bool = False


_WHOLE = BenchmarkConfig(name='default', description='Everything, as published.')
_PART = BenchmarkConfig(
  name='partial', description='What there is of a sample.', partial=True
)
_VAL = BenchmarkConfig(
  name='val', description='The validation split alone.', splits=('val',)
)


class Benchmark(build.Builder, skip_registration=True):
  """A benchmark read from the files that its authors publish."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'First version.'}
  BUILDER_CONFIGS = [_WHOLE, _PART]
  MANUAL_DOWNLOAD_INSTRUCTIONS = 'See `python -m ovs_jax.data.prepare --list`.'

  layout: ClassVar[Layout]

  @property
  def table(self) -> ClassTable:
    """From the values in its label files to train ids."""
    names = vocabulary.load(self.layout.vocabulary)
    return class_table(names.source_values, self.layout.ignored)

  def _info(self) -> tfds.core.DatasetInfo:
    names = vocabulary.load(self.layout.vocabulary)
    metadata = {
      'vocabulary': names.name,
      'vocabulary_sha256': names.sha256,
      'void': self.table.void,
      'partial': self.builder_config.partial,
    }
    features: dict[str, Any] = {
      'image': tfds.features.Image(shape=(None, None, 3)),
      'image_id': tfds.features.Text(),
    }
    if self.layout.read_label:
      features['label'] = tfds.features.Image(
        shape=(None, None, 1), dtype=self.table.train_ids.dtype, encoding_format='png'
      )
    if self.layout.captions:
      features['captions'] = tfds.features.Sequence(tfds.features.Text())
    return self.dataset_info_from_configs(
      description=f'{self.layout.title}. Licence: {self.layout.licence}.',
      features=tfds.features.FeaturesDict(features),
      metadata=tfds.core.MetadataDict(metadata),
    )

  @functools.cached_property
  def _listed(self) -> dict[str, list[Pair]]:
    return {}

  def pairs(self, source: pathlib.Path) -> Mapping[str, list[Pair]]:
    """Returns the examples of each split, and notes what is missing as problems."""
    if self._listed:
      return self._listed
    config, root = self.builder_config, self.layout.root(source)
    for name, split in self.layout.splits.items():
      if config.splits and name not in config.splits:
        continue
      pairs = split.pairs(root)
      if config.partial:
        pairs = [pair for pair in pairs if not pair.missing()]
        if not pairs:
          continue
      elif len(pairs) != split.count:
        what = f'{name} has {len(pairs):,} images, the published one {split.count:,}'
        self.problems.append(Problem('wrong count', what))
        if split.listing and not (root / split.listing).is_file():
          self.problems.append(Problem('missing', split.listing))
      self._listed[name] = pairs
    if not any(self._listed.values()):
      what = f'{root} has nothing of {self.layout.files}'
      self.problems[:] = [Problem('missing', what)]
    return self._listed

  def tasks(self, source: pathlib.Path) -> dict[str, build.Task]:
    """Returns what each split is made of."""
    root = self.layout.root(source)
    return {
      name: self._task(self.layout.splits[name], pairs, root)
      for name, pairs in self.pairs(source).items()
    }

  def _task(self, split: Split, pairs: list[Pair], root: pathlib.Path) -> build.Task:
    table = self.table
    if split.hide_unseen:
      splits = vocabulary.load(self.layout.vocabulary).splits
      table = table.hide([k for k, s in enumerate(splits) if s == 'unseen'])
    small = shrink.shrink if self.builder_config.shrink else None
    read = Reader(root, self.layout.read_label, table, shrink=small)

    def keep(example: dict[str, Any]) -> bool:
      return not (split.drop_void and (example['label'] == table.void).all())

    return build.Task(pairs, read, keep, self._encode)

  def identity(self) -> Any:
    """Returns the class list, and how images are made smaller."""
    return [dict(self.info.metadata), self.builder_config.shrink]

  def _encode(self, example: dict[str, Any]) -> dict[str, Any]:
    kept = {name: example[name] for name in self.info.features}
    if 'label' in kept:
      kept['label'] = label_png(example)
    return kept


class CocoStuff171(Benchmark):
  """COCO-Stuff, 171 classes."""

  name = 'coco_stuff_171'
  layout = LAYOUTS[name]
  BUILDER_CONFIGS = [_WHOLE, _VAL, _PART]


class CocoStuff156(Benchmark):
  """COCO-Stuff with 15 classes hidden from training."""

  name = 'coco_stuff_156_15'
  layout = LAYOUTS[name]
  BUILDER_CONFIGS = [_WHOLE, _VAL, _PART]


class Coco80(Benchmark):
  """COCO's things, from the maps of COCO-Stuff."""

  name = 'coco_80'
  layout = LAYOUTS[name]


class CocoCaptions(Benchmark):
  """COCO Captions."""

  name = 'coco_captions_2017'
  layout = LAYOUTS[name]
  BUILDER_CONFIGS = [_WHOLE, _VAL, _PART]


class Ade20k150(Benchmark):
  """ADE20K, 150 classes."""

  name = 'ade20k_150'
  layout = LAYOUTS[name]


class Ade20k847(Benchmark):
  """ADE20K, 847 classes, small as in the literature or at the published size."""

  name = 'ade20k_847'
  layout = LAYOUTS[name]
  BUILDER_CONFIGS = [
    BenchmarkConfig(
      name='default', description='Shorter side at most 512 pixels.', shrink=True
    ),
    BenchmarkConfig(name='original', description='As published.'),
    BenchmarkConfig(
      name='partial',
      description='What there is of a sample, small.',
      partial=True,
      shrink=True,
    ),
    BenchmarkConfig(
      name='partial_original',
      description='What there is of a sample, as published.',
      partial=True,
    ),
  ]


class PascalContext59(Benchmark):
  """Pascal Context, 59 classes."""

  name = 'pascal_context_59'
  layout = LAYOUTS[name]


class PascalContext459(Benchmark):
  """Pascal Context, 459 classes."""

  name = 'pascal_context_459'
  layout = LAYOUTS[name]


class Voc20(Benchmark):
  """Pascal VOC, 20 classes."""

  name = 'voc_20'
  layout = LAYOUTS[name]


class Voc20b(Benchmark):
  """Pascal VOC, 20 classes and then background."""

  name = 'voc_20b'
  layout = LAYOUTS[name]


class Voc21(Benchmark):
  """Pascal VOC, background and then 20 classes."""

  name = 'voc_21'
  layout = LAYOUTS[name]


_CLASSES = (
  CocoStuff171,
  CocoStuff156,
  Coco80,
  CocoCaptions,
  Ade20k150,
  Ade20k847,
  PascalContext59,
  PascalContext459,
  Voc20,
  Voc20b,
  Voc21,
)
BENCHMARKS: dict[str, type[Benchmark]] = {c.name: c for c in _CLASSES}


def make(name: str, data_dir: Any, variant: str) -> Benchmark:
  """Returns the builder of a benchmark, prepared or not.

  Raises:
    ValueError: no such benchmark or variant.
  """
  cls = lookup(BENCHMARKS, name, 'benchmark')
  lookup({c.name: c for c in cls.BUILDER_CONFIGS}, variant, f'variant of {name}')
  data_dir = place(data_dir, schemes=('gs',))
  path = data_dir / name / variant / str(cls.VERSION)
  return opened(path, lambda: cls(data_dir=data_dir, config=variant))


def load(name: str, data_dir: Any, variant: str) -> Benchmark:
  """Returns the prepared builder of a benchmark.

  Raises:
    ValueError: no such benchmark or variant, or prepared with another class list.
    FileNotFoundError: not prepared; says how to.
  """
  builder = make(name, data_dir, variant)
  partial = ' --allow_partial' if builder.builder_config.partial else ''
  if not build.is_prepared(builder):
    chosen = {'default': '', 'partial': ''}.get(variant, f' --variant={variant}')
    raise FileNotFoundError(
      f'{name}/{variant} is not in {data_dir}. Prepare it from its published files: '
      f'python -m ovs_jax.data.prepare --dataset={name}{chosen}{partial} --source=DIR '
      f'--data_dir={data_dir}'
    )
  stored = noted(builder, 'vocabulary_sha256', str)
  if stored != vocabulary.load(builder.layout.vocabulary).sha256:
    raise UserError(
      f'{builder.data_dir} was prepared with another class list; delete it and prepare '
      f'{name} again'
    )
  return builder
