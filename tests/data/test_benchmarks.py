"""What the benchmarks' files become: labels to the value, on tiny copies."""

import collections
import dataclasses
import pathlib
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tiny_layouts
from PIL import Image
from tiny_layouts import HEIGHT, WIDTH

from ovs_jax.data import (
  DATASETS,
  benchmarks,
  class_table,
  layouts,
  pipeline,
  prepare,
  shrink,
  sources,
  transforms,
)
from ovs_jax.text import vocabulary

V, W = 255, 65535  # void of 8 and of 16 bits
CLASSES = {
  'coco_stuff_171': 171,
  'coco_stuff_156_15': 171,
  'coco_80': 80,
  'coco_captions_2017': 171,
  'ade20k_150': 150,
  'ade20k_847': 847,
  'pascal_context_59': 59,
  'pascal_context_459': 459,
  'voc_20': 20,
  'voc_20b': 21,
  'voc_21': 21,
}
# The train ids of the columns of the tiny maps; the last one goes to the right edge.
COLUMNS = {
  'coco_stuff_171': {
    'train': {'000000000001': [0, 19, 80, V], '000000000002': [V]},
    'val': {'000000000003': [0, 19, 80, V], '000000000004': [79, 170, V]},
  },
  'coco_80': {'val': {'000000000003': [0, 19, V], '000000000004': [79, V]}},
  'ade20k_150': {'val': {'ADE_val_00000001': [V, 0, 149], 'ADE_val_00000002': [2, 1]}},
  'ade20k_847': {
    'val': {'ADE_val_00000002': [22, W], 'ADE_val_00000001': [W, 0, 1, W]}
  },
  'pascal_context_59': {'val': {'2008_1': [V, 0, V], '2008_2': [1, V]}},
  'pascal_context_459': {'val': {'2008_1': [W, 1, 458], '2008_2': [22, 0]}},
  'voc_20': {'val': {'2007_1': [V, 0, 19, V], '2007_2': [14, V]}},
  'voc_20b': {'val': {'2007_1': [20, 0, 19, V], '2007_2': [14, 20]}},
  'voc_21': {'val': {'2007_1': [0, 1, 20, V], '2007_2': [15, 0]}},
}


@pytest.fixture(scope='module')
def source(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  path = tmp_path_factory.mktemp('source')
  tiny_layouts.everything(path)
  return path


def spread(columns: list[int], dtype: Any) -> np.ndarray:
  return tiny_layouts.values(columns, dtype)


def table(name: str) -> class_table.ClassTable:
  layout = layouts.LAYOUTS[name]
  names = vocabulary.load(layout.vocabulary)
  return class_table.class_table(names.source_values, layout.ignored)


def test_every_benchmark_has_its_classes() -> None:
  assert set(CLASSES) == set(layouts.LAYOUTS) == set(benchmarks.BENCHMARKS)
  for name, layout in layouts.LAYOUTS.items():
    assert len(vocabulary.load(layout.vocabulary)) == CLASSES[name]
    assert DATASETS[name].vocabulary == layout.vocabulary
    assert DATASETS[name].void == table(name).void


def test_published_counts() -> None:
  counts = {
    name: {split: s.count for split, s in layout.splits.items()}
    for name, layout in layouts.LAYOUTS.items()
  }
  coco = {'train': 118_287, 'val': 5_000}
  assert counts['coco_stuff_171'] == counts['coco_stuff_156_15'] == coco
  assert counts['coco_captions_2017'] == coco
  assert counts['coco_80'] == {'val': 5_000}
  assert counts['ade20k_150'] == counts['ade20k_847'] == {'val': 2_000}
  assert counts['pascal_context_59'] == {'val': 5_104}
  assert counts['pascal_context_459'] == {'val': 5_104}
  assert {counts[f'voc_{x}']['val'] for x in ('20', '20b', '21')} == {1_449}


def test_class_lists() -> None:
  stuff = vocabulary.load('coco_stuff_156_15')
  whole = vocabulary.load('coco_stuff_171')
  assert stuff.names == whole.names and stuff.source_values == whole.source_values
  assert collections.Counter(whole.kinds) == {'thing': 80, 'stuff': 91}
  unseen = [stuff.names[k] for k, s in enumerate(stuff.splits) if s == 'unseen']
  assert unseen == (
    'cow giraffe suitcase frisbee skateboard carrot scissors cardboard clouds grass '
    'playingfield river road tree wall-concrete'
  ).split(' ')
  gone = set(range(182)) - set(whole.source_values)
  assert gone == {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90}
  assert vocabulary.load('coco_80').names == whole.names[:80]
  voc, full = vocabulary.load('voc_20'), vocabulary.load('pascal_context_459')
  assert vocabulary.load('voc_21').names == ('background', *voc.names)
  assert vocabulary.load('voc_20b').names == (*voc.names, 'background')
  assert len(vocabulary.load('voc_20b').synonyms[20]) == 39
  assert full.names[430] == 'unknown' and full.source_values == tuple(range(1, 460))
  ade = vocabulary.load('ade20k_847')
  assert (ade.names[0], ade.source_values[0]) == ('wall', 2978)
  assert all(name == name.strip() for name in vocabulary.load('ade20k_150').names)


@pytest.mark.parametrize('name', sorted(COLUMNS))
def test_labels_to_the_value(name: str, source: pathlib.Path) -> None:
  layout = layouts.LAYOUTS[name]
  reader = sources.Reader(source, layout.read_label, table(name))
  for split, expected in COLUMNS[name].items():
    pairs = layout.splits[split].pairs(source)
    assert [pair.image_id for pair in pairs] == sorted(expected) or len(pairs) == 2
    for pair in pairs:
      example, problems = reader(pair)
      assert problems == []
      dtype = np.uint16 if DATASETS[name].void == W else np.uint8
      want = spread(expected[pair.image_id], dtype)
      assert example['label'].dtype == dtype
      np.testing.assert_array_equal(example['label'], want)
      assert example['image'] == pair.image.read_bytes()  # stored as published


def test_unknown_values_are_told() -> None:
  labels = np.array([[0, 151], [150, 200]], np.uint8)
  assert table('ade20k_150').apply(labels)[1] == [151, 200]
  assert table('voc_20').apply(np.array([[21]], np.uint8))[1] == [21]
  assert table('voc_20').apply(np.array([[254]], np.uint8))[1] == [254]
  assert table('pascal_context_459').apply(np.array([[460]], np.uint16))[1] == [460]
  assert table('ade20k_847').apply(np.array([[3_688]], np.uint16))[1] == []
  assert table('ade20k_847').apply(np.array([[3_689]], np.uint16))[1] == [3_689]


def test_hidden_classes_become_void() -> None:
  labels = np.array([[0, 20, 91]], np.uint8)
  hidden = table('coco_stuff_156_15').hide([19])
  np.testing.assert_array_equal(hidden.apply(labels)[0], [[0, V, 80]])


def test_voc_without_the_augmented_folder(tmp_path: pathlib.Path) -> None:
  tiny_layouts.voc(tmp_path, folder='SegmentationClass')
  pairs = layouts.LAYOUTS['voc_20'].splits['val'].pairs(tmp_path)
  assert [pair.missing() for pair in pairs] == [[], []]


@pytest.mark.parametrize(
  ('size', 'small'),
  [((512, 900), (512, 900)), ((1467, 2200), (512, 768)), ((2048, 1536), (683, 512))],
)
def test_size_of_the_small_copy(size: tuple[int, int], small: tuple[int, int]) -> None:
  assert shrink.small_size(*size) == small


def test_shrinking_is_by_hand() -> None:
  label = np.arange(6, dtype=np.uint16).reshape(1, 6)
  np.testing.assert_array_equal(shrink.resize_nearest(label, 1, 4), [[0, 1, 3, 4]])
  row = np.array([0, 100, 200, 40], np.uint8).reshape(1, 4, 1)
  # Halved: each pixel is the mean of two, without antialiasing beyond them.
  np.testing.assert_array_equal(shrink.resize_linear(row, 1, 2)[0, :, 0], [50, 120])
  # To three: positions 1/6, 1.5 and 2 5/6.
  np.testing.assert_array_equal(shrink.resize_linear(row, 1, 3)[0, :, 0], [17, 150, 67])
  flat = np.full((7, 5, 3), 201, np.uint8)
  assert (shrink.resize_linear(flat, 4, 3) == 201).all()


@pytest.fixture(scope='module')
def built(source: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
  """Builds parts by name; returns their builders."""
  data_dir = tmp_path_factory.mktemp('benchmarks')

  def build(name: str) -> Any:
    return prepare.prepare(name, source, data_dir, 'partial')

  return build


def test_sixteen_bits_survive_the_pipeline(built: Any) -> None:
  builder = built('pascal_context_459')
  assert builder.info.metadata['void'] == pipeline.void_label(builder) == W
  found = {e['image_id'].decode(): e for e in pipeline.examples(builder, 'val')}
  for name, columns in COLUMNS['pascal_context_459']['val'].items():
    assert found[name]['label'].dtype == np.uint16
    np.testing.assert_array_equal(found[name]['label'], spread(columns, np.uint16))


def test_images_are_decoded_as_pillow_does(built: Any, source: pathlib.Path) -> None:
  for example in pipeline.examples(built('pascal_context_459'), 'val'):
    name = example['image_id'].decode()
    path = source / f'VOCdevkit/VOC2010/JPEGImages/{name}.jpg'
    with Image.open(path) as image:
      np.testing.assert_array_equal(example['image'], np.asarray(image))


def test_training_leaves_out_unlabelled_images(built: Any) -> None:
  builder = built('coco_stuff_156_15')
  train = list(pipeline.examples(builder, 'train'))
  assert [e['image_id'] for e in train] == [b'000000000001']
  # The cow is hidden from training, not from validation.
  np.testing.assert_array_equal(train[0]['label'], spread([0, V, 80, V], np.uint8))
  val = {e['image_id']: e['label'] for e in pipeline.examples(builder, 'val')}
  np.testing.assert_array_equal(val[b'000000000003'], spread([0, 19, 80, V], np.uint8))


def test_captions(built: Any) -> None:
  builder = built('coco_captions_2017')
  assert 'label' not in builder.info.features
  found = {e['image_id']: e['captions'] for e in pipeline.examples(builder, 'val')}
  assert found[b'000000000003'].tolist() == [b'a cow', b'number 3']
  assert found[b'000000000004'].tolist() == [b'a cow', b'number 4']


def test_unprepared_says_how(tmp_path: pathlib.Path) -> None:
  with pytest.raises(FileNotFoundError, match=r'--dataset=voc_20 --source=DIR'):
    benchmarks.load('voc_20', tmp_path, 'default')
  with pytest.raises(FileNotFoundError, match=r'--variant=original --source'):
    benchmarks.load('ade20k_847', tmp_path, 'original')
  with pytest.raises(ValueError, match="unknown variant of voc_20 'orignal'"):
    benchmarks.load('voc_20', tmp_path, 'orignal')


class TestSizes:
  """Images of different sizes in one batch."""

  @pytest.fixture
  def builder(self, built: Any) -> Any:
    return built('pascal_context_459')

  @staticmethod
  def cut(example: Any) -> Any:
    """Makes the second image smaller."""
    rows = tf.where(example['image_id'] == b'2008_2', 4, HEIGHT)
    return {
      'image_id': example['image_id'],
      'image': example['image'][:rows],
      'label': example['label'][:rows],
    }

  @pytest.mark.parametrize('bucket', [1, 5])
  def test_padding_is_grey_and_void(self, builder: Any, bucket: int) -> None:
    whole = {e['image_id']: e for e in pipeline.examples(builder, 'val')}
    [batch] = pipeline.eval_batches(
      builder, 'val', [self.cut], batch_size=2, bucket=bucket
    )
    shape = (HEIGHT, WIDTH) if bucket == 1 else (10, 10)
    assert batch['image'].shape == (2, *shape, 3)
    assert batch['label'].shape == (2, *shape)
    for i, name in enumerate(batch['image_id']):
      h, w = batch['size'][i]
      assert (h, w) == (4 if name == b'2008_2' else HEIGHT, WIDTH)
      for key, fill in (('image', [123, 117, 104]), ('label', W)):
        inside = batch[key][i, :h, :w]
        np.testing.assert_array_equal(inside, whole[name][key][:h])
        assert (batch[key][i, h:] == fill).all()
        assert (batch[key][i, :, w:] == fill).all()

  def test_one_by_one_nothing_is_padded(self, builder: Any) -> None:
    batches = pipeline.eval_batches(builder, 'val', [self.cut], batch_size=1)
    shapes = {b['image_id'][0]: b['image'].shape for b in batches}
    assert shapes == {b'2008_1': (1, 6, 8, 3), b'2008_2': (1, 4, 8, 3)}


@pytest.mark.parametrize('count', [1, 2, 3])
def test_processes_compute_together(built: Any, count: int) -> None:
  """Two images: with three processes one has none, and still takes every step."""
  builder = built('pascal_context_459')
  seen, steps = [], []
  for index in range(count):
    batches = list(
      pipeline.eval_batches(
        builder,
        'val',
        [transforms.keep('image_id')],
        batch_size=1,
        process_index=index,
        process_count=count,
      )
    )
    steps.append(len(batches))
    for batch in batches:
      seen += batch['image_id'][batch['example_valid']].tolist()
  assert sorted(seen) == [b'2008_1', b'2008_2']
  assert steps == {1: [2], 2: [1, 1], 3: [1, 1, 1]}[count]


def test_a_source_may_be_the_top_folder(source: pathlib.Path) -> None:
  layout = layouts.LAYOUTS['coco_80']
  assert layout.root(source) == source
  assert layout.root(source / 'coco') == source
  assert dataclasses.replace(layout, files='VOCdevkit/x').root(source) == source
