"""Files, folders and patterns: which pictures are meant."""

import pathlib

import pytest

from ovs_jax.photos import find_photos


@pytest.fixture
def folder(tmp_path, monkeypatch):
  (tmp_path / 'deep' / 'deeper').mkdir(parents=True)
  for name in ('b.jpg', 'a.PNG', '.hidden.jpg', 'notes.txt', 'deep/c.webp', 'x[1].png'):
    (tmp_path / name).write_bytes(b'')
  (tmp_path / 'deep' / 'deeper' / 'd.tiff').write_bytes(b'')
  (tmp_path / 'folder.jpg').mkdir()
  monkeypatch.chdir(tmp_path)
  return tmp_path


@pytest.mark.parametrize(
  ('given', 'expected'),
  [
    (['b.jpg', 'notes.txt'], ['b.jpg', 'notes.txt']),  # named: whatever it is
    (['.'], ['a.PNG', 'b.jpg', 'x[1].png']),
    (['deep'], ['deep/c.webp']),
    (['*.jpg'], ['b.jpg']),
    (['*'], ['a.PNG', 'b.jpg', 'x[1].png']),
    (['*.txt'], ['notes.txt']),
    (['deep/**/*'], ['deep/c.webp', 'deep/deeper/d.tiff']),
    (['**/*.tiff', 'deep'], ['deep/deeper/d.tiff', 'deep/c.webp']),
    (['x[1].png'], ['x[1].png']),
    (['b.jpg', '.', 'b.jpg'], ['b.jpg', 'a.PNG', 'x[1].png']),
    (['none.jpg'], ['none.jpg']),  # reading it says that it is missing
  ],
)
@pytest.mark.usefixtures('folder')
def test_finds(given, expected):
  assert list(find_photos(given)) == [pathlib.Path(name) for name in expected]


def test_says_what_was_named_itself(folder):
  found = find_photos(['b.jpg', str(folder)])
  assert found == {
    pathlib.Path('b.jpg'): True,
    folder / 'a.PNG': False,
    folder / 'b.jpg': False,
    folder / 'x[1].png': False,
  }


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    ('folder.jpg', 'folder.jpg is a directory without image files'),
    ('*.gif', r'no file matches \*.gif'),
    ('none/*.jpg', 'no file matches none/'),
  ],
)
@pytest.mark.usefixtures('folder')
def test_finds_nothing(given, message):
  with pytest.raises(ValueError, match=message):
    find_photos([given])
