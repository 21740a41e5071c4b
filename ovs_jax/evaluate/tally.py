"""What an evaluation counts, in integers: nothing of it depends on an order.

Hosts, and processes that take turns, each fill a tally with their own images; the
merged one is what a single process would have counted.
"""

import dataclasses
import io
import threading
from collections.abc import Callable, Iterable, Mapping

import jax
import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.types import Int
from ovs_jax.ops.boundary import compact_boundary_counts
from ovs_jax.ops.confusion import compact, count_pixels

Arrays = dict[str, np.ndarray]
_KEYS = ('matrix', 'bands', 'ids', 'lengths', 'rows')  # of a tally among arrays


@dataclasses.dataclass
class Tally:
  """Counts over images of one way to segment them.

  Attributes:
    num_classes: of the data set.
    matrix: (k + 1, k + 1), see `ops.confusion`.
    bands: (3, k), see `ops.boundary`; zeros if they were not asked for.
    images: by image id the rows (class, right, predicted, true) of its classes, in
      pixels with a ground truth.
  """

  num_classes: int
  matrix: Int[np.ndarray, 'k1 k1'] = dataclasses.field(init=False)
  bands: Int[np.ndarray, '3 k'] = dataclasses.field(init=False)
  images: dict[str, Int[np.ndarray, 'n 4']] = dataclasses.field(default_factory=dict)

  def __post_init__(self) -> None:
    self._lock = threading.Lock()
    k = self.num_classes
    self.matrix = np.zeros((k + 1, k + 1), np.int64)
    self.bands = np.zeros((3, k), np.int64)

  def add(
    self,
    image_id: str,
    prediction: Int[np.ndarray, 'h w'],
    label: Int[np.ndarray, 'H W'],
    *,
    boundary: bool = True,
  ) -> None:
    """Counts an image; several threads may do so at once.

    Args:
      image_id: of the image, which is counted once.
      prediction: classes; others than 0..num_classes-1 are wrong everywhere.
      label: classes; others are void.
      boundary: whether to count bands along borders, which takes longer.

    Raises:
      ValueError: the image was counted before, or the sizes differ.
    """
    if prediction.shape != label.shape:
      raise UserError(
        f'the prediction for {image_id} is {_size(prediction)} pixels, its label map '
        f'{_size(label)}; predictions must have the size of the label map'
      )
    # Small types: memory is most of what counting takes.
    prediction, label = (compact(x, self.num_classes) for x in (prediction, label))
    matrix = count_pixels(prediction, label, self.num_classes)
    bands: Int[np.ndarray, '3 k'] | int = 0
    if boundary:
      bands = compact_boundary_counts(prediction, label, self.num_classes)
    labelled = matrix[:, :-1]
    counts = (np.diag(labelled), labelled.sum(axis=0), labelled[:-1].sum(axis=1))
    self.add_counts(image_id, np.stack(counts), matrix=matrix, bands=bands)

  def add_counts(
    self,
    image_id: str,
    counts: Int[np.ndarray, '3 k'],
    *,
    matrix: Int[np.ndarray, 'k1 k1'] | int = 0,
    bands: Int[np.ndarray, '3 k'] | int = 0,
  ) -> None:
    """Counts an image, also one whose pixels have several classes and so no matrix.

    Args:
      image_id: of the image, which is counted once.
      counts: pixels that are right, true and predicted of each class.
      matrix: of the image, where there is one.
      bands: likewise.

    Raises:
      ValueError: the image was counted before.
    """
    right, true, predicted = counts
    k = np.flatnonzero(true + predicted)
    rows = np.stack([k, right[k], predicted[k], true[k]], axis=1)
    with self._lock:
      self._check_new(image_id)
      self.matrix += matrix
      self.bands += bands
      self.images[image_id] = rows.astype(np.int64)

  def merge(self, other: 'Tally') -> None:
    """Adds the counts of other images.

    Raises:
      ValueError: an image is in both.
    """
    for image_id in other.images:
      self._check_new(image_id)
    self.matrix += other.matrix
    self.bands += other.bands
    self.images.update(other.images)

  def _check_new(self, image_id: str) -> None:
    if image_id in self.images:
      raise UserError(
        f'image {image_id!r} comes twice; an evaluation counts every image once. Give '
        'the images of the data set different ids'
      )

  def table(self) -> Int[np.ndarray, 'n 3 k']:
    """Returns what is right, true and predicted of each class in every image.

    Images come in the order of their ids.
    """
    counts = np.zeros((len(self.images), 3, self.num_classes), np.int32)
    for i, image_id in enumerate(sorted(self.images)):
      classes, right, predicted, true = self.images[image_id].T
      counts[i, :, classes] = np.stack([right, true, predicted], axis=1)
    return counts

  def arrays(self) -> Arrays:
    """Returns all counts as arrays, for a file; images in the order of their ids."""
    ids = sorted(self.images)
    rows = [self.images[i] for i in ids]
    values = (
      self.matrix,
      self.bands,
      np.array(ids, np.str_),
      np.array([len(r) for r in rows], np.int64),
      np.concatenate([np.zeros((0, 4), np.int64), *rows]),
    )
    return dict(zip(_KEYS, values, strict=True))

  @classmethod
  def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> 'Tally':
    """Reads what `arrays` returned."""
    tally = cls(arrays['matrix'].shape[0] - 1)
    tally.matrix, tally.bands = arrays['matrix'], arrays['bands']
    parts = np.split(arrays['rows'], np.cumsum(arrays['lengths'])[:-1])
    if len(arrays['ids']):
      pairs = zip(arrays['ids'], parts, strict=True)
      tally.images = {str(i): rows for i, rows in pairs}
    return tally


def pack(tallies: Mapping[str, Tally], counts: Mapping[str, np.ndarray]) -> bytes:
  """Returns tallies and other sums as the bytes of an .npz file.

  Args:
    tallies: by name.
    counts: integer arrays by name, which `unpack` adds up.
  """
  arrays = {
    f'tally/{name}/{key}': x
    for name, tally in tallies.items()
    for key, x in tally.arrays().items()
  }
  buffer = io.BytesIO()
  sums = {f'sum/{name}': x for name, x in counts.items()}
  np.savez_compressed(buffer, **arrays, **sums)
  return buffer.getvalue()


def unpack(parts: Iterable[bytes]) -> tuple[dict[str, Tally], Arrays]:
  """Merges what several hosts packed.

  Raises:
    ValueError: an image was counted by two of them.
  """
  tallies: dict[str, Tally] = {}
  counts: Arrays = {}
  for part in parts:
    with np.load(io.BytesIO(part), allow_pickle=False) as stored:
      arrays = {name: stored[name] for name in stored.files}
    packed = (n.removeprefix('tally/') for n in arrays if n.startswith('tally/'))
    for name in dict.fromkeys(n.rpartition('/')[0] for n in packed):
      own = {key: arrays[f'tally/{name}/{key}'] for key in _KEYS}
      found = Tally.from_arrays(own)
      if name in tallies:
        tallies[name].merge(found)
      else:
        tallies[name] = found
    for name, x in arrays.items():
      if name.startswith('sum/'):
        key = name.removeprefix('sum/')
        counts[key] = counts[key] + x if key in counts else x
  return tallies, counts


def gather(
  part: bytes,
  *,
  process_count: int | None = None,
  allgather: Callable[[np.ndarray], np.ndarray] | None = None,
) -> list[bytes]:
  """Returns the parts of all hosts, in their order, on every host.

  Args:
    part: of this host.
    process_count: of the job; None asks JAX.
    allgather: from an array to those of all hosts, stacked; None takes JAX's.
  """
  count = jax.process_count() if process_count is None else process_count
  if count == 1:
    return [part]
  if allgather is None:
    from jax.experimental import multihost_utils

    allgather = multihost_utils.process_allgather
  lengths = np.asarray(allgather(np.array([len(part)], np.int32))).reshape(-1)
  padded = np.zeros(int(lengths.max()), np.uint8)
  padded[: len(part)] = np.frombuffer(part, np.uint8)
  rows = np.asarray(allgather(padded)).reshape(count, -1)
  return [row[:n].tobytes() for row, n in zip(rows, lengths, strict=True)]


def _size(labels: Int[np.ndarray, 'h w']) -> str:
  return f'{labels.shape[1]} x {labels.shape[0]}'
