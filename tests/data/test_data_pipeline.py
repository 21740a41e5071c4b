"""The training stream as a function of (seed, step); evaluation as one pass."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from ovs_jax.data import pipeline, scenes, transforms

KEEP, KEEP_ID = transforms.keep('image_id', 'seed'), transforms.keep('image_id')
TOTAL = 32  # examples of scenes/smoke:train


@pytest.fixture(scope='module')
def builder(data_dir: str) -> Any:
  return scenes.prepare(data_dir, 'smoke')


def stream(builder: Any, count: int, **changes: Any) -> list[pipeline.Arrays]:
  """Returns the first batches of training."""
  settings = {'batch_size': 10, 'seed': 0, 'start': 0, **changes}
  batches = pipeline.train_batches(builder, 'train', [KEEP], **settings)
  return list(itertools.islice(batches, count))


def ids(batches: list[pipeline.Arrays]) -> list[list[str]]:
  return [[x.decode() for x in batch['image_id']] for batch in batches]


class TestTraining:
  @pytest.mark.parametrize('start', [1, 2, 3, 4, 7])
  def test_starting_later_gives_the_same_batches(
    self, builder: Any, start: int
  ) -> None:
    whole = stream(builder, 8)  # three batches an epoch
    later = stream(builder, 8 - start, start=start)
    for expected, got in zip(whole[start:], later, strict=True):
      for name in expected:
        np.testing.assert_array_equal(got[name], expected[name])

  def test_an_epoch_repeats_nothing_and_is_shuffled_anew(self, builder: Any) -> None:
    batches = ids(stream(builder, 6))
    first, second = sum(batches[:3], []), sum(batches[3:], [])
    assert len(set(first)) == len(first) == 30
    assert first != sorted(first) and first != second

  def test_seeds_differ(self, builder: Any) -> None:
    one, other = stream(builder, 1), stream(builder, 1, seed=1)
    assert ids(one) != ids(other)
    assert not np.array_equal(one[0]['seed'], other[0]['seed'])

  def test_every_example_has_its_own_seed(self, builder: Any) -> None:
    seeds = np.concatenate([batch['seed'] for batch in stream(builder, 6)])
    assert len(np.unique(seeds, axis=0)) == 60

  @pytest.mark.parametrize('rows', [[4, 5, 6, 7], [0, 1, 6], list(range(8))])
  def test_rows_are_those_of_the_whole_batch(
    self, builder: Any, rows: list[int]
  ) -> None:
    whole = stream(builder, 5, batch_size=8, start=2)
    some = stream(builder, 5, batch_size=8, start=2, rows=np.array(rows))
    for expected, got in zip(whole, some, strict=True):
      for name in expected:
        np.testing.assert_array_equal(got[name], expected[name][rows])

  def test_augmentation_is_repeated_too(self, builder: Any) -> None:
    changes = [
      transforms.random_crop(0.5),
      transforms.squash(8),
      transforms.keep('image'),
    ]
    settings = {'batch_size': 8, 'seed': 3}
    runs = [
      pipeline.train_batches(builder, 'train', changes, start=start, **settings)
      for start in (0, 2)
    ]
    whole = list(itertools.islice(runs[0], 3))[2]
    np.testing.assert_array_equal(next(runs[1])['image'], whole['image'])

  @pytest.mark.parametrize('count', [1, 2])
  def test_companions_are_other_examples(self, builder: Any, count: int) -> None:
    def triples(**changes: Any) -> list[tuple[bytes, bytes, bytes]]:
      batches = pipeline.train_batches(
        builder,
        'train',
        [transforms.keep('image_id', 'others')],
        companion=[transforms.keep('image_id')],
        companions=2,
        **{'batch_size': 10, 'seed': 0, 'start': 0, **changes},
      )
      return [
        triple
        for batch in itertools.islice(batches, 6 - changes.get('start', 0))
        for triple in zip(
          batch['image_id'], *(x['image_id'] for x in batch['others']), strict=True
        )
      ]

    whole = triples()
    assert [[one.decode() for one, *_ in whole[:10]]] == ids(stream(builder, 1))
    columns = list(zip(*whole, strict=True))
    for column in columns[1:]:
      assert len(set(column[:30])) == 30  # each once an epoch
    for one, two in itertools.combinations(columns, 2):
      assert sum(x == y for x, y in zip(one, two, strict=True)) < 10
    assert triples(start=4) == whole[40:]
    halves = np.array_split(np.arange(10), count)
    parts = [triples(rows=half) for half in halves]
    assert sorted(sum(parts, [])) == sorted(whole)

  def test_the_pipeline_is_built_once_for_all_epochs(self, builder: Any) -> None:
    traced = []

    def note(example: transforms.Example) -> transforms.Example:
      traced.append(1)
      return KEEP_ID(example)

    batches = pipeline.train_batches(
      builder, 'train', [note], batch_size=TOTAL, seed=0, start=0
    )
    assert len(set(map(str, ids(list(itertools.islice(batches, 5)))))) == 5
    assert len(traced) == 1

  def test_too_few_examples_are_an_error(self, builder: Any) -> None:
    with pytest.raises(ValueError, match='has 32 examples, fewer than one batch of 33'):
      stream(builder, 1, batch_size=33)
    with pytest.raises(ValueError, match='lower config.train.batch_size'):
      stream(builder, 1, batch_size=68, rows=np.arange(34))


def test_no_iterator_waits_for_the_tuner(
  builder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
  tuned = []

  def iterate(data: tf.data.Dataset) -> Iterator[Any]:
    tuned.append(data.options().autotune.enabled)
    return iter(())

  monkeypatch.setattr(tf.data.Dataset, 'as_numpy_iterator', iterate)
  shards = pipeline.Shards([builder], 'train')
  assert list(pipeline.iterate(tf.data.Dataset.range(3), shards)) == []
  assert tuned == [False]


class TestEvaluation:
  @pytest.mark.parametrize('count', [1, 2, 3])
  def test_every_example_comes_once(self, builder: Any, count: int) -> None:
    seen = []
    for index in range(count):
      for batch in pipeline.eval_batches(
        builder,
        'val',
        [transforms.keep('image_id')],
        batch_size=5,
        process_index=index,
        process_count=count,
      ):
        assert batch['image_id'].shape == (5,)
        assert batch['example_valid'].dtype == bool
        seen += batch['image_id'][batch['example_valid']].tolist()
    assert len(seen) == len(set(seen)) == 16

  def test_the_last_batch_is_filled_up(self, builder: Any) -> None:
    batches = list(
      pipeline.eval_batches(
        builder, 'val', [transforms.keep('image', 'image_id')], batch_size=6
      )
    )
    assert [int(b['example_valid'].sum()) for b in batches] == [6, 6, 4]
    last = batches[-1]
    assert last['image_id'][3] == last['image_id'][4] == last['image_id'][5]
    np.testing.assert_array_equal(last['image'][3], last['image'][5])

  def test_examples_are_decoded_and_keep_their_captions(self, builder: Any) -> None:
    found = list(pipeline.examples(builder, 'val'))
    assert len(found) == 16
    assert found[0]['image'].shape == (128, 128, 3)
    assert found[0]['label'].shape == (128, 128)
    assert all(isinstance(c, bytes) for e in found for c in e['captions'])


def test_functions_run_as_they_are_written(
  builder: Any, caplog: pytest.LogCaptureFixture
) -> None:
  logger = tf.get_logger()  # passes nothing on
  logger.addHandler(caplog.handler)
  try:
    stream(builder, 1, rows=np.arange(5, 10))
    next(pipeline.eval_batches(builder, 'val', [KEEP_ID], batch_size=2))
    next(pipeline.examples(builder, 'val'))
  finally:
    logger.removeHandler(caplog.handler)
  assert 'AutoGraph' not in caplog.text
