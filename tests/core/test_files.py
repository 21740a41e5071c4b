"""Files that appear whole or not at all."""

import collections
import errno
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
from typing import Any

import pytest

from ovs_jax.core import files

# Starts to replace a file and is killed before it is done.
KILLED = """
import os, pathlib, signal, sys
from ovs_jax.core.files import atomic_path
with atomic_path(pathlib.Path(sys.argv[1])) as temporary:
  with open(temporary, 'w') as file:
    file.write('half of the n')
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


class TestAtomicPath:
  def test_writes_a_file_and_makes_its_parents(self, tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'a' / 'b.txt'
    with files.atomic_path(path) as temporary:
      temporary.write_text('new')
      assert not path.exists()
    assert path.read_text() == 'new'
    assert list(path.parent.iterdir()) == [path]

  def test_keeps_the_suffix(self, tmp_path: pathlib.Path) -> None:
    with files.atomic_path(tmp_path / 'a.npz') as temporary:  # NumPy appends others
      assert temporary.suffix == '.npz'
      temporary.touch()

  @pytest.mark.parametrize('old', [None, 'old'])
  def test_leaves_nothing_after_an_error(
    self, tmp_path: pathlib.Path, old: str | None
  ) -> None:
    path = tmp_path / 'a.txt'
    if old:
      path.write_text(old)
    with pytest.raises(KeyError):
      with files.atomic_path(path) as temporary:
        temporary.write_text('half')
        raise KeyError
    assert [p.read_text() for p in tmp_path.iterdir()] == ([old] if old else [])

  def test_leaves_no_directory_after_an_error(self, tmp_path: pathlib.Path) -> None:
    with pytest.raises(KeyError):
      with files.atomic_path(tmp_path / 'a') as temporary:
        temporary.mkdir()
        (temporary / 'half').touch()
        raise KeyError
    assert list(tmp_path.iterdir()) == []

  def test_replaces_directories(self, tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'a'
    for name in ('old', 'new'):
      with files.atomic_path(path) as temporary:
        temporary.mkdir()
        (temporary / name).touch()
    assert sorted(p.name for p in path.iterdir()) == ['.ovs_jax', 'new']
    assert list(tmp_path.iterdir()) == [path]

  def test_directories_that_cannot_change_places_are_moved(
    self, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
  ) -> None:
    monkeypatch.setattr(files, '_exchange', lambda one, other: False)
    self.test_replaces_directories(tmp_path)

  def test_a_kill_leaves_the_old_file(self, tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'a.txt'
    path.write_text('old')
    done = subprocess.run([sys.executable, '-c', KILLED, str(path)], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == 'old'
    files.write_text(path, 'new')
    assert path.read_text() == 'new'
    other = path.with_name('.b.txt.0.tmp.txt')
    other.touch()
    assert len(list(tmp_path.iterdir())) == 3
    files.clear_leftovers(path)
    assert sorted(tmp_path.iterdir()) == [other, path]


class TestJson:
  def test_round_trip(self, tmp_path: pathlib.Path) -> None:
    value = {'b': [1, 2.5, None], 'a': {'ü': True}}
    files.write_json(tmp_path / 'a.json', value)
    assert files.read_json(tmp_path / 'a.json') == value

  def test_a_cut_file_is_named(self, tmp_path: pathlib.Path) -> None:
    (tmp_path / 'a.json').write_text('{"a": 1')
    with pytest.raises(ValueError, match=r'a\.json is not valid JSON .*delete it'):
      files.read_json(tmp_path / 'a.json')


def test_fingerprints_see_values_and_not_order() -> None:
  one = files.fingerprint({'a': 1, 'b': (2, 3)})
  assert one == files.fingerprint({'b': [2, 3], 'a': 1})
  assert one != files.fingerprint({'a': 1, 'b': [3, 2]})


class TestCheckWritable:
  def test_makes_the_directory_and_leaves_no_probe(
    self, tmp_path: pathlib.Path
  ) -> None:
    directory = files.check_writable(tmp_path / 'a' / 'b', megabytes=1)
    assert directory.is_absolute() and list(directory.iterdir()) == []

  def test_a_file_in_the_way(self, tmp_path: pathlib.Path) -> None:
    (tmp_path / 'a').touch()
    with pytest.raises(OSError, match=r'cannot write to .*/a/b .*--workdir='):
      files.check_writable(tmp_path / 'a' / 'b', megabytes=1)

  @pytest.mark.parametrize(
    ('number', 'reason'),
    [
      (errno.EACCES, 'Permission denied'),
      (errno.EROFS, 'Read-only file system'),
      (errno.ENOSPC, 'No space left on device'),
    ],
  )
  def test_the_reason_is_given(
    self,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    reason: str,
  ) -> None:
    # Root may write anywhere, so the refusal is played.
    def refuse(self: pathlib.Path, data: bytes) -> int:
      raise OSError(number, reason, str(self))

    monkeypatch.setattr(pathlib.Path, 'write_bytes', refuse)
    with pytest.raises(OSError, match=rf'cannot write to {tmp_path} \({reason}\)'):
      files.check_writable(tmp_path, megabytes=1)

  def test_a_disk_that_is_almost_full(
    self, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
  ) -> None:
    usage = collections.namedtuple('usage', 'total used free')
    monkeypatch.setattr(
      files.shutil, 'disk_usage', lambda _: usage(2**30, 2**30 - 2**21, 2**21)
    )
    with pytest.raises(OSError, match='has 2 MB free, this needs about 3 MB'):
      files.check_writable(tmp_path, megabytes=3)
    files.check_writable(tmp_path, megabytes=2)


def test_json_is_what_every_reader_takes(tmp_path: pathlib.Path) -> None:
  value = {'a': (1.5, float('nan')), 'b': {'c': [float('inf'), -float('inf')]}, 'd': 1}
  files.write_json(tmp_path / 'x.json', value)
  text = (tmp_path / 'x.json').read_text()

  def refuse(name: str) -> None:
    raise AssertionError(name)

  found = json.loads(text, parse_constant=refuse)
  assert found == {'a': [1.5, None], 'b': {'c': [None, None]}, 'd': 1}


def test_files_that_vanish_meanwhile_are_not_below(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  for name in ('b', 'a/c', 'gone', 'going/d', 'a/.probe'):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(name)
  scan, is_file = os.scandir, pathlib.Path.is_file

  def scandir(path: str) -> Any:
    if str(path).endswith('going'):
      shutil.rmtree(path)
    return scan(path)

  def looked_at(path: pathlib.Path) -> bool:
    there = is_file(path)
    if path.name in ('gone', '.probe'):
      path.unlink()
    return there

  monkeypatch.setattr(os, 'scandir', scandir)
  monkeypatch.setattr(pathlib.Path, 'is_file', looked_at)
  assert files.below(tmp_path) == [('a/c', 3), ('b', 1)]
  assert files.below(tmp_path / 'none') == []


def test_what_cannot_be_listed_is_not_left_out(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  def scandir(path: str) -> Any:
    raise OSError(errno.EIO, 'Input/output error', path)

  monkeypatch.setattr(os, 'scandir', scandir)
  with pytest.raises(OSError, match='Input/output error'):
    files.below(tmp_path)
