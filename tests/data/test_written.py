"""A data set that is written file by file: the order, what is kept, and kills."""

import os
import pathlib
from collections.abc import Callable
from typing import Any

import drawn_photos
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from ovs_jax.core.files import read_json, write_json
from ovs_jax.data import build, folder, sources, written
from ovs_jax.data.sources import SourceError

COUNT = 11


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
  """Files of two examples."""
  monkeypatch.setattr(written, '_PER_FILE', 2)


@pytest.fixture
def photos(tmp_path: pathlib.Path) -> pathlib.Path:
  drawn_photos.write(tmp_path / 'mine', COUNT, side=16)
  return tmp_path / 'mine'


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
  """Which images are read."""
  found: list[str] = []
  before = sources.Reader.__call__

  def count(reader: Any, pair: Any) -> Any:
    found.append(pair.image_id)
    return before(reader, pair)

  monkeypatch.setattr(sources.Reader, '__call__', count)
  return found


def files(data: pathlib.Path) -> dict[str, bytes]:
  """What lies there, but for the path that a builder notes of itself."""
  return {
    str(p.relative_to(data)): p.read_bytes()
    for p in sorted(data.rglob('*'))
    if p.is_file() and p.name != '.prepare.lock'
  }


def records(data: pathlib.Path, split: str) -> list[bytes]:
  paths = sorted(str(p) for p in data.rglob(f'*-{split}.tfrecord-*'))
  return [r.numpy() for r in tf.data.TFRecordDataset(paths)]


def test_examples_have_the_order_and_bytes_that_tfds_gives_them(
  photos: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  """Its own writer, given the same folder."""
  builder = folder.prepare(tmp_path / 'data', photos)
  config = folder.FolderConfig(
    name='theirs', description='x', source=folder.survey(photos)
  )
  theirs = folder.Folder(data_dir=tmp_path / 'theirs', config=config)
  manual = tfds.download.DownloadConfig(manual_dir=photos)
  with build.quiet_tfds(), build.same_records():
    theirs.download_and_prepare(download_config=manual)
  for split in ('train', 'val'):
    expected = records(tmp_path / 'theirs', split)
    assert records(tmp_path / 'data', split) == expected
    assert len(expected) == builder.info.splits[split].num_examples > 1
  assert set(builder.info.splits['train'].shard_lengths[:-1]) == {2}


class Killed(BaseException):
  """Stands for the end of a process."""


def killed_after(count: int) -> Callable[..., None]:
  left = [count]

  def advance(*given: Any) -> None:
    left[0] -= 1
    if left[0] < 0:
      raise Killed

  return advance


def test_what_was_written_is_not_read_again(
  photos: pathlib.Path,
  tmp_path: pathlib.Path,
  read: list[str],
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  folder.prepare(tmp_path / 'whole', photos)
  assert len(read) == COUNT
  read.clear()
  with monkeypatch.context() as patch:
    patch.setattr(build, 'advance', killed_after(5))  # in the third file
    with pytest.raises(Killed):
      folder.prepare(tmp_path / 'data', photos)
  read.clear()
  folder.prepare(tmp_path / 'data', photos)
  assert len(read) == COUNT - 4 and len(set(read)) == len(read)
  assert files(tmp_path / 'data') == files(tmp_path / 'whole')
  assert not list(tmp_path.rglob(written.FOLDER))


@pytest.mark.parametrize('renamed', [0, 1, 3])
def test_a_kill_amid_the_names_loses_nothing(
  photos: pathlib.Path,
  tmp_path: pathlib.Path,
  read: list[str],
  monkeypatch: pytest.MonkeyPatch,
  renamed: int,
) -> None:
  folder.prepare(tmp_path / 'whole', photos)
  replace, left = os.replace, [renamed]

  def kill(source: Any, target: Any) -> None:
    if '-of-0' in str(target):
      left[0] -= 1
      if left[0] < 0:
        raise Killed
    replace(source, target)

  with monkeypatch.context() as patch:
    patch.setattr(os, 'replace', kill)
    with pytest.raises(Killed):
      folder.prepare(tmp_path / 'data', photos)
  read.clear()
  folder.prepare(tmp_path / 'data', photos)
  assert read == []
  assert files(tmp_path / 'data') == files(tmp_path / 'whole')


def interrupted(photos: pathlib.Path, data: pathlib.Path) -> pathlib.Path:
  """Prepares half, and returns where it lies."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(build, 'advance', killed_after(6))
    with pytest.raises(Killed):
      folder.prepare(data, photos)
  (found,) = data.rglob(written.FOLDER)
  return found


def test_files_that_changed_are_read_again(
  photos: pathlib.Path, tmp_path: pathlib.Path, read: list[str]
) -> None:
  left = interrupted(photos, tmp_path / 'data')
  assert len(list((left / 'notes').iterdir())) == 3
  first = set(read[:2])
  mask = photos / 'masks' / f'{read[0]}.png'
  mask.write_bytes((photos / 'masks' / f'{read[-1]}.png').read_bytes())
  size = {p.stem: p for p in (photos / 'images').iterdir()}
  size[read[0]].write_bytes(size[read[-1]].read_bytes())
  read.clear()
  folder.prepare(tmp_path / 'data', photos)
  assert first <= set(read) and len(read) == COUNT - 4
  folder.prepare(tmp_path / 'whole', photos)
  assert files(tmp_path / 'data') == files(tmp_path / 'whole')


@pytest.mark.parametrize('damage', ['note', 'gone', 'names'])
def test_what_is_damaged_or_of_other_names_is_read_again(
  photos: pathlib.Path, tmp_path: pathlib.Path, read: list[str], damage: str
) -> None:
  left = interrupted(photos, tmp_path / 'data')
  again = COUNT - 4
  if damage == 'note':
    next((left / 'notes').iterdir()).write_text('{"of": ')
  elif damage == 'gone':
    next((left / 'data').iterdir()).unlink()
  else:
    names = (photos / 'names.txt').read_text().replace('sky', 'heaven')
    (photos / 'names.txt').write_text(names)
    again = COUNT
  read.clear()
  folder.prepare(tmp_path / 'data', photos)
  assert len(read) == again
  folder.prepare(tmp_path / 'whole', photos)
  assert files(tmp_path / 'data') == files(tmp_path / 'whole')


def test_problems_leave_what_is_whole(
  photos: pathlib.Path, tmp_path: pathlib.Path, read: list[str]
) -> None:
  broken = photos / 'images/004.jpg'
  content = broken.read_bytes()
  broken.write_bytes(content[:100])
  with pytest.raises(SourceError, match=r'images/004\.jpg'):
    folder.prepare(tmp_path / 'data', photos)
  assert len(read) == COUNT  # all that is wrong is found at once
  broken.write_bytes(content)
  read.clear()
  builder = folder.prepare(tmp_path / 'data', photos)
  assert len(read) == 2 and '004' in ' '.join(read)
  splits = builder.info.splits.values()
  assert sum(split.num_examples for split in splits) == COUNT


def test_classes_are_counted_over_all_starts(
  photos: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  (photos / 'names.txt').write_text('\n'.join([*drawn_photos.NAMES, 'dragon']))
  interrupted(photos, tmp_path / 'data')
  capsys.readouterr()
  folder.prepare(tmp_path / 'data', photos)
  said = capsys.readouterr().err
  assert 'no mask has a pixel of dragon (value 4). 255' in said


def test_a_note_says_what_is_in_a_file(
  photos: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  left = interrupted(photos, tmp_path / 'data')
  for path in (left / 'notes').iterdir():
    note, data = read_json(path), left / 'data' / f'{path.stem}.tfrecord'
    assert note['kept'] == 2
    assert note['size'] + 2 * 16 == data.stat().st_size
    write_json(path, {**note, 'kept': -1})
