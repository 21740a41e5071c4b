"""Layer 2: data sets and `tf.data` pipelines; NumPy arrays come out.

TensorFlow is imported here and nowhere else.
"""

import os
import zlib  # noqa: F401
from typing import Any

# Before TensorFlow, which brings a zlib of its own: whoever comes after it gets that
# one, and PNGs are unpacked in three times the time.
import PIL.Image  # noqa: F401

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')

import dataclasses  # noqa: E402
import functools  # noqa: E402
from collections.abc import Callable  # noqa: E402

import tensorflow as tf  # noqa: E402

from ovs_jax import settings  # noqa: E402
from ovs_jax.core.files import place  # noqa: E402
from ovs_jax.core.types import VOID, VOID_16  # noqa: E402
from ovs_jax.data import benchmarks, folder, scenes  # noqa: E402
from ovs_jax.text import vocabulary as names  # noqa: E402

tf.config.set_visible_devices([], 'GPU')  # accelerators belong to JAX


@dataclasses.dataclass(frozen=True)
class Dataset:
  """One data set.

  Attributes:
    prepare: from (data_dir, configuration) to a prepared TFDS builder.
    vocabulary: the class list in `text/names` that its labels index; empty if the data
      set brings its own.
    void: the label of pixels without a class.
  """

  prepare: Callable[[str, Any], Any]
  vocabulary: str
  void: int = VOID


def _benchmark(name: str, void: int = VOID) -> Dataset:
  vocabulary = benchmarks.LAYOUTS[name].vocabulary
  return Dataset(functools.partial(benchmarks.load, name), vocabulary, void)


DATASETS: dict[str, Dataset] = {
  'scenes': Dataset(scenes.prepare, 'scenes'),
  'folder': Dataset(folder.prepare, ''),
  'coco_stuff_171': _benchmark('coco_stuff_171'),
  'coco_stuff_156_15': _benchmark('coco_stuff_156_15'),
  'coco_80': _benchmark('coco_80'),
  'coco_captions_2017': _benchmark('coco_captions_2017'),
  'ade20k_150': _benchmark('ade20k_150'),
  'ade20k_847': _benchmark('ade20k_847', VOID_16),
  'pascal_context_59': _benchmark('pascal_context_59'),
  'pascal_context_459': _benchmark('pascal_context_459', VOID_16),
  'voc_20': _benchmark('voc_20'),
  'voc_20b': _benchmark('voc_20b'),
  'voc_21': _benchmark('voc_21'),
}


def load_dataset(config: settings.Dataset) -> tuple[Dataset, Any]:
  """Returns a data set and its builder, prepared if needed."""
  dataset = DATASETS[config.name]
  data_dir = place(config.data_dir, schemes=('gs',))
  return dataset, dataset.prepare(data_dir, config.variant)


def load_names(config: settings.Dataset) -> names.Vocabulary:
  """Returns the class list of a data set; a folder, which brings one, is prepared."""
  dataset = DATASETS[config.name]
  if dataset.vocabulary:
    found = names.load(dataset.vocabulary)
  else:
    found = folder.vocabulary_of(load_dataset(config)[1])
  return found.held_out(config.fold) if config.fold else found
