"""What is known of all mined pairs without their crops, and which of them stay."""

import dataclasses
from collections.abc import Iterator
from concurrent import futures

import numpy as np

from ovs_jax.core.files import Place
from ovs_jax.core.types import Bool, Float, Int
from ovs_jax.mining import chunks
from ovs_jax.mining.chunks import AT_ONCE, Notes


@dataclasses.dataclass(frozen=True)
class Table:
  """All pairs of a job in the order of their images; 24 bytes for each.

  Attributes:
    names: every noun once.
    noun: which of them each pair has.
    image: of each pair, counted over the images that have any.
    score: of each pair.
    area: of its mask, in pixels.
    length: of its record, in bytes.
    starts: where the pairs of every chunk begin, and where they end.
  """

  names: list[str]
  noun: Int[np.ndarray, 'n']
  image: Int[np.ndarray, 'n']
  score: Float[np.ndarray, 'n']
  area: Int[np.ndarray, 'n']
  length: Int[np.ndarray, 'n']
  starts: Int[np.ndarray, 'c1']

  def __len__(self) -> int:
    return len(self.noun)

  def chunk(self, index: int) -> slice:
    """Returns where the pairs of a chunk are."""
    return slice(int(self.starts[index]), int(self.starts[index + 1]))


def read(folder: Place, count: int) -> tuple[Table, Notes]:
  """Reads the tables of all chunks, and adds up their notes.

  Raises:
    FileNotFoundError: a chunk is not there.
  """
  notes, names = Notes(), dict[str, int]()
  types = {
    'noun': np.int32,
    'image': np.int32,
    'score': np.float64,
    'area': np.int32,
    'length': np.int32,
  }
  parts: dict[str, list[np.ndarray]] = {name: [] for name in types}
  images, lengths = 0, [0]
  for columns, part in _tables(folder, count):
    notes.add(part)
    own: dict[str, int] = {}
    for name in columns['image_id']:
      own.setdefault(name, images + len(own))
    found = {
      **columns,
      'noun': [names.setdefault(noun, len(names)) for noun in columns['noun']],
      'image': [own[name] for name in columns['image_id']],
    }
    images += len(own)
    lengths.append(len(found['noun']))
    for name, kind in types.items():
      parts[name].append(np.array(found[name], kind))
  arrays = {
    name: np.concatenate([np.zeros(0, kind), *parts[name]])
    for name, kind in types.items()
  }
  return Table(names=list(names), starts=np.cumsum(lengths), **arrays), notes


def _tables(
  folder: Place, count: int
) -> Iterator[tuple[dict[str, list[object]], Notes]]:
  """Yields the tables of all chunks in order, a few of them held at a time."""
  with futures.ThreadPoolExecutor(AT_ONCE) as pool:
    for first in range(0, count, AT_ONCE):
      some = range(first, min(first + AT_ONCE, count))
      yield from pool.map(lambda i: chunks.read_table(folder, i), some)


def select(
  noun: Int[np.ndarray, 'n'], score: Float[np.ndarray, 'n'], *, most: int, least: int
) -> Bool[np.ndarray, 'n']:
  """Returns which pairs stay.

  Args:
    noun: numbers that stand for the nouns of the pairs.
    score: of the pairs.
    most: pairs of a noun that stay, those with the highest scores, the first of equal
      ones; 0: all.
    least: pairs that a noun must have to stay at all; counted before.
  """
  counts = np.bincount(noun)
  order = np.lexsort((-score, noun))  # stable: the first of equal ones stay first
  first = np.cumsum(counts) - counts
  rank = np.empty(len(noun), np.int64)
  rank[order] = np.arange(len(noun)) - first[noun[order]]
  return (counts[noun] >= least) & ((rank < most) if most else (rank >= 0))
