"""Connected parts of masks."""

import numpy as np

from ovs_jax.core.types import Bool, Int


def connected(mask: Bool[np.ndarray, 'h w']) -> list[Int[np.ndarray, 'n']]:
  """Splits a mask into parts whose pixels touch, by corners too, in reading order.

  Returns:
    The pixels of each part, as ascending indices into the flattened mask: of many
    parts, masks of the picture's size would fill the memory.
  """
  rows, starts, ends = _runs(mask)
  owner = np.repeat(_owners(rows, starts, ends), ends - starts)
  order = np.argsort(owner, kind='stable')
  edges = np.flatnonzero(np.diff(owner[order])) + 1
  pixels = np.flatnonzero(mask)[order]
  return np.split(pixels, edges) if len(pixels) else []


def _runs(
  mask: Bool[np.ndarray, 'h w'],
) -> tuple[Int[np.ndarray, 'r'], Int[np.ndarray, 'r'], Int[np.ndarray, 'r']]:
  """Returns row, start and end of every run in the rows, in reading order."""
  padded = np.pad(mask, ((0, 0), (1, 1))).astype(np.int8)
  change = np.diff(padded, axis=1)
  rows, starts = np.nonzero(change == 1)
  return rows, starts, np.nonzero(change == -1)[1]


def _owners(
  rows: Int[np.ndarray, 'r'], starts: Int[np.ndarray, 'r'], ends: Int[np.ndarray, 'r']
) -> Int[np.ndarray, 'r']:
  """Returns for every run the first run of its part."""
  owner = list(range(len(rows)))

  def root(run: int) -> int:
    while owner[run] != run:
      owner[run] = owner[owner[run]]
      run = owner[run]
    return run

  first = np.searchsorted(rows, rows - 1).tolist()
  above = 0
  for run, (row, start, end) in enumerate(
    zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=True)
  ):
    above = max(above, first[run])
    # Runs of the row above that end before this one starts touch none after it either.
    while above < run and rows[above] < row and ends[above] < start:
      above += 1
    other = above
    while other < run and rows[other] == row - 1 and starts[other] <= end:
      low, high = sorted((root(run), root(other)))
      owner[high] = low
      other += 1
  return np.array([root(run) for run in range(len(owner))], int)
