"""What a mining job has found so far: two files per chunk of images.

One holds the pairs, as a file of the data set to come; the other, which is written
last, says what is in it. A file appears whole or not at all, so that a killed job lost
at most what it was working on, and goes on with the chunks that are not there.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent import futures
from typing import Any

import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Place, below, read_mapping, write_json
from ovs_jax.data import crops, pairs
from ovs_jax.data.frames import file_size, write_records

Pair = dict[str, Any]
AT_ONCE = 16  # tables that are read at the same time
# What a table says of each pair, and as what.
_COLUMNS = {'noun': str, 'image_id': str, 'score': float, 'area': int, 'length': int}
_FIELDS = ('noun', 'image_id', 'caption', 'proposal', 'box', 'score', 'cosine')


@dataclasses.dataclass
class Notes:
  """What a chunk had to leave out, as counts of images.

  Attributes:
    images: looked at, broken ones included.
    captions: read.
    without_captions: images that have none.
    without_nouns: images in whose captions there is no noun.
    without_proposals: images without a mask that is large enough.
    broken: image id and problem of the images that cannot be decoded.
  """

  images: int = 0
  captions: int = 0
  without_captions: int = 0
  without_nouns: int = 0
  without_proposals: int = 0
  broken: list[list[str]] = dataclasses.field(default_factory=list)

  def add(self, other: 'Notes') -> None:
    """Adds the counts of another chunk."""
    for field in dataclasses.fields(self):
      mine, theirs = getattr(self, field.name), getattr(other, field.name)
      setattr(self, field.name, mine + theirs)


@dataclasses.dataclass(frozen=True)
class Stored:
  """A pair as it is written.

  Attributes:
    record: of the data set.
    row: what is known of it without reading that: noun, image, score, area in pixels.
  """

  record: bytes
  row: Mapping[str, Any]


def records_path(folder: Place, index: int) -> Place:
  """Returns where the pairs of a chunk are kept; one without any has no such file."""
  return folder / f'{index:06d}.tfrecord'


def table_path(folder: Place, index: int) -> Place:
  """Returns where it is kept what the pairs of a chunk are."""
  return folder / f'{index:06d}.json'


def store(pair: Pair, *, shortest: int, crop_format: str) -> Stored:
  """Returns a pair as it is written, which takes most of writing it.

  Args:
    pair: of the miner; its `image` (h, w, 3) and `mask` (h, w, 1) are uint8.
    shortest: that the shorter side of its crop is made, if it is longer; 0: as it is.
    crop_format: png or jpeg.
  """
  image, mask = crops.shrink(pair['image'], pair['mask'][..., 0], shortest)
  encoded = {
    'image': crops.encode(image, crop_format),
    'mask': crops.encode(mask, 'png'),
  }
  record = pairs.serialize(
    {**{name: pair[name] for name in _FIELDS}, **encoded}, crop_format
  )
  row = {
    'noun': pair['noun'],
    'image_id': pair['image_id'],
    'score': float(pair['score']),
    'area': int(pair['area']),
    'length': len(record),
  }
  return Stored(record, row)


def write_chunk(
  folder: Place, index: int, found: Sequence[Stored], notes: Notes
) -> None:
  """Writes the pairs of a chunk, and then what they are."""
  if found:
    write_records(records_path(folder, index), (pair.record for pair in found))
  columns = {name: [pair.row[name] for pair in found] for name in _COLUMNS}
  write_json(
    table_path(folder, index), {'notes': dataclasses.asdict(notes), 'pairs': columns}
  )


def read_table(folder: Place, index: int) -> tuple[dict[str, list[Any]], Notes]:
  """Returns what the pairs of a chunk are, in columns, and its notes."""
  path = table_path(folder, index)
  content = read_mapping(path, pairs=dict, notes=dict)
  columns, notes = content['pairs'], content['notes']
  if not (_are_columns(columns) and _are_notes(notes)):
    raise UserError(f'{path} is damaged; delete it to mine its images again')
  return columns, Notes(**notes)


def _are_columns(found: Mapping[str, Any]) -> bool:
  if set(found) != set(_COLUMNS) or not all(
    isinstance(x, list) for x in found.values()
  ):
    return False
  same = len({len(column) for column in found.values()}) == 1
  return same and all(
    isinstance(x, kind) for name, kind in _COLUMNS.items() for x in found[name]
  )


def _are_notes(found: Mapping[str, Any]) -> bool:
  kinds = {x.name: type(x.default) for x in dataclasses.fields(Notes)}
  kinds['broken'] = list
  return set(found) == set(kinds) and all(
    isinstance(found[name], kind) for name, kind in kinds.items()
  )


def share_to_come(folder: Place, count: int) -> float:
  """Returns which part of `count` chunks has no table yet."""
  names = {name for name, _ in below(folder)}
  there = sum(table_path(folder, i).name in names for i in range(count))
  return 1 - there / max(count, 1)


def missing(folder: Place, indices: Sequence[int]) -> list[int]:
  """Returns which of these chunks are not there, or not whole."""
  sizes = dict(below(folder))
  there = [i for i in indices if table_path(folder, i).name in sizes]

  def whole(index: int) -> bool:
    lengths = np.array(read_table(folder, index)[0]['length'], np.int64)
    found = sizes.get(records_path(folder, index).name, 0)
    return found == file_size(lengths)

  with futures.ThreadPoolExecutor(AT_ONCE) as pool:
    kept = {i for i, use in zip(there, pool.map(whole, there), strict=True) if use}
  return [i for i in indices if i not in kept]
