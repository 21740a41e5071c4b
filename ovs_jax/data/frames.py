"""TFRecord files as they lie on disk: what is around a record, and copies of some.

A record is the length of its data (8 bytes, little-endian), the checksum of the length
(4), the data, and their checksum (4).
"""

import os
from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Place, atomic_path
from ovs_jax.core.types import Bool, Int

FRAME = 16  # bytes around the data of a record
LENGTH = 8  # bytes that tell how long the data are
_BEFORE, _AFTER = 12, 4


def file_size(lengths: Int[np.ndarray, 'n']) -> int:
  """Returns the bytes of a file whose records have data of these lengths."""
  return int(lengths.sum(dtype=np.int64)) + FRAME * len(lengths)


def write_records(path: Place, records: Iterable[bytes]) -> None:
  """Writes a file of records, which appears whole or not at all."""
  with atomic_path(path) as temporary:
    with tf.io.TFRecordWriter(str(temporary)) as writer:
      for record in records:
        writer.write(record)


def copy_records(source: Place, target: Place, keep: Bool[np.ndarray, 'n']) -> None:
  """Writes the records of a file that `keep` marks to another, one at a time.

  Args:
    source: a file of records.
    target: appears whole or not at all.
    keep: of the file's records, in order.

  Raises:
    ValueError: the file has fewer records.
  """
  with source.open('rb') as file, atomic_path(target) as temporary:
    with temporary.open('wb') as out:
      for use in keep:
        before = file.read(_BEFORE)
        rest = int.from_bytes(before[:LENGTH], 'little') + _AFTER
        if use:
          data = file.read(rest)
          if len(before) + len(data) < _BEFORE + rest:
            raise UserError(f'{source} is damaged: it ends amid a record')
          out.write(before + data)
        else:
          file.seek(rest, os.SEEK_CUR)
