"""Batches of mined pairs from several sources, with common nouns held back.

Like `pipeline.train_batches` a pure function of (seed, step). An epoch shows every pair
a whole number of times, which is drawn beforehand around what its source and its noun
call for; so the length of an epoch is known without reading it.
"""

import collections
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.types import Float, Int
from ovs_jax.data import pipeline
from ovs_jax.data.shards import Shards
from ovs_jax.data.transforms import Transform

Source = tuple[Any, Sequence[str], float]  # builder, noun of every pair, weight


def expected_shows(
  nouns: Sequence[str], balance: float, weight: float
) -> Float[np.ndarray, 'n']:
  """Returns how often each pair is shown in an epoch, on average.

  Args:
    nouns: of the pairs of one source.
    balance: a pair counts with its noun's frequency to the power of -balance: 0 shows
      all pairs alike, 1 all nouns.
    weight: the mean of the result.
  """
  counts = collections.Counter(nouns)
  share = np.array([counts[noun] for noun in nouns], np.float64) ** -balance
  return weight * share / share.mean()


def draw_shows(
  expected: Float[np.ndarray, 'n'], rng: np.random.Generator
) -> Int[np.ndarray, 'n']:
  """Rounds at random, so that the mean is `expected` and whole numbers stay."""
  return (expected + rng.random(len(expected))).astype(np.int64)


def weighted_batches(
  sources: Sequence[Source],
  transforms: Sequence[Transform],
  *,
  balance: float,
  batch_size: int,
  seed: int,
  start: int,
  rows: Int[np.ndarray, 'r'] | None = None,
) -> Iterator[pipeline.Arrays]:
  """Yields the batches of steps `start`, `start` + 1, ..., or some rows of each.

  Args:
    sources: builders with the same features, the nouns of their pairs in order, and
      how often a pair of each is shown in an epoch.
    transforms: applied in order to decoded pairs that carry `seed` (2,) int64.
    balance: 0 shows all pairs alike, 1 all nouns; between them, a pair counts with its
      noun's frequency to the power of -balance.
    batch_size: of all processes together.
    seed: of shuffling, augmentation and how often pairs are shown.
    start: the first step; nothing is read for earlier ones.
    rows: of every batch that are made, and read, in order; None: all.

  Raises:
    ValueError: an epoch is shorter than a batch.
  """
  expected = [expected_shows(nouns, balance, w) for _, nouns, w in sources]
  shards = Shards([builder for builder, *_ in sources], 'train')

  def times(epoch: int) -> Int[np.ndarray, 'n']:
    rng = pipeline.generator(seed, epoch, 0)
    return np.concatenate([draw_shows(e, rng) for e in expected])

  begun, left = 0, start
  while left >= (shown := int(times(begun).sum())) // batch_size:
    if shown < batch_size:
      raise UserError(
        f'an epoch of the pairs shows {shown} of them, fewer than one batch of '
        f'{batch_size}; lower config.train.batch_size or use more data'
      )
    begun, left = begun + 1, left - shown // batch_size

  def order(epoch: int) -> tuple[Int[np.ndarray, 'n 1'], int]:
    shows = times(epoch)
    positions = np.repeat(np.arange(len(shows)), shows)
    positions = pipeline.generator(seed, epoch, 1).permutation(positions)
    whole = len(positions) // batch_size * batch_size
    return positions[:whole, None], left * batch_size if epoch == begun else 0

  yield from pipeline.ordered_batches(
    shards,
    order,
    transforms,
    batch_size=batch_size,
    seed=seed,
    epoch=begun,
    rows=rows,
  )
