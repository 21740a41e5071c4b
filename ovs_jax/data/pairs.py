"""Mined mask-noun pairs as a TFDS data set that carries the exact masks.

OVSeg's own data marks the background by a colour, which JPEG blurs and which an object
may have; here the mask lies beside the crop, without loss, and so may the crop.

A data set is a folder of TFRecord files, written one after the other, and at last of
what describes them; so its size does not matter to the memory that writing takes.
"""

import functools
import itertools
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import (
  Path,
  Place,
  atomic_path,
  below,
  local,
  move,
  place,
  read_mapping,
  write_json,
  write_text,
)
from ovs_jax.data.frames import write_records
from ovs_jax.data.stored import open_stored

_NAME, _VERSION = 'pairs', '1.0.0'
_INFO = 'dataset_info.json'  # TFDS's, without which there is no data set
_PER_FILE = 256  # pairs, where they are not written chunk by chunk
_SHEET = 'datasheet.json'
_NOUNS = 'nouns.txt'  # the noun of every pair, in order
_NEEDED = ('image', 'mask', 'noun')


@functools.cache
def features(crop_format: str = 'png') -> tfds.features.FeaturesDict:
  """Returns the fields of a pair.

  `image` (h, w, 3) and `mask` (h, w, 1; 0 or 255) are the tight crop, at its own
  resolution if mining was not told to make it smaller; `box` is x0, y0, x1, y1 with
  exclusive ends in the picture that it was cut out of; `score` is what proposals were
  chosen by, `cosine` CLIP's similarity. `caption` and `proposal` are indices within the
  image; -1 where there is none.

  Args:
    crop_format: of `image`: png or jpeg. Masks are PNG.
  """
  return tfds.features.FeaturesDict(
    {
      'image': tfds.features.Image(shape=(None, None, 3), encoding_format=crop_format),
      'mask': tfds.features.Image(shape=(None, None, 1), encoding_format='png'),
      'noun': tfds.features.Text(),
      'image_id': tfds.features.Text(),
      'caption': np.int32,
      'proposal': np.int32,
      'box': tfds.features.Tensor(shape=(4,), dtype=np.int32),
      'score': np.float32,
      'cosine': np.float32,
    }
  )


def serialize(pair: dict[str, Any], crop_format: str = 'png') -> bytes:
  """Returns the record of a pair, whose images are arrays or encoded as bytes.

  Args:
    pair: with the fields of `features`.
    crop_format: see `features`.

  Returns:
    The same bytes for the same pair, in every process.
  """
  fields = features(crop_format)
  serializer = ExampleSerializer(fields.get_serialized_info())
  example = serializer.get_tf_example(fields.encode_example(pair))
  return example.SerializeToString(deterministic=True)


def file_path(directory: Path, index: int, count: int) -> Place:
  """Returns where one of the `count` files of records of a data set lies."""
  name = f'{_NAME}-train.tfrecord-{index:05d}-of-{count:05d}'
  return _folder(place(directory)) / name


def _folder(directory: Place) -> Place:
  return directory / _NAME / _VERSION


def describe(
  directory: Path,
  lengths: Sequence[int],
  size: int,
  nouns: Iterable[str],
  sheet: Any,
  *,
  crop_format: str = 'png',
) -> None:
  """Makes a data set of files of records that are there; the datasheet comes last.

  Args:
    directory: in which they are, at `file_path`.
    lengths: how many pairs every file has; at least one.
    size: of all records together, in bytes.
    nouns: of all pairs, in their order.
    sheet: the datasheet, as JSON.
    crop_format: of the crops, see `features`.
  """
  directory = place(directory)
  with tempfile.TemporaryDirectory(prefix='ovs_jax_') as name:
    identity = tfds.core.dataset_info.DatasetIdentity(
      name=_NAME,
      version=tfds.core.Version(_VERSION),
      data_dir=name,
      module_name='',
    )
    info = tfds.core.DatasetInfo(
      builder=identity,
      features=features(crop_format),
      description='Mask-noun pairs mined from captions.',
      disable_shuffling=True,
    )
    info.set_file_format('tfrecord')
    template = tfds.core.ShardedFileTemplate(
      data_dir=name, dataset_name=_NAME, split='train', filetype_suffix='tfrecord'
    )
    split = tfds.core.SplitInfo(
      name='train',
      shard_lengths=list(lengths),
      num_bytes=size,
      filename_template=template,
    )
    info.set_splits(tfds.core.splits.SplitDict([split]))
    info.write_to_directory(name)
    written = local(name)
    names = [name for name, _ in below(written)]
    for file in sorted(names, key=lambda name: (name == _INFO, name)):
      text = (written / file).read_text(encoding='utf-8')
      write_text(_folder(directory) / file, text)
  write_text(directory / _NOUNS, ''.join(f'{noun}\n' for noun in nouns))
  write_json(directory / _SHEET, sheet)


def write(directory: Path, pairs: Iterable[dict[str, Any]], sheet: Any) -> None:
  """Writes pairs and their datasheet to `directory`, atomically.

  Images may be arrays or PNG as bytes.
  """
  found: list[str] = []
  lengths: list[int] = []
  size = 0
  rest = iter(pairs)
  with atomic_path(directory, last=_SHEET) as temporary:
    _folder(temporary).mkdir(parents=True)
    while part := list(itertools.islice(rest, _PER_FILE)):
      records = [serialize(pair) for pair in part]
      write_records(file_path(temporary, len(lengths), 0), records)
      found += [pair['noun'] for pair in part]
      lengths.append(len(part))
      size += sum(map(len, records))
    for i in range(len(lengths)):  # now that their number is known
      move(file_path(temporary, i, 0), file_path(temporary, i, len(lengths)))
    describe(temporary, lengths, size, found, sheet)


def is_written(directory: Path) -> bool:
  """Returns whether there is a mined data set, written to its end."""
  return (place(directory) / _SHEET).is_file()


def load(directory: Path) -> Any:
  """Returns the TFDS builder of a mined data set.

  Raises:
    FileNotFoundError: there is none in `directory`, or it is not written to its end.
    ValueError: it is another data set.
  """
  path = _folder(place(directory, schemes=('gs',)))
  if not (is_written(directory) and path.is_dir()):
    raise FileNotFoundError(
      f'{directory} holds no mined pairs; make them with a config whose mode is '
      '"mine", such as configs/scenes.py:mine'
    )
  builder = open_stored(path)
  missing = [name for name in _NEEDED if name not in builder.info.features]
  if missing:
    raise UserError(
      f'{directory} holds no mask-noun pairs: it has no {", ".join(missing)}; make '
      'them with a config whose mode is "mine"'
    )
  return builder


def nouns(directory: Path) -> list[str]:
  """Returns the noun of every pair, in the order of the data.

  Raises:
    FileNotFoundError: the pairs were mined before this list was kept.
  """
  path = place(directory) / _NOUNS
  if not path.is_file():
    raise FileNotFoundError(
      f'{path} not found; the pairs are of an earlier version: mine them again'
    )
  return path.read_text(encoding='utf-8').splitlines()


def datasheet(directory: Path) -> Any:
  """Returns what mining recorded about the data: settings, backend, counts."""
  return read_mapping(place(directory) / _SHEET)
