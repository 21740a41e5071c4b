"""A user's table: what is read, what is drawn, and what is said of mistakes."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ovs_jax.data import squares
from ovs_jax.data.phrase_table import PhraseTable, Row, read_table, table_batches

RUN = {'size': 8, 'crop': 'none', 'negative': 0.0, 'batch_size': 2, 'seed': 0}


@pytest.fixture
def folder(tmp_path):
  """Returns the directory of a table of three examples."""
  for i in range(2):
    Image.fromarray(np.full((10, 20, 3), 100 * i, np.uint8)).save(tmp_path / f'{i}.png')
  left = np.zeros((10, 20), np.uint8)
  left[:, :10] = 255
  Image.fromarray(left).save(tmp_path / 'left.png')
  Image.fromarray(255 - left).save(tmp_path / 'right.png')
  lines = ['image,mask,phrase', '0.png,left.png,cup', '0.png,right.png,lid']
  (tmp_path / 'table.csv').write_text('\n'.join([*lines, '1.png,left.png,cup']) + '\n')
  return tmp_path


def test_batches_are_a_function_of_seed_and_step(folder):
  table = read_table(folder / 'table.csv')
  assert table.phrases == ('cup', 'lid')
  assert [row.phrase for row in table.rows] == [0, 1, 0]
  first = table_batches(table, start=0, **RUN)
  batches = [next(first) for _ in range(4)]
  again = next(table_batches(table, start=3, **RUN))
  for name, value in again.items():
    np.testing.assert_array_equal(value, batches[3][name])
  batch = batches[0]
  assert batch['image'].shape == (2, 8, 8, 3) and batch['mask'].shape == (2, 8, 8)
  for image, mask, phrase in zip(
    *(batch[k] for k in ('image', 'mask', 'phrase')), strict=True
  ):
    assert mask[:, :4].all() == (phrase == 0) and mask[:, 4:].all() == (phrase == 1)
    assert set(np.unique(image)) <= {0, 100}


def test_negatives_have_another_phrase_and_no_mask(folder):
  table = read_table(folder / 'table.csv')
  batches = table_batches(table, start=0, **{**RUN, 'negative': 1.0, 'batch_size': 3})
  batch = next(batches)
  # The first image has both phrases, so that nothing is wrong for it.
  black = batch['image'].max(axis=(1, 2, 3)) == 0
  assert batch['mask'][black].any(axis=(1, 2)).all()
  assert not batch['mask'][~black].any() and batch['phrase'][~black].tolist() == [1]


class CountedRows(tuple):
  """Rows that know how often all of them were looked at."""

  walks = 0

  def __iter__(self):
    self.walks += 1
    return super().__iter__()


def test_examples_do_not_walk_along_the_table(folder):
  rng = np.random.default_rng(0)
  names = ('0.png', '1.png')
  rows = CountedRows(
    Row(folder / names[i % 2], folder / 'left.png', int(rng.integers(20)))
    for i in range(30)
  )
  table = PhraseTable(rows, tuple(f'thing {k}' for k in range(20)))
  settings = {**RUN, 'negative': 1.0, 'batch_size': 10, 'seed': 5}
  batches = table_batches(table, start=1, **settings)
  first = [next(batches) for _ in range(5)]
  assert rows.walks == 1
  # The draws are those among a list of all other phrases.
  want = []
  for step in range(1, 6):
    epoch, place = divmod(step, 3)
    order = np.random.default_rng([5, epoch]).permutation(30)
    for i in order[10 * place : 10 * place + 10]:
      own = {row.phrase for row in rows if row.image == rows[i].image}
      draw = np.random.default_rng([5, epoch, int(i), 1])
      draw.random()
      want.append(int(draw.choice(sorted(set(range(20)) - own))))
  assert np.concatenate([batch['phrase'] for batch in first]).tolist() == want


def test_squares_show_the_thing(folder):
  table = read_table(folder / 'table.csv')
  batches = table_batches(table, start=0, **{**RUN, 'crop': 'square'})
  for _ in range(4):
    assert next(batches)['mask'].any(axis=(1, 2)).all()


def test_mistakes_are_listed(folder):
  path = folder / 'bad.csv'
  with pytest.raises(FileNotFoundError, match='with the columns image, mask, phrase'):
    read_table(path)
  path.write_text('image,mask\n')
  with pytest.raises(ValueError, match='has no column phrase'):
    read_table(path)
  path.write_text('image,mask,phrase\n')
  with pytest.raises(ValueError, match='it has no examples'):
    read_table(path)
  path.write_text('image,mask,phrase\n0.png,no.png,cup\n1.png,left.png,\n')
  with pytest.raises(ValueError, match='2 problems') as error:
    read_table(path)
  assert 'line 2' in str(error.value) and 'line 3: no phrase' in str(error.value)
  table = read_table(folder / 'table.csv')
  with pytest.raises(ValueError, match='3 examples, fewer than one batch of 4'):
    next(table_batches(table, start=0, **{**RUN, 'batch_size': 4}))
  Image.new('L', (5, 5)).save(folder / 'left.png')
  with pytest.raises(ValueError, match='5x5 pixels, its image'):
    next(table_batches(table, start=0, **RUN))


def test_the_central_square():
  image = np.zeros((4, 8, 3), np.uint8)
  image[:, 2:6] = 200
  label = np.arange(8, dtype=np.uint8)[None].repeat(4, 0)
  example = {'image': tf.constant(image), 'label': tf.constant(label)}
  same = squares.centre(4)(example)
  assert (same['image'].numpy() == 200).all()
  assert same['label'].numpy()[0].tolist() == [2, 3, 4, 5]
  small = squares.centre(2)(example)
  assert small['image'].shape == (2, 2, 3) and small['image'].dtype == tf.uint8
  assert small['label'].numpy().tolist() == [[2, 4], [2, 4]]
