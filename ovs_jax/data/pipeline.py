"""Batches from TFDS builders: for training forever, for evaluation once.

The training stream is a pure function of (seed, step): the shuffle and augmentation of
each epoch follow from the seed and the epoch, and a resumed run skips records before
they are decoded. So the state of the input is one integer, and it is the step that the
checkpoint holds anyway.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from ovs_jax.core.types import Num
from ovs_jax.data.transforms import Example, Transform, as_written, chain, decode
from ovs_jax.ops.regions import CLIP_MEAN

# Encoded records held for shuffling; TFDS has shuffled them on disk by their hash.
_SHUFFLE = 4096
Arrays = dict[str, np.ndarray]
# What fills images up to a common size: an even grey, as far as a network can tell.
_GREY = np.round(255 * np.asarray(CLIP_MEAN)).astype(np.uint8)


def iterate(data: tf.data.Dataset) -> Iterator[Any]:
  """Yields NumPy arrays, without TensorFlow's tuner.

  What it tunes is small here, and whoever ends an iterator waits for it to wake up: up
  to a minute, for nothing, at the end of every epoch.
  """
  options = tf.data.Options()
  options.autotune.enabled = False
  return data.with_options(options).as_numpy_iterator()


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


def _decoder(builder: Any) -> Transform:
  """Decodes what `decode` would not decode exactly, before it comes.

  JPEGs become the pixels that Pillow gives, which the models were trained on; with
  TensorFlow's default they are up to 20 levels off. Labels of 16 bits keep them all.
  """
  features = builder.info.features
  images = {n: x for n, x in features.items() if isinstance(x, tfds.features.Image)}

  def apply(example: Example) -> Example:
    decoded = dict(example)
    for name, feature in images.items():
      if feature.shape[-1] == 3:
        decoded[name] = tf.io.decode_jpeg(  # and PNG
          example[name], 3, dct_method='INTEGER_ACCURATE'
        )
      elif feature.np_dtype == np.uint16:
        decoded[name] = tf.io.decode_png(example[name], 1, tf.uint16)[..., 0]
    return decoded

  return apply


def void_label(builder: Any) -> int:
  """Returns the label of pixels without a class: the largest number of their type."""
  return int(np.iinfo(builder.info.features['label'].np_dtype).max)


def train_batches(
  builder: Any,
  split: str,
  transforms: Sequence[Transform],
  *,
  batch_size: int,
  seed: int,
  start: int,
  companion: Sequence[Transform] = (),
  companions: int = 0,
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
    companion: transforms of the `companions`.
    companions: how many other examples come with each, as a tuple `others`.
    process_index: of this process.
    process_count: of processes; each decodes its part of every batch, so that the
      batches are the same on any number of them.

  Raises:
    ValueError: the split has fewer examples than a batch.
  """
  total = builder.info.splits[split].num_examples
  local = batch_size // process_count
  per_epoch = total // batch_size
  if not per_epoch:
    raise ValueError(
      f'split {split!r} of {builder.info.name} has {total} examples, fewer than one '
      f'batch of {batch_size}; lower config.train.batch_size or use more data'
    )
  read = [_decoder(builder), decode]
  apply = _seeded(chain([*read, *transforms]), chain([*read, *companion]))
  records = _records(builder, split, index=0, count=1)
  begun, batches = divmod(start, per_epoch)

  @as_written
  def of_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
    """Its key, with every example and its companions, which have their own orders."""
    key = np.int64(seed) * 1_000_003 + epoch
    seen = tf.where(epoch == begun, np.int64(batches) * batch_size, 0)
    orders = [key, *_companion_keys(key, companions)]
    streams = [records.shuffle(min(total, _SHUFFLE), seed=order) for order in orders]
    streams = [x.take(per_epoch * batch_size).enumerate().skip(seen) for x in streams]
    streams = [_own_rows(x, local, process_index, process_count) for x in streams]
    return tf.data.Dataset.zip((tf.data.Dataset.from_tensors(key).repeat(), *streams))

  # One pipeline for all epochs: small data sets would spend their time on building it.
  data = tf.data.Dataset.range(begun, tf.int64.max).flat_map(of_epoch)
  data = data.map(apply, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
  data = data.batch(local, drop_remainder=True).prefetch(4)
  yield from iterate(data)


def _seeded(transform: Transform, of_companion: Transform) -> Callable[..., Example]:
  """Returns what makes examples of an epoch's key and enumerated records."""

  @as_written
  def apply(key: tf.Tensor, record: Any, *companions: Any) -> Example:
    i, example = record
    seeded = {**example, 'seed': tf.stack([key, 8 * i])}
    if companions:
      keys = _companion_keys(key, len(companions))
      seeded['others'] = tuple(
        of_companion({**other, 'seed': tf.stack([own, 8 * i])})
        for own, (_, other) in zip(keys, companions, strict=True)
      )
    return transform(seeded)

  return apply


def _companion_keys(key: tf.Tensor, count: int) -> list[tf.Tensor]:
  """The keys of an epoch's companions; no epoch has a negative one."""
  return [-1 - (key + np.int64(i) * 1_000_000_007) for i in range(count)]


def _own_rows(
  data: tf.data.Dataset, local: int, index: int, count: int
) -> tf.data.Dataset:
  """The enumerated examples that one of `count` processes decodes, `local` a batch."""
  if count == 1:
    return data
  return data.filter(as_written(lambda i, _: i % (local * count) // local == index))


def eval_batches(
  builder: Any,
  split: str,
  transforms: Sequence[Transform],
  *,
  batch_size: int,
  bucket: int = 1,
  process_index: int = 0,
  process_count: int = 1,
) -> Iterator[Arrays]:
  """Yields every example of this process once, with `example_valid` (b,) bool.

  Every process yields the same number of batches, so that they can compute together.
  What is missing in the last ones is filled up with an example marked invalid.

  Images of different sizes are put into the upper left corner of a common one: `image`
  gets grey around it, `label` void. `size` (b, 2) int32 tells their height and width.

  Args:
    builder: a prepared TFDS builder.
    split: its split.
    transforms: applied in order to decoded examples.
    batch_size: of this process.
    bucket: heights and widths of batches are multiples of it. Larger ones mean fewer
      shapes to compile for; 1 with a batch of one leaves images as they are.
    process_index: of this process.
    process_count: of processes; each sees every process_count-th example.
  """
  features = builder.info.features
  void = void_label(builder) if 'label' in features else 0
  total = builder.info.splits[split].num_examples
  apply = chain([_decoder(builder), decode, *transforms])

  def examples_of(index: int, count: int) -> Iterator[dict[str, Any]]:
    data = _records(builder, split, index=index, count=count)
    data = data.map(apply, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return iterate(data.prefetch(2 * batch_size))

  stream = examples_of(process_index, process_count)
  last: list[dict[str, Any]] = []
  for _ in range(-(-total // (batch_size * process_count))):
    found = list(itertools.islice(stream, batch_size))
    # A process without any example of its own borrows one to fill its batch.
    last = found[-1:] or last or [next(examples_of(0, 1))]
    filled = found + last * (batch_size - len(found))
    batch = _stack(filled, bucket=bucket, void=void)
    yield {**batch, 'example_valid': np.arange(batch_size) < len(found)}


def _stack(examples: Sequence[dict[str, Any]], *, bucket: int, void: int) -> Arrays:
  """Stacks examples, after making their images and labels equally large."""
  columns = {name: [e[name] for e in examples] for name in examples[0]}
  maps = [name for name in ('image', 'label', 'mask') if name in columns]
  if maps:
    sizes = np.array([x.shape[:2] for x in columns[maps[0]]], np.int32)
    height, width = (-(-int(side) // bucket) * bucket for side in sizes.max(axis=0))
    for name in maps:
      fill = {'image': _GREY, 'label': void, 'mask': 0}[name]
      columns[name] = [_pad(x, height, width, fill) for x in columns[name]]
    columns['size'] = list(sizes)
  return {
    # Texts come as bytes, which NumPy would cut to a common length.
    name: np.array(x, object) if isinstance(x[0], bytes) else np.stack(x)
    for name, x in columns.items()
  }


def _pad(
  array: Num[np.ndarray, 'h w ...'], height: int, width: int, fill: Any
) -> Num[np.ndarray, 'H W ...']:
  h, w = array.shape[:2]
  if (h, w) == (height, width):
    return array
  padded = np.empty((height, width, *array.shape[2:]), array.dtype)
  padded[...] = fill
  padded[:h, :w] = array
  return padded


def examples(builder: Any, split: str) -> Iterator[dict[str, Any]]:
  """Yields every example once, decoded, with lists of captions as they are."""
  data = _records(builder, split, index=0, count=1)
  yield from iterate(data.map(chain([_decoder(builder), decode])))
