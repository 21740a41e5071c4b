"""The examples of a split by their position, read from where they lie in its files.

TFRecord files hold one record after the other, each behind its length. A walk along the
lengths says where all of them begin; after it any process reads the records that it
needs, in any order, and no others.
"""

import os
import re
from collections.abc import Iterator, Sequence
from concurrent import futures
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import place
from ovs_jax.core.types import Int
from ovs_jax.data.frames import FRAME, LENGTH
from ovs_jax.data.transforms import Example, as_written

# What TensorFlow says of an image that it cannot decode, before the name of the node.
_OF_AN_IMAGE = re.compile(
  r': ((?:(?!: ).){1,120})\n\s*\[\[\{\{node [\w/]*Decode\w+\}\}'
)
_FILES = 16  # walked along at the same time


def parallel_calls() -> int:
  """Returns how many examples are made at once: as many as there are cores.

  A number, because `tf.data.AUTOTUNE` means at most 16 where nothing is tuned.
  """
  return os.cpu_count() or 1


class Shards:
  """The undecoded examples of one split of one or several data sets."""

  def __init__(self, builders: Sequence[Any], split: str) -> None:
    """Finds out where every record begins, but reads none.

    Args:
      builders: prepared TFDS builders with the same features; the positions of one
        follow upon those of the one before it.
      split: of each of them; slices and sums are allowed.

    Raises:
      ValueError: files of another format, or that are damaged.
    """
    self.features = builders[0].info.features
    images = self.features.items()
    images = [n for n, x in images if isinstance(x, tfds.features.Image)]
    self._decoders = {name: tfds.decode.SkipDecoding() for name in images}
    parts = [part for builder in builders for part in _files(builder, split)]
    with futures.ThreadPoolExecutor(_FILES) as pool:
      starts = list(pool.map(record_starts, parts))
    lengths = [len(x) for x in starts]
    # As tensors, which functions share; arrays would become part of each.
    with tf.device('CPU'):
      self._paths = tf.constant([part.filename for part in parts] or [''])
      self._file = tf.constant(np.repeat(np.arange(len(parts)), lengths), tf.int32)
      self._start = tf.constant(np.concatenate([np.zeros(0, np.int64), *starts]))

  def __len__(self) -> int:
    return len(self._start)

  def read(self, position: tf.Tensor) -> Example:
    """Returns an example with its images as bytes; for `tf.data`."""
    path = tf.gather(self._paths, tf.gather(self._file, position))
    start = tf.gather(self._start, position)
    found = tf.raw_ops.TFRecordDatasetV2(
      filenames=path[None],
      compression_type='',
      buffer_size=0,  # the record and nothing behind it
      byte_offsets=start[None],
      metadata=b'',
    )
    records = tf.data.experimental.from_variant(found, tf.TensorSpec((), tf.string))
    record = records.take(1).get_single_element()
    return self.features.deserialize_example(record, decoders=self._decoders)

  def dataset(self, positions: Int[np.ndarray, 'n']) -> tf.data.Dataset:
    """Returns the examples at these positions, undecoded."""
    data = tf.data.Dataset.from_tensor_slices(np.asarray(positions, np.int64))
    return data.map(
      as_written(self.read), num_parallel_calls=parallel_calls(), deterministic=True
    )

  def damage(self, error: Exception) -> UserError | Exception:
    """Returns what to say of an error of reading: which record is damaged, and where.

    What neither a record nor an image is to blame for stays as it is.
    """
    for path in self._paths.numpy():
      count = 0
      try:
        for _ in tf.data.TFRecordDataset(path):
          count += 1
      except tf.errors.DataLossError:
        return UserError(
          f'{path.decode()} is damaged: record {count} holds other bytes than were '
          'written; prepare the data set again, or copy it again'
        )
    found = _OF_AN_IMAGE.search(str(error))
    if not found:
      return error
    folder = os.path.dirname(self._paths.numpy()[0].decode())
    return UserError(
      f'an image of {folder} cannot be decoded ({found[1].rstrip(".")}); mend it and '
      'prepare the data set again'
    )


def _files(builder: Any, split: str) -> Iterator[Any]:
  """The files of a split, and which of their records belong to it."""
  found = builder.info.file_format
  if found is not None and found.value != 'tfrecord':
    raise UserError(
      f'{builder.info.full_name} is stored as {found.value}, expected tfrecord; '
      'prepare it again'
    )
  try:
    instructions = builder.info.splits[split].file_instructions
  except (KeyError, ValueError) as error:
    splits = builder.info.splits.items()
    known = ', '.join(f'{name} ({part.num_examples})' for name, part in splits)
    known = known or 'none'
    raise UserError(
      f'{builder.data_dir} has no split {split!r}; it has {known}, and parts of '
      'them such as train[:10]'
    ) from error
  yield from instructions


def record_starts(part: Any) -> Int[np.ndarray, 'n']:
  """Where the records of a file begin, of those that belong to the split."""
  starts = np.zeros(part.examples_in_shard + 1, np.int64)
  with place(part.filename).open('rb') as file:
    size = file.seek(0, os.SEEK_END)
    for i in range(part.examples_in_shard):
      if not 0 <= starts[i] < size:
        starts[-1] = -1  # the length that led there is damaged
        break
      file.seek(starts[i])
      length = int.from_bytes(file.read(LENGTH), 'little')
      starts[i + 1] = starts[i] + FRAME + min(length, size)
  if starts[-1] != size:
    raise UserError(
      f'{part.filename} is damaged: its {size} bytes do not hold the '
      f'{part.examples_in_shard} records that were written; prepare the data set '
      'again, or copy it again'
    )
  return starts[part.skip : part.skip + part.take]
