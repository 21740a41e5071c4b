"""A user's folder: used from a config as it is, rebuilt when it changes."""

import json
import os
import pathlib
from typing import Any

import numpy as np
import pytest
import tiny_layouts
from PIL import Image

from ovs_jax.data import (
  class_table,
  folder,
  load_dataset,
  load_names,
  pipeline,
  prepare,
)
from ovs_jax.data.sources import SourceError
from ovs_jax.settings import Dataset


@pytest.fixture
def mine(tmp_path: pathlib.Path) -> pathlib.Path:
  """Returns a folder with two images, masks, names and captions of one."""
  root = tmp_path / 'my photos'
  for name, numbers in {'a': [0, 1, 255], 'b': [1]}.items():
    tiny_layouts.photo(root / f'images/{name}.jpg')
    tiny_layouts.grey(root / f'masks/{name}.png', tiny_layouts.values(numbers))
  (root / 'names.txt').write_text('cat\nred  ball\n\n')
  line = json.dumps({'image': 'a.jpg', 'captions': ['a cat', 'a ball']})
  (root / 'captions.jsonl').write_text(line + '\n\n')
  return root


def config(root: pathlib.Path, data_dir: pathlib.Path) -> Dataset:
  """Returns what `config.dataset` would be."""
  return Dataset('folder', str(root), str(data_dir))


def examples(builder: Any, split: str) -> dict[str, Any]:
  return {e['image_id'].decode(): e for e in pipeline.examples(builder, split)}


def test_from_a_config(mine: pathlib.Path, tmp_path: pathlib.Path) -> None:
  settings = config(mine, tmp_path / 'data')
  names = load_names(settings)
  assert names.names == ('cat', 'red ball') and names.source_values == (0, 1)
  _, builder = load_dataset(settings)
  found = examples(builder, 'val')
  assert set(found) == {'a', 'b'}
  np.testing.assert_array_equal(found['a']['label'], tiny_layouts.values([0, 1, 255]))
  with Image.open(mine / 'images/a.jpg') as image:
    np.testing.assert_array_equal(found['a']['image'], np.asarray(image))
  assert found['a']['captions'].tolist() == [b'a cat', b'a ball']
  assert found['b']['captions'].tolist() == []


def test_changes_are_noticed(mine: pathlib.Path, tmp_path: pathlib.Path) -> None:
  data = tmp_path / 'data'
  first = folder.prepare(data, mine)
  info = pathlib.Path(first.data_dir) / 'dataset_info.json'
  before = info.stat().st_mtime_ns
  assert folder.prepare(data, mine).info.splits['val'].num_examples == 2
  assert info.stat().st_mtime_ns == before  # not built again
  tiny_layouts.photo(mine / 'images/c.jpg')
  tiny_layouts.grey(mine / 'masks/c.png', tiny_layouts.values([0]))
  assert folder.prepare(data, mine).info.splits['val'].num_examples == 3


def test_splits_values_and_orientation(tmp_path: pathlib.Path) -> None:
  """Folders are splits; 16 bits; a photo that the camera was turned for."""
  root = tmp_path / 'own'
  tiny_layouts.photo(root / 'images/train/x.jpg')
  label = tiny_layouts.values([700, 3, 65535], np.uint16)
  tiny_layouts.grey(root / 'masks/train/x.png', label)
  turned = Image.fromarray(np.zeros((8, 6, 3), np.uint8))
  exif = turned.getexif()
  exif[0x0112] = 6  # turned by a quarter
  (root / 'images/val').mkdir()
  turned.save(root / 'images/val/y.JPG', exif=exif)
  tiny_layouts.grey(root / 'masks/val/y.png', tiny_layouts.values([3], np.uint16))
  (root / 'names.txt').write_text('700\troof\n3\ttree, bush\n')
  builder = folder.prepare(tmp_path / 'data', root)
  names = folder.vocabulary_of(builder)
  assert names.names == ('roof', 'tree, bush') and names.source_values == (700, 3)
  assert set(builder.info.splits) == {'train', 'val'}
  train = examples(builder, 'train')['train/x']
  np.testing.assert_array_equal(
    train['label'], tiny_layouts.values([0, 1, pipeline.void_label(builder)])
  )
  assert examples(builder, 'val')['val/y']['image'].shape == (6, 8, 3)


def test_captions_alone(mine: pathlib.Path, tmp_path: pathlib.Path) -> None:
  for path in (mine / 'masks').iterdir():
    path.unlink()
  (mine / 'masks').rmdir()
  builder = folder.prepare(tmp_path / 'data', mine)
  assert set(builder.info.features) == {'image', 'image_id', 'captions'}
  with pytest.raises(ValueError, match='has no classes; add masks/ and names.txt'):
    folder.vocabulary_of(builder)


def test_all_mistakes_in_one_list(mine: pathlib.Path, tmp_path: pathlib.Path) -> None:
  (mine / 'masks/b.png').unlink()
  (mine / 'names.txt').write_text('cat\ndog\ncat\n\nbird')
  (mine / 'captions.jsonl').write_text(
    '{"image": "z.jpg", "captions": ["z"]}\nnonsense\n{"image": "a.jpg"}\n'
  )
  with pytest.raises(SourceError) as caught:
    folder.prepare(tmp_path / 'data', mine)
  assert [(p.kind, p.what.split(' (')[0]) for p in caught.value.problems] == [
    ('missing', 'masks/b.png'),
    ('wrong text', 'captions.jsonl names z.jpg, which is not in images/'),
    ('wrong text', 'captions.jsonl: line 2'),
    ('wrong text', 'captions.jsonl: line 3'),
    ('wrong text', 'names.txt: line 1 and line 3 have the name cat'),
    ('wrong text', "names.txt: line 4 is '', expected NAME or VALUE<TAB>NAME"),
  ]


def test_wrong_masks(
  mine: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  tiny_layouts.grey(mine / 'masks/a.png', tiny_layouts.values([0, 2]))
  tiny_layouts.photo(mine / 'masks/b.jpg')
  os.replace(mine / 'masks/b.jpg', mine / 'masks/b.png')
  arguments = ['--dataset=folder', f'--source={mine}', f'--data_dir={tmp_path / "d"}']
  assert prepare.main(arguments) == 2
  said = ''.join(capsys.readouterr())
  assert 'unknown label value: masks/a.png holds 2' in said
  assert 'unreadable: masks/b.png (is a JPEG, which blurs labels' in said
  tiny_layouts.grey(mine / 'masks/a.png', tiny_layouts.values([0]))
  tiny_layouts.grey(mine / 'masks/b.png', tiny_layouts.values([1]))
  assert prepare.main(arguments) == 0
  said = ''.join(capsys.readouterr())
  assert 'folder: val 2 images, 2 classes' in said
  assert '--config.dataset.name=folder --config.dataset.variant=' in said


def test_no_such_folder(tmp_path: pathlib.Path) -> None:
  with pytest.raises(FileNotFoundError, match='smoke not found; set config.dataset'):
    folder.prepare(tmp_path, tmp_path / 'smoke')
  with pytest.raises(SourceError, match='no images in'):
    folder.prepare(tmp_path / 'data', tmp_path)


def test_images_in_no_folders_are_divided(
  tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  root = tmp_path / 'mine'
  for i in range(30):
    tiny_layouts.photo(root / f'images/{i}.jpg')
    tiny_layouts.grey(root / f'masks/{i}.png', tiny_layouts.values([0, 1]))
  (root / 'names.txt').write_text('cat\n"door, double door"\n')
  before = folder.survey(root)
  builder = folder.prepare(tmp_path / 'data', root)
  train, val = (set(examples(builder, split)) for split in ('train', 'val'))
  assert train | val == {str(i) for i in range(30)} and not train & val
  assert folder.vocabulary_of(builder).names == ('cat', 'door, double door')
  said = capsys.readouterr().err
  assert f'{len(train)} are train, {len(val)} are val' in said
  # Another image moves none of them.
  tiny_layouts.photo(root / 'images/another.jpg')
  tiny_layouts.grey(root / 'masks/another.png', tiny_layouts.values([0]))
  after = folder.survey(root)
  for split in ('train', 'val'):
    ids = [{p.image_id for p in s.splits[split]} for s in (before, after)]
    assert ids[1] - ids[0] <= {'another'} and ids[0] <= ids[1]


@pytest.mark.parametrize('count', [5, 20, 1000])
def test_a_fifth_is_val(count: int) -> None:
  pairs = [folder.Pair(f'{i}', pathlib.Path(), None, ()) for i in range(count)]
  found = folder.divide(pairs)
  assert sum(map(len, found.values())) == count
  assert 0.1 * count <= len(found['val']) <= max(0.27 * count, 2)


@pytest.fixture
def large(tmp_path: pathlib.Path) -> pathlib.Path:
  """A photo that lies on its side, 200 x 120 upright, and one of 90 x 60."""
  root = tmp_path / 'large'
  for kind in ('images', 'masks'):
    (root / kind).mkdir(parents=True)
  y, x = np.mgrid[:120, :200]
  label = (x // 50 + 4 * (y // 60)).astype(np.uint8)
  colours = np.random.default_rng(0).integers(0, 255, (8, 3), dtype=np.uint8)
  picture = colours[label]
  exif = Image.Exif()
  exif[0x0112] = 6  # upright after a quarter to the right
  lying = Image.fromarray(picture).transpose(Image.Transpose.ROTATE_90)
  lying.save(root / 'images/a.jpg', exif=exif, quality=98)
  Image.fromarray(label).save(root / 'masks/a.png')
  Image.fromarray(picture[:60, :90]).save(root / 'images/b.jpg')
  Image.fromarray(label[:60, :90]).save(root / 'masks/b.png')
  (root / 'names.txt').write_text('\n'.join(f'field {i}' for i in range(8)))
  return root


def test_photos_are_stored_smaller_where_that_is_asked_for(
  large: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  data = tmp_path / 'data'
  command = [f'--source={large}', f'--data_dir={data}']
  assert prepare.main([*command, '--longest=100']) == 0
  found = examples(folder.prepare(data, large), 'val')
  y, x = np.mgrid[:60, :100]
  expected = (x // 25 + 4 * (y // 30)).astype(np.uint8)  # every border at half
  np.testing.assert_array_equal(found['a']['label'], expected)
  image = found['a']['image'].astype(int)
  assert image.shape == (60, 100, 3)
  with Image.open(large / 'images/a.jpg') as lying:
    whole = lying.transpose(Image.Transpose.ROTATE_270).resize((100, 60))
  assert np.abs(image - np.asarray(whole).astype(int)).mean() < 4
  assert found['b']['image'].shape == (60, 90, 3)
  builder = folder.prepare(data, large)
  with Image.open(large / 'images/b.jpg') as small:
    np.testing.assert_array_equal(found['b']['image'], np.asarray(small))
  # As before, until something else is asked for; also when a photo comes.
  made = pathlib.Path(builder.data_dir) / 'dataset_info.json'
  before = made.stat().st_mtime_ns
  assert prepare.main(command) == 0
  assert made.stat().st_mtime_ns == before
  os.utime(large / 'images/b.jpg', (1, 1))
  assert examples(folder.prepare(data, large), 'val')['a']['image'].shape[0] == 60
  assert prepare.main([*command, '--longest=0']) == 0
  assert examples(folder.prepare(data, large), 'val')['a']['image'].shape[0] == 120
  capsys.readouterr()
  assert prepare.main([*command, '--longest=-1']) == 2
  assert 'expected 0 or more pixels' in capsys.readouterr().err
  assert prepare.main(['--dataset=voc_20', '--longest=5', *command]) == 2
  assert '--longest is for photos of your own' in capsys.readouterr().err


def test_a_photo_that_is_cut_off_does_not_pass_in_any_size(
  large: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  for name in ('a', 'b'):  # one is turned, one is stored as it is
    path = large / f'images/{name}.jpg'
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 3 // 4])
    for longest in (0, 50):
      with pytest.raises(SourceError, match=f'images/{name}.jpg'):
        folder.prepare(tmp_path / 'data', large, longest)
    path.write_bytes(whole)


def test_a_mask_of_another_size_does_not_pass_in_any_size(
  large: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  with Image.open(large / 'masks/a.png') as mask:
    mask.resize((100, 60)).save(large / 'masks/a.png')
  with pytest.raises(SourceError, match='is 100x60, its image 200x120'):
    folder.prepare(tmp_path / 'data', large, 100)


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_values_are_counted_whatever_their_type(dtype: Any) -> None:
  values = np.array([[0, 7, 7], [255, 0, 7]], dtype)
  counts = class_table.count_values(values, 300)
  expected = {0: 2, 7: 3, 255: 1}
  assert len(counts) >= 300 and counts.sum() == 6
  assert {int(v): int(counts[v]) for v in np.flatnonzero(counts)} == expected


def test_values_that_are_train_ids_already_stay_as_they_are() -> None:
  values = np.array([[0, 1, 255]], np.uint8)
  # As of a user's folder, whose masks may have 16 bits.
  same, other = (class_table.class_table(x, (255, 65535)) for x in ((0, 1), (1, 0)))
  assert same.apply(values)[0] is values
  np.testing.assert_array_equal(other.apply(values)[0], [[1, 0, 255]])
  shifted = class_table.class_table((1, 2), (0, 255))
  np.testing.assert_array_equal(
    shifted.apply(np.array([[0, 1, 2]], np.uint8))[0], [[255, 0, 1]]
  )
  assert same.apply(np.array([[0, 2]], np.uint8))[1] == [2]
