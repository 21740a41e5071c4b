"""What a mining job has found so far: one file per chunk of images.

A file appears whole or not at all, so that a killed job lost at most what it was
working on, and goes on with the chunks that are not there.
"""

import dataclasses
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ovs_jax.core.files import Place, atomic_path
from ovs_jax.core.preemption import pause
from ovs_jax.core.types import UInt8

Pair = dict[str, Any]
_NUMBERS = ('caption', 'proposal', 'score', 'cosine')


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


def chunk_path(folder: Place, index: int) -> Place:
  """Returns where a chunk is kept."""
  return folder / f'{index:06d}.npz'


def compress(pair: Pair) -> Pair:
  """Returns a pair with its image and mask as PNG, which takes most of writing it."""
  return {**pair, 'image': _png(pair['image']), 'mask': _png(pair['mask'][..., 0])}


def write_chunk(path: Place, found: Sequence[Pair], notes: Notes) -> None:
  """Writes the pairs of a chunk, each from `compress`."""
  arrays: dict[str, np.ndarray] = {}
  table = []
  for i, pair in enumerate(found):
    arrays |= {f'{name}_{i}': pair[name] for name in ('image', 'mask')}
    row = {name: pair[name] for name in ('noun', 'image_id')}
    row |= {name: float(pair[name]) for name in _NUMBERS}
    table.append({**row, 'box': pair['box'].tolist(), 'area': int(pair['area'])})
  text = json.dumps({'pairs': table, 'notes': dataclasses.asdict(notes)})
  with atomic_path(path) as temporary:
    np.savez(temporary, table=np.array(text), **arrays)


def read_tables(folder: Place, count: int) -> Iterator[tuple[list[Pair], Notes]]:
  """Yields pairs without their images, and the notes, of every chunk in order."""
  for i in range(count):
    with chunk_path(folder, i).open('rb') as file, np.load(file) as chunk:
      content = json.loads(str(chunk['table']))
    yield content['pairs'], Notes(**content['notes'])


def read_pairs(folder: Place, count: int, keep: Sequence[bool]) -> Iterator[Pair]:
  """Yields the pairs that `keep` marks, in order, as `data.pairs.write` takes them.

  Raises:
    Stopped: SIGTERM came.
  """
  marks = iter(keep)
  for i in range(count):
    pause(f'all {count} chunks are mined; the pairs will be written anew')
    with chunk_path(folder, i).open('rb') as file, np.load(file) as chunk:
      rows = json.loads(str(chunk['table']))['pairs']
      for k, row in enumerate(rows):
        if next(marks):
          yield to_pair(row, {name: chunk[f'{name}_{k}'] for name in ('image', 'mask')})


def to_pair(row: Pair, images: dict[str, UInt8[np.ndarray, 'n']]) -> Pair:
  """Joins a row of a chunk's table with its encoded images."""
  return {
    'noun': row['noun'],
    'image_id': row['image_id'],
    'box': np.asarray(row['box'], np.int32),
    'caption': int(row['caption']),
    'proposal': int(row['proposal']),
    'score': np.float32(row['score']),
    'cosine': np.float32(row['cosine']),
    **{name: io.BytesIO(png.tobytes()) for name, png in images.items()},
  }


def _png(array: UInt8[np.ndarray, 'h w ...']) -> UInt8[np.ndarray, 'n']:
  buffer = io.BytesIO()
  Image.fromarray(array).save(buffer, 'png', compress_level=zlib.Z_BEST_SPEED)
  return np.frombuffer(buffer.getvalue(), np.uint8)
