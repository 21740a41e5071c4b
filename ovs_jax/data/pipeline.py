"""Batches from TFDS builders: for training forever, for evaluation once.

The training stream is a pure function of (seed, step): the order and augmentation of
each epoch follow from the seed and the epoch, and a process reads the records of its
own rows alone, from the step on at which it starts. So the state of the input is one
integer, and it is the step that the checkpoint holds anyway.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from ovs_jax.core.errors import UserError
from ovs_jax.core.types import Int, Num, void_of
from ovs_jax.data.shards import Shards, parallel_calls
from ovs_jax.data.transforms import Example, Transform, as_written, chain, decode
from ovs_jax.ops.regions import CLIP_MEAN

Arrays = dict[str, np.ndarray]
# What fills images up to a common size: an even grey, as far as a network can tell.
_GREY = np.round(255 * np.asarray(CLIP_MEAN)).astype(np.uint8)


def iterate(data: tf.data.Dataset, shards: Shards) -> Iterator[Any]:
  """Yields NumPy arrays, without TensorFlow's tuner.

  What it tunes is small here, and whoever ends an iterator waits for it to wake up: up
  to a minute, for nothing, at the end of every epoch.

  Args:
    data: what is read.
    shards: what it is read from.

  Raises:
    UserError: a record is damaged, or holds an image that cannot be decoded.
  """
  options = tf.data.Options()
  options.autotune.enabled = False
  try:
    yield from data.with_options(options).as_numpy_iterator()
  except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
    raise shards.damage(error) from error


def decoder(features: Any) -> Transform:
  """Returns a transform that decodes exactly what `decode` would round.

  JPEGs become the pixels that Pillow gives, which the models were trained on; with
  TensorFlow's default they are up to 20 levels off. Labels of 16 bits keep them all.

  Args:
    features: of a TFDS builder.
  """
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
  return void_of(builder.info.features['label'].np_dtype)


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
  rows: Int[np.ndarray, 'r'] | None = None,
  also: Sequence[Any] = (),
) -> Iterator[Arrays]:
  """Yields the batches of steps `start`, `start` + 1, ..., or some rows of each.

  Args:
    builder: a prepared TFDS builder.
    split: its split.
    transforms: applied in order to decoded examples that carry `seed` (2,) int64.
    batch_size: of all processes together.
    seed: of shuffling and augmentation.
    start: the first step; nothing is read for earlier ones.
    companion: transforms of the `companions`.
    companions: how many other examples come with each, as a tuple `others`.
    rows: of every batch that are made, and read, in order; None: all.
    also: builders of further data sets, whose examples come among the others.

  Raises:
    ValueError: the split has fewer examples than a batch, or the examples of a batch
      have different shapes.
  """
  shards = Shards([builder, *also], split)
  total = len(shards)
  per_epoch = total // batch_size
  if not per_epoch:
    raise UserError(
      f'split {split!r} of {builder.info.name} has {total} examples, fewer than one '
      f'batch of {batch_size}; lower config.train.batch_size or use more data'
    )
  begun, batches = divmod(start, per_epoch)

  def order(epoch: int) -> tuple[Int[np.ndarray, 'n c'], int]:
    turns = range(1 + companions)
    orders = [generator(seed, epoch, turn).permutation(total) for turn in turns]
    first = batches * batch_size if epoch == begun else 0
    return np.stack(orders, axis=1)[: per_epoch * batch_size], first

  yield from ordered_batches(
    shards,
    order,
    transforms,
    companion=companion,
    companions=companions,
    batch_size=batch_size,
    seed=seed,
    epoch=begun,
    rows=rows,
  )


def generator(seed: int, epoch: int, turn: int) -> np.random.Generator:
  """Returns the generator of an epoch's order (turn 0) or its companions (1, ...)."""
  return np.random.default_rng([seed % 2**63, epoch, turn])


def ordered_batches(
  shards: Shards,
  order: Callable[[int], tuple[Int[np.ndarray, 'n c'], int]],
  transforms: Sequence[Transform],
  *,
  companion: Sequence[Transform] = (),
  companions: int = 0,
  batch_size: int,
  seed: int,
  epoch: int,
  rows: Int[np.ndarray, 'r'] | None,
) -> Iterator[Arrays]:
  """Yields some rows of the batches of epoch after epoch, without end.

  Args:
    shards: what is read.
    order: from an epoch to the positions of its examples and of their companions, a
      multiple of the batch, and which of them is the first to be made.
    transforms: applied in order to decoded examples that carry `seed` (2,) int64.
    companion: transforms of the `companions`.
    companions: how many other examples come with each, as a tuple `others`.
    batch_size: of all processes together.
    seed: of augmentation.
    epoch: the first one.
    rows: of every batch that are made, and read, in order; None: all. So the batches
      are the same on any number of processes.
  """
  rows = np.arange(batch_size) if rows is None else rows
  read = [decoder(shards.features), decode]
  transform, of_companion = (chain([*read, *x]) for x in (transforms, companion))
  apply = _seeded(shards, transform, of_companion, companions)

  def own_rows(epoch: np.int64) -> Int[np.ndarray, 'm c1']:
    positions, first = order(int(epoch))
    number = np.arange(len(positions))
    own = (number >= first) & np.isin(number % batch_size, rows)
    return np.column_stack([number, positions])[own].astype(np.int64)

  @as_written
  def of_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
    """The epoch's key with every row."""
    rows = tf.ensure_shape(tf.numpy_function(own_rows, [epoch], tf.int64), (None, None))
    key = tf.data.Dataset.from_tensors(np.int64(seed) * 1_000_003 + epoch).repeat()
    return tf.data.Dataset.zip(key, tf.data.Dataset.from_tensor_slices(rows))

  # One pipeline for all epochs: small data sets would spend their time on building it.
  data = tf.data.Dataset.range(epoch, tf.int64.max).flat_map(of_epoch)
  data = data.map(apply, num_parallel_calls=parallel_calls(), deterministic=True)
  yield from _batched(data, shards, len(rows))


def _batched(data: tf.data.Dataset, shards: Shards, count: int) -> Iterator[Arrays]:
  """Yields stacks of `count` examples, which must have equal shapes.

  `tf.data` compares numbers of elements alone: of a portrait and a landscape as large
  it would read one in the rows of the other. It stacks what has shapes of its own.
  """
  specs = tf.nest.flatten(data.element_spec)
  if all(spec.shape.is_fully_defined() for spec in specs):
    yield from iterate(data.batch(count, drop_remainder=True).prefetch(4), shards)
    return
  stream = iterate(data.prefetch(4 * count), shards)
  while len(found := list(itertools.islice(stream, count))) == count:
    for name in found[0]:
      shapes = [np.shape(example[name]) for example in found]
      other = next((shape for shape in shapes if shape != shapes[0]), None)
      if other is not None:
        raise UserError(
          f'{name!r} has shape {shapes[0]} in one example of a batch and {other} in '
          'another; resize or crop all images to one size, or use batches of one'
        )
    yield _columns({name: [e[name] for e in found] for name in found[0]})


def _columns(columns: dict[str, list[Any]]) -> Arrays:
  """Stacks each column of examples."""
  return {
    # Texts come as bytes, which NumPy would cut to a common length.
    name: np.array(x, object) if isinstance(x[0], bytes) else np.stack(x)
    for name, x in columns.items()
  }


def _seeded(
  shards: Shards, transform: Transform, of_companion: Transform, companions: int
) -> Callable[..., Example]:
  """Returns a function from an epoch's key and a row of numbers to an example.

  A row is the example's number in the epoch, its position, and its companions'.
  """

  @as_written
  def apply(key: tf.Tensor, row: tf.Tensor) -> Example:
    number = 8 * row[0]
    example = {**shards.read(row[1]), 'seed': tf.stack([key, number])}
    if companions:  # No epoch has a negative key.
      keys = [-1 - (key + np.int64(i) * 1_000_000_007) for i in range(companions)]
      example['others'] = tuple(
        of_companion({**shards.read(row[2 + i]), 'seed': tf.stack([own, number])})
        for i, own in enumerate(keys)
      )
    return transform(example)

  return apply


def eval_batches(
  builder: Any,
  split: str,
  transforms: Sequence[Transform],
  *,
  batch_size: int,
  bucket: int = 1,
  start: int = 0,
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
    start: the first batch; those before it are not read.
    process_index: of this process.
    process_count: of processes; each sees every process_count-th example.
  """
  shards = Shards([builder], split)
  void = void_label(builder) if 'label' in shards.features else 0
  total = len(shards)
  apply = chain([decoder(shards.features), decode, *transforms])

  def examples_at(first: int, step: int) -> Iterator[dict[str, Any]]:
    data = shards.dataset(np.arange(first, total, step))
    data = data.map(apply, num_parallel_calls=parallel_calls(), deterministic=True)
    return iterate(data.prefetch(2 * batch_size), shards)

  steps = range(-(-total // (batch_size * process_count)))
  stream = examples_at(
    process_index + process_count * batch_size * start, process_count
  )
  last: list[dict[str, Any]] = []
  for _ in steps[start:]:
    found = list(itertools.islice(stream, batch_size))
    # A process without any example of its own borrows one to fill its batch.
    last = found[-1:] or last or [next(examples_at(0, 1))]
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
  return _columns(columns)


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
  shards = Shards([builder], split)
  data = shards.dataset(np.arange(len(shards)))
  apply = chain([decoder(shards.features), decode])
  data = data.map(apply, num_parallel_calls=parallel_calls(), deterministic=True)
  yield from iterate(data, shards)
