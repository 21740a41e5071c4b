"""Layer 2: data sets and `tf.data` pipelines; NumPy arrays come out.

TensorFlow is imported here and nowhere else.
"""

import os
from typing import Any

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')

import dataclasses  # noqa: E402
from collections.abc import Callable  # noqa: E402

import tensorflow as tf  # noqa: E402

from ovs_jax.core.lookup import lookup  # noqa: E402
from ovs_jax.data import scenes  # noqa: E402

tf.config.set_visible_devices([], 'GPU')  # accelerators belong to JAX


@dataclasses.dataclass(frozen=True)
class Dataset:
  """One data set.

  Attributes:
    prepare: from (data_dir, configuration) to a prepared TFDS builder.
    vocabulary: the class list in `text/names` that its labels index.
  """

  prepare: Callable[[str, Any], Any]
  vocabulary: str


DATASETS: dict[str, Dataset] = {
  'scenes': Dataset(scenes.prepare, 'scenes'),
}


def load_dataset(config: Any) -> tuple[Dataset, Any]:
  """Returns the data set of `config.dataset` and its builder, prepared if needed.

  Args:
    config: with `name`, `variant` (a TFDS configuration) and `data_dir`.
  """
  dataset = lookup(DATASETS, config.name, 'data set')
  return dataset, dataset.prepare(os.path.expanduser(config.data_dir), config.variant)
