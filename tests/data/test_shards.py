"""Records by their position: the right ones, no others, and as many at once as can."""

import ast
import itertools
import os
import pathlib
import threading
import time
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from ovs_jax.data import pair_batches, pairs, pipeline, shards, transforms
from ovs_jax.data.shards import Shards

COUNT, BESIDE = 6_000, 3  # pairs, and those of an image, which lie beside each other
PNG = tf.io.encode_png(np.zeros((1, 1, 1), np.uint8)).numpy()
ID = transforms.keep('image_id')


@pytest.fixture(scope='module')
def builder(tmp_path_factory: pytest.TempPathFactory) -> Any:
  """Returns pairs in the order of their images, as mining writes them."""
  directory = tmp_path_factory.mktemp('pairs') / 'pairs'
  numbers = dict.fromkeys(('caption', 'proposal'), 0) | {'score': 0.5, 'cosine': 0.5}
  one = {'mask': PNG, 'noun': 'x', 'box': np.zeros(4, np.int32), **numbers}
  colour = tf.io.encode_png(np.zeros((1, 1, 3), np.uint8)).numpy()
  found = ({**one, 'image': colour, 'image_id': f'{i // BESIDE}'} for i in range(COUNT))
  pairs.write(directory, found, {})
  return pairs.load(directory)


@pytest.fixture(scope='module')
def several(tmp_path_factory: pytest.TempPathFactory) -> Any:
  """Returns 23 numbers in five files."""
  features = tfds.features.FeaturesDict({'number': np.int64})
  return tfds.dataset_builders.store_as_tfds_dataset(
    name='numbers',
    version='1.0.0',
    data_dir=str(tmp_path_factory.mktemp('several')),
    features=features,
    split_datasets={'train': [(i, {'number': i}) for i in range(23)]},
    disable_shuffling=True,
    download_config=tfds.download.DownloadConfig(num_shards=5),
  )


def numbers(found: Shards, positions: Any) -> list[int]:
  data = found.dataset(np.array(positions))
  return [int(x['number']) for x in data.as_numpy_iterator()]


@pytest.mark.parametrize(
  ('split', 'expected'),
  [
    ('train', range(23)),
    ('train[3:14]', range(3, 14)),
    ('train[20:]+train[:2]', [20, 21, 22, 0, 1]),
  ],
)
def test_positions_are_those_of_the_files(
  several: Any, split: str, expected: Any
) -> None:
  assert len(several.info.splits['train'].shard_lengths) == 5
  found = Shards([several], split)
  everything = list(expected)
  assert len(found) == len(everything)
  order = np.random.default_rng(0).permutation(len(everything))
  assert numbers(found, order) == [everything[i] for i in order]
  together = Shards([several, several], split)
  assert numbers(together, [len(found), 0]) == [everything[0]] * 2


def test_damaged_files_are_named(several: Any, tmp_path: pathlib.Path) -> None:
  [part, *_] = several.info.splits['train'].file_instructions
  whole = pathlib.Path(part.filename).read_bytes()
  copy = part.replace(filename=str(tmp_path / 'cut.tfrecord'))
  pathlib.Path(copy.filename).write_bytes(whole[:-9])
  with pytest.raises(
    ValueError, match=r'cut.tfrecord is damaged: its \d+ bytes do not hold the 5 '
  ):
    shards.record_starts(copy)


def test_other_formats_are_refused(several: Any) -> None:
  class Info:
    features, full_name = several.info.features, 'numbers/1.0.0'
    file_format = tfds.core.FileFormat.PARQUET

  builder = type('Builder', (), {'info': Info})
  with pytest.raises(ValueError, match='stored as parquet, expected tfrecord'):
    Shards([builder], 'train')


def first_batches(builder: Any, kind: str, **settings: Any) -> Any:
  options = {'batch_size': 64, 'seed': 0, 'start': 0, **settings}
  if kind == 'train':
    return pipeline.train_batches(builder, 'train', [ID], **options)
  sources = [(builder, ['x'] * COUNT, 1.0)]
  return pair_batches.weighted_batches(sources, [ID], balance=0.0, **options)


@pytest.mark.parametrize('kind', ['train', 'weighted'])
def test_neighbours_on_disk_are_none_in_a_batch(builder: Any, kind: str) -> None:
  """Every pair is as likely in the first batch as any other.

  The chance that none of 64 comes from the last quarter is 0.75 ** 64 = 1e-8; and of
  the 93 batches' 93 * 64 * 63 / 2 couples 2 in 5,999 are of one image: 62.5.
  """
  batches = list(itertools.islice(first_batches(builder, kind), COUNT // 64))
  images = np.stack([x['image_id'] for x in batches]).astype(int)
  assert images[0].max() >= COUNT // BESIDE * 3 // 4
  couples = sum(
    (np.bincount(row) * (np.bincount(row) - 1) // 2).sum() for row in images
  )
  assert 30 < couples < 95  # four times the deviation of a Poisson number


@pytest.mark.parametrize('kind', ['train', 'weighted'])
def test_siblings_in_the_batches_of_a_training(
  kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
  """As many couples of an image as a global shuffle gives, in no batch too many."""
  count, each, size = 442_323, 4, 256

  class Records:
    features = None

    def __init__(self, *_: object) -> None:
      pass

    def __len__(self) -> int:
      return count

  orders = []

  def noted(shards: Any, order: Any, *_: object, **options: Any) -> Any:
    orders.append(order(0)[0][:, 0])
    return iter(())

  for module in (pipeline, pair_batches):
    monkeypatch.setattr(module, 'Shards', Records)
  monkeypatch.setattr(pipeline, 'ordered_batches', noted)
  options = {'batch_size': size, 'seed': 0, 'start': 0}
  if kind == 'train':
    list(pipeline.train_batches(None, 'train', [], **options))
  else:
    sources = [(None, ['x'] * count, 1.0)]
    list(pair_batches.weighted_batches(sources, [], balance=0.0, **options))
  [order] = orders
  assert len(order) == count // size * size and len(np.unique(order)) == len(order)
  rows = np.sort(order.reshape(-1, size) // each, axis=1)
  couples = sum((rows[:, k:] == rows[:, :-k]).sum(axis=1) for k in range(1, each))
  mean = size * (size - 1) / 2 * (each - 1) / (count - 1)  # 0.22
  assert couples.mean() == pytest.approx(mean, rel=0.15)
  # Of 1,727 batches a Poisson number of that mean is above 5 with probability 2e-4.
  assert couples.max() <= 5


@pytest.mark.parametrize('kind', ['train', 'weighted'])
def test_a_process_reads_its_own_records_alone(
  builder: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
  read: list[int] = []
  original = Shards.read

  def noted(self: Shards, position: Any) -> Any:
    seen = tf.numpy_function(lambda i: read.append(int(i)) or i, [position], tf.int64)
    return original(self, tf.ensure_shape(seen, ()))

  monkeypatch.setattr(Shards, 'read', noted)
  stream = first_batches(builder, kind, start=80, rows=np.arange(16, 32), batch_size=64)
  batches = [next(stream) for _ in range(3)]
  stream.close()
  given = [int(x) for batch in batches for x in batch['image_id']]
  assert len(given) == 48 and set(given) <= {i // BESIDE for i in read}
  # What was made beforehand: four batches, one in the making, and the calls.
  assert len(read) <= 48 + 5 * 16 + 2 * shards.parallel_calls()


def test_as_many_calls_as_cores(several: Any, monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(os, 'cpu_count', lambda: 40)
  lock, now, most = threading.Lock(), [0], [0]

  def wait(number: np.int64) -> np.int64:
    with lock:
      now[0] += 1
      most[0] = max(most[0], now[0])
    time.sleep(0.05)
    with lock:
      now[0] -= 1
    return number

  def slow(example: Any) -> Any:
    return {'number': tf.numpy_function(wait, [example['number']], tf.int64)}

  def threads(data: tf.data.Dataset) -> Any:
    options = tf.data.Options()
    options.threading.private_threadpool_size = 48  # this machine may have two
    return iterate(data.with_options(options))

  iterate = tf.data.Dataset.as_numpy_iterator
  monkeypatch.setattr(tf.data.Dataset, 'as_numpy_iterator', threads)
  sources = [(several, ['x'] * 23, 4.0)]
  options = {'batch_size': 20, 'seed': 0, 'start': 0}
  streams = (
    pipeline.train_batches(several, 'train', [slow], **options),
    pair_batches.weighted_batches(sources, [slow], balance=0.0, **options),
    pipeline.eval_batches(several, 'train', [slow], batch_size=23),
  )
  for stream in streams:
    most[0] = 0
    list(itertools.islice(stream, 5))
    assert most[0] > 16


def test_nothing_is_left_to_the_tuner() -> None:
  """Every call of `map` in the package's data says how many examples it makes."""
  for path in (pathlib.Path(pipeline.__file__).parent).glob('*.py'):
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
      assert getattr(node, 'attr', '') != 'AUTOTUNE', path
      of_data = isinstance(node, ast.Call) and ast.unparse(node.func) == 'data.map'
      if of_data:
        assert 'num_parallel_calls=parallel_calls()' in ast.unparse(node), path
