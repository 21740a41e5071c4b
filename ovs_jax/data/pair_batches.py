"""Batches of mined pairs from several sources, with common nouns held back.

Like `pipeline.train_batches` a pure function of (seed, step). An epoch shows every pair
a whole number of times, which is drawn beforehand around what its source and its noun
call for; so the length of an epoch is known without reading it.
"""

import collections
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ovs_jax.core.types import Float, Int
from ovs_jax.data import pipeline
from ovs_jax.data.transforms import Transform, as_written, chain, decode

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
  process_index: int = 0,
  process_count: int = 1,
) -> Iterator[pipeline.Arrays]:
  """Yields this process's share of the batches of steps `start`, `start` + 1, ...

  Args:
    sources: builders with the same features, the nouns of their pairs in order, and
      how often a pair of each is shown in an epoch.
    transforms: as in `pipeline.train_batches`.
    balance: see `expected_shows`.
    batch_size: of all processes together.
    seed: of shuffling, augmentation and how often pairs are shown.
    start: the first step; earlier ones are skipped exactly.
    process_index: of this process.
    process_count: of processes; each decodes its part of every batch.

  Raises:
    ValueError: an epoch is shorter than a batch.
  """
  expected = [expected_shows(nouns, balance, w) for _, nouns, w in sources]
  local = batch_size // process_count
  apply = chain([pipeline._decoder(sources[0][0]), decode, *transforms])
  step, epoch = 0, 0
  while True:
    rng = np.random.default_rng([seed, epoch])
    shows = [draw_shows(e, rng) for e in expected]
    totals = [int(s.sum()) for s in shows]
    steps = sum(totals) // batch_size
    if not steps:
      raise ValueError(
        f'an epoch of the pairs shows {sum(totals)} of them, fewer than one batch of '
        f'{batch_size}; lower config.train.batch_size or use more data'
      )
    turns = rng.permutation(np.repeat(np.arange(len(sources)), totals))
    first = max(start - step, 0)
    if first < steps:
      key = np.int64(seed) * 1_000_003 + epoch

      @as_written
      def seeded(i: Any, record: Any, key: np.int64 = key) -> dict[str, Any]:
        return apply({**record, 'seed': tf.stack([tf.constant(key), 8 * i])})

      data = tf.data.Dataset.choose_from_datasets(
        [_shown(source[0], s, key) for source, s in zip(sources, shows, strict=True)],
        tf.data.Dataset.from_tensor_slices(turns.astype(np.int64)),
      )
      data = data.take(steps * batch_size).enumerate().skip(first * batch_size)
      data = pipeline._own_rows(data, local, process_index, process_count)
      data = data.map(seeded, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
      data = data.batch(local, drop_remainder=True).prefetch(4)
      yield from pipeline.iterate(data)
    step, epoch = step + steps, epoch + 1


def _shown(builder: Any, shows: Int[np.ndarray, 'n'], key: np.int64) -> tf.data.Dataset:
  """Undecoded pairs of one source, each as often as it is shown, shuffled."""
  records = pipeline._records(builder, 'train', index=0, count=1)
  times = tf.data.Dataset.from_tensor_slices(shows)

  @as_written
  def repeat(record: Any, n: Any) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensors(record).repeat(n)

  data = tf.data.Dataset.zip(records, times).filter(as_written(lambda _, n: n > 0))
  window = min(max(int(shows.sum()), 1), pipeline._SHUFFLE)
  return data.flat_map(repeat).shuffle(window, seed=int(key))
