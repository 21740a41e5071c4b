"""Batches from TFDS builders: for training forever, for evaluation once.

The training stream is a pure function of (seed, step): each epoch is a fresh pipeline
whose shuffle and augmentation follow from the seed and the epoch, and a resumed run
skips records before they are decoded. So the state of the input is one integer, and it
is the step that the checkpoint holds anyway.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from ovs_jax.data.transforms import Transform, chain, decode

# Encoded records held for shuffling; TFDS has shuffled them on disk by their hash.
_SHUFFLE = 4096
Arrays = dict[str, np.ndarray]


def _records(builder: Any, split: str, *, index: int, count: int) -> tf.data.Dataset:
  """Undecoded examples of one process, in the order of the files."""
  features = builder.info.features
  images = [name for name, x in features.items() if isinstance(x, tfds.features.Image)]
  records = builder.as_dataset(
    split=split,
    shuffle_files=False,
    decoders={name: tfds.decode.SkipDecoding() for name in images},
    read_config=tfds.ReadConfig(try_autocache=False),
  )
  return records.shard(count, index)


def train_batches(
  builder: Any,
  split: str,
  transforms: Sequence[Transform],
  *,
  batch_size: int,
  seed: int,
  start: int,
  process_index: int = 0,
  process_count: int = 1,
) -> Iterator[Arrays]:
  """Yields this process's share of the batches of steps `start`, `start` + 1, ...

  Args:
    builder: a prepared TFDS builder.
    split: its split.
    transforms: applied in order to decoded examples that carry `seed` (2,) int64.
    batch_size: of all processes together.
    seed: of shuffling and augmentation.
    start: the first step; earlier ones are skipped exactly.
    process_index: of this process.
    process_count: of processes; each sees every process_count-th record.

  Raises:
    ValueError: the split has fewer examples than a batch.
  """
  total = builder.info.splits[split].num_examples
  local = batch_size // process_count
  per_epoch = (total // process_count) // local
  if not per_epoch:
    raise ValueError(
      f'split {split!r} of {builder.info.name} has {total} examples, fewer than one '
      f'batch of {batch_size}; lower config.train.batch_size or use more data'
    )
  apply = chain([decode, *transforms])
  epoch, first = divmod(start, per_epoch)
  while True:
    key = np.int64(seed) * 1_000_003 + epoch

    def seeded(i: Any, example: dict[str, Any], key: np.int64 = key) -> dict[str, Any]:
      return apply({**example, 'seed': tf.stack([tf.constant(key), 8 * i])})

    data = _records(builder, split, index=process_index, count=process_count)
    data = data.shuffle(min(total, _SHUFFLE), seed=int(key))
    data = data.take(per_epoch * local).enumerate().skip(first * local)
    data = data.map(seeded, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    data = data.batch(local, drop_remainder=True).prefetch(4)
    yield from data.as_numpy_iterator()
    epoch, first = epoch + 1, 0


def eval_batches(
  builder: Any,
  split: str,
  transforms: Sequence[Transform],
  *,
  batch_size: int,
  process_index: int = 0,
  process_count: int = 1,
) -> Iterator[Arrays]:
  """Yields every example of this process once, with `example_valid` (b,) bool.

  The last batch is filled up by repeating its last example, marked invalid.
  """
  data = _records(builder, split, index=process_index, count=process_count)
  data = data.map(
    chain([decode, *transforms]),
    num_parallel_calls=tf.data.AUTOTUNE,
    deterministic=True,
  )
  for batch in data.batch(batch_size).prefetch(2).as_numpy_iterator():
    count = len(next(iter(batch.values())))
    missing = batch_size - count
    filled = {
      name: np.concatenate([x, np.repeat(x[-1:], missing, axis=0)])
      for name, x in batch.items()
    }
    yield {**filled, 'example_valid': np.arange(batch_size) < count}


def examples(builder: Any, split: str) -> Iterator[dict[str, Any]]:
  """Yields every example once, decoded, with lists of captions as they are."""
  yield from (
    _records(builder, split, index=0, count=1).map(decode).as_numpy_iterator()
  )
