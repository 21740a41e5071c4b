"""Label maps of other systems: what can be read, and what is said of the rest."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from ovs_jax.evaluate import predictions
from ovs_jax.evaluate.predictions import SavedMaps

LABELS = np.array([[0, 1, 2], [2, -1, 0]])
NAMES = ('sky', 'red ball', 'grass')


def read(directory: pathlib.Path, name: str = 'x', classes: int = 3) -> np.ndarray:
  maps = SavedMaps(directory, classes)
  labels = maps.read(name, (2, 3))
  assert maps.problems == {} and labels is not None
  return labels


@pytest.mark.parametrize('suffix', ['.png', '.tif', '.tiff'])
@pytest.mark.parametrize(('dtype', 'none'), [(np.uint8, 255), (np.uint16, 65535)])
def test_pictures(tmp_path: pathlib.Path, suffix: str, dtype: type, none: int) -> None:
  values = np.where(LABELS < 0, none, LABELS).astype(dtype)
  Image.fromarray(values).save(tmp_path / f'x{suffix}')
  np.testing.assert_array_equal(read(tmp_path), LABELS)


@pytest.mark.parametrize('dtype', [np.int8, np.int32, np.int64])
def test_arrays(tmp_path: pathlib.Path, dtype: type) -> None:
  np.save(tmp_path / 'x.npy', LABELS.astype(dtype))
  np.testing.assert_array_equal(read(tmp_path), LABELS)


@pytest.mark.parametrize('count', [3, 255, 300])
def test_what_we_save_comes_back(tmp_path: pathlib.Path, count: int) -> None:
  names = [f'name {i}' for i in range(count)]
  labels = LABELS.copy()
  labels[0, 0] = count - 1
  predictions.save_map(tmp_path, 'a/x', labels, names)
  np.testing.assert_array_equal(read(tmp_path, 'a/x', count), labels)
  assert predictions.check_names(tmp_path, names)


def test_255_is_a_class_where_there_are_so_many(tmp_path: pathlib.Path) -> None:
  np.save(tmp_path / 'x.npy', np.full((2, 3), 255, np.uint8))
  assert (read(tmp_path, classes=256) == 255).all()
  assert (read(tmp_path, classes=255) == -1).all()


def test_all_problems_come_in_one_message(tmp_path: pathlib.Path) -> None:
  maps = SavedMaps(tmp_path, 3)
  np.save(tmp_path / 'size.npy', np.zeros((3, 2), int))
  np.save(tmp_path / 'label.npy', np.full((2, 3), 7))
  np.save(tmp_path / 'float.npy', np.zeros((2, 3)))
  np.save(tmp_path / 'colour.npy', np.zeros((2, 3, 3), int))
  (tmp_path / 'broken.png').write_bytes(b'no picture')
  names = ['size', 'label', 'float', 'colour', 'broken', *(f'm{i}' for i in range(7))]
  assert all(maps.read(name, (2, 3)) is None for name in names)
  with pytest.raises(ValueError) as error:
    predictions.check_problems(tmp_path, 3, maps.problems)
  for part in (
    'values 0 to 2',
    '1 of the wrong size: size.npy (2 x 3, its label map 3 x 2)',
    '1 with labels outside the vocabulary: label.npy (7)',
    '2 not one channel of integers: colour.npy (int64, 2 x 3 x 3), float.npy (float64',
    '1 unreadable: broken.png',
    '7 missing: m0, m1, m2, m3, m4, and 2 more',
  ):
    assert part in str(error.value), part
  predictions.check_problems(tmp_path, 3, {})


def test_another_class_list_is_refused(tmp_path: pathlib.Path) -> None:
  assert not predictions.check_names(tmp_path, NAMES)
  path = tmp_path / 'names.txt'
  path.write_text('sky\nred ball\ngrass\n')
  assert predictions.check_names(tmp_path, NAMES)
  path.write_text('sky\ngrass\nred ball\n')
  with pytest.raises(
    ValueError, match="sha256.*line 2: 'grass' there, 'red ball' here"
  ):
    predictions.check_names(tmp_path, NAMES)
  path.write_text('sky\nred ball\n')
  with pytest.raises(ValueError, match="2 names.*line 3: '' there, 'grass' here"):
    predictions.check_names(tmp_path, NAMES)


def test_where_they_are_looked_for(tmp_path: pathlib.Path) -> None:
  with pytest.raises(FileNotFoundError, match='no label maps in .*IMAGE_ID.png'):
    predictions.find_directory(tmp_path, 'voc_20')
  with pytest.raises(FileNotFoundError, match='/none not found'):
    predictions.find_directory(tmp_path / 'none', 'voc_20')
  np.save(tmp_path / 'x.npy', LABELS)
  assert predictions.find_directory(tmp_path, 'voc_20') == tmp_path
  (tmp_path / 'voc_20').mkdir()
  np.save(tmp_path / 'voc_20' / 'x.npy', LABELS)
  assert predictions.find_directory(tmp_path, 'voc_20') == tmp_path / 'voc_20'
