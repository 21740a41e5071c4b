"""Embeddings on disk: what comes back, two writers at once, and damage."""

import errno
import json
import os
import pathlib
import subprocess
import sys
import warnings

import numpy as np
import pytest

from ovs_jax.text import cache
from ovs_jax.text.cache import Store, cache_root

ROOT = pathlib.Path(__file__).parents[2]


def rows(names, *, width=4):
  """Rows of length 1 that depend on the name alone."""
  found = {}
  for name in names:
    draw = np.random.default_rng(list(name.encode('utf-8', 'replace')))
    row = draw.normal(size=width).astype(np.float32)
    found[name] = row / np.linalg.norm(row)
  return found


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
  """Lets every test warn again."""
  monkeypatch.setattr(cache, '_warned', set())


@pytest.fixture
def store(tmp_path):
  return Store(tmp_path / 'store', width=4)


def shards(store):
  return sorted(p for p in store.directory.iterdir() if p.name[0] != '.')


def same(got, expected):
  assert set(got) == set(expected)
  for name, row in expected.items():
    np.testing.assert_array_equal(got[name], row)


class TestRoot:
  @pytest.fixture(autouse=True)
  def home(self, monkeypatch):
    monkeypatch.setenv('HOME', '/home/me')
    for name in ('XDG_CACHE_HOME', cache.VARIABLE):
      monkeypatch.delenv(name, raising=False)

  def test_default(self):
    assert cache_root() == pathlib.Path('/home/me/.cache/ovs_jax/text')

  def test_xdg(self, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', '/xdg')
    assert cache_root() == pathlib.Path('/xdg/ovs_jax/text')
    monkeypatch.setenv('XDG_CACHE_HOME', 'relative')
    assert cache_root() == pathlib.Path('/home/me/.cache/ovs_jax/text')

  def test_variable_and_argument(self, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', '/xdg')
    monkeypatch.setenv(cache.VARIABLE, '~/mine')
    assert cache_root() == pathlib.Path('/home/me/mine')
    assert cache_root('/given') == pathlib.Path('/given')
    assert cache_root('off') is None
    monkeypatch.setenv(cache.VARIABLE, 'off')
    assert cache_root() is None
    assert cache_root('/given') == pathlib.Path('/given')
    monkeypatch.setenv(cache.VARIABLE, '')
    assert cache_root() == pathlib.Path('/xdg/ovs_jax/text')
    with pytest.raises(ValueError, match='text cache is blank'):
      cache_root('')


class TestStore:
  def test_what_is_added_comes_back(self, store):
    names = ['red ball', 'toilet, can', '道路', 'half \udc80 name', '']
    assert store.read(names) == {}
    store.add(rows(names))
    same(store.read(names[::-1]), rows(names))
    same(store.read(['sky', 'red ball', 'Red ball']), rows(['red ball']))
    assert store.read([]) == {} and len(shards(store)) == 1

  def test_several_shards(self, store):
    store.add(rows(['a', 'b']))
    store.add({})
    store.add(rows(['c']))
    assert len(shards(store)) == 2
    same(store.read(['a', 'c']), rows(['a', 'c']))

  def test_small_shards_are_merged(self, store):
    names = [f'name {i}' for i in range(40)]
    for name in names:
      store.add(rows([name]))
    assert len(shards(store)) < cache._MANY
    same(store.read(names), rows(names))

  def test_large_shards_stay(self, store, monkeypatch):
    monkeypatch.setattr(cache, '_SMALL', 1)
    for i in range(20):
      store.add(rows([f'name {i}']))
    assert len(shards(store)) == 20

  def test_leftovers_of_the_killed_are_removed(self, store):
    store.directory.mkdir()
    for name, age in (('.old.tmp.npz', 7200), ('.new.tmp.npz', 10)):
      path = store.directory / name
      path.write_bytes(b'half')
      os.utime(path, (path.stat().st_mtime - age,) * 2)
    for i in range(cache._MANY):
      store.add(rows([f'name {i}']))
    hidden = [p.name for p in store.directory.iterdir() if p.name[0] == '.']
    assert hidden == ['.new.tmp.npz']

  def test_a_shard_that_is_merged_meanwhile(self, store, monkeypatch):
    store.add(rows(['a']))
    store.add(rows(['b']))
    real, calls = np.load, []

    def load(path, **options):
      calls.append(path)
      if len(calls) == 1:  # another process merges both
        old = shards(store)
        store.write(rows(['a', 'b']))
        for shard in old:
          shard.unlink()
      return real(path, **options)

    monkeypatch.setattr(np, 'load', load)
    same(store.read(['a', 'b']), rows(['a', 'b']))

  def test_a_file_that_its_writer_renames_is_no_leftover(
    self, tmp_path: pathlib.Path
  ) -> None:
    (tmp_path / '.gone.npz').symlink_to(tmp_path / 'renamed')  # listed, and not there
    assert Store(tmp_path, width=4)._leftovers() == []

  def test_two_processes_at_once(self, store):
    code = (
      'import sys; sys.path.insert(0, "tests/text")\n'
      'from test_cache import Store, rows\n'
      'store = Store(sys.argv[1], width=4)\n'
      'for i in range(60):\n'
      '  name = f"{sys.argv[2]} {i}"\n'
      '  store.add(rows([name]))\n'
      '  assert name in store.read([name])\n'
    )
    writers = [
      subprocess.Popen(
        [sys.executable, '-W', 'error', '-c', code, str(store.directory), who],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
      )
      for who in ('one', 'two', 'three')
    ]
    assert [writer.communicate()[1] for writer in writers] == ['', '', '']
    names = [f'{who} {i}' for who in ('one', 'two', 'three') for i in range(60)]
    with warnings.catch_warnings():
      warnings.simplefilter('error')
      same(store.read(names), rows(names))
    assert not [p for p in store.directory.iterdir() if p.name[0] == '.']


def rewrite(path, **changes):
  """Writes a shard with other content, but right checksums."""
  with np.load(path) as shard:
    arrays = {**shard, **changes}
  np.savez(path, **{key: value for key, value in arrays.items() if value is not None})


def text(value):
  return np.frombuffer(json.dumps(value).encode(), np.uint8)


def flip(path):
  data = bytearray(path.read_bytes())
  at = data.index(rows(['a'])['a'].tobytes())
  data[at] ^= 1
  path.write_bytes(data)


DAMAGE = {
  'truncated': lambda path: path.write_bytes(path.read_bytes()[:-60]),
  'empty': lambda path: path.write_bytes(b''),
  'other file': lambda path: path.write_bytes(b'hello'),
  'zeros': lambda path: path.write_bytes(bytes(path.stat().st_size)),
  'array': lambda path: np.save(path.open('wb'), np.zeros(3)),
  'wrong checksum': flip,
  'wrong width': lambda path: rewrite(path, rows=np.eye(2, 5, dtype=np.float32)),
  'wrong count': lambda path: rewrite(path, rows=np.eye(3, 4, dtype=np.float32)),
  'wrong type': lambda path: rewrite(path, rows=np.eye(2, 4)),
  'wrong length': lambda path: rewrite(path, rows=np.ones((2, 4), np.float32)),
  'not a number': lambda path: rewrite(path, rows=np.full((2, 4), np.float32('nan'))),
  'no rows': lambda path: rewrite(path, rows=None),
  'no names': lambda path: rewrite(path, names=None),
  'no JSON': lambda path: rewrite(path, names=text(['a', 'b'])[:-1]),
  'a name for names': lambda path: rewrite(path, names=text('ab')),
  'a number for names': lambda path: rewrite(path, names=text(7)),
}


class TestDamage:
  @pytest.mark.parametrize('damage', DAMAGE.values(), ids=DAMAGE)
  def test_is_named_and_removed(self, store, damage):
    store.add(rows(['a', 'b']))
    (bad,) = shards(store)
    damage(bad)
    store.add(rows(['c']))
    with pytest.warns(RuntimeWarning, match='is damaged .* embedded anew') as warned:
      same(store.read(['a', 'c']), rows(['c']))
    ours = [w for w in warned if w.category is RuntimeWarning]  # not NumPy's
    assert len(ours) == 1 and str(bad) in str(ours[0].message)
    assert bad not in shards(store)
    store.add(rows(['a', 'b']))
    with warnings.catch_warnings():
      warnings.simplefilter('error')
      same(store.read(['a', 'b', 'c']), rows(['a', 'b', 'c']))

  def test_reasons(self, store):
    for damage, reason in (
      ('wrong checksum', 'Bad CRC-32'),
      ('wrong width', r'it holds float32 \(2, 5\), expected float32 \(2, 4\)'),
      ('wrong length', 'not of length 1'),
    ):
      store.add(rows(['a', 'b']))
      DAMAGE[damage](shards(store)[0])
      with pytest.warns(RuntimeWarning, match=reason):
        store.read(['a'])

  def test_unreadable(self, store):
    (store.directory / 'shard.npz').mkdir(parents=True)  # root may read any file
    store.add(rows(['a']))
    with pytest.warns(RuntimeWarning, match='cannot read .*shard.npz.*Is a directory'):
      same(store.read(['a', 'b']), rows(['a']))

  def test_folder_is_unreadable(self, store, monkeypatch):
    def listdir(_):
      raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, 'listdir', listdir)
    with pytest.warns(RuntimeWarning, match='cannot read .*Permission denied') as found:
      assert store.read(['a']) == {} == store.read(['a'])
    assert len(found) == 1

  @pytest.mark.parametrize('code', [errno.ENOSPC, errno.EROFS, errno.EACCES])
  def test_full_or_read_only_warns_once(self, store, monkeypatch, code):
    def savez(path, **_):
      pathlib.Path(path).write_bytes(b'half')
      raise OSError(code, os.strerror(code))

    monkeypatch.setattr(np, 'savez', savez)
    with pytest.warns(RuntimeWarning, match=os.strerror(code)) as found:
      store.add(rows(['a']))
      store.add(rows(['b']))
    assert len(found) == 1 and cache.VARIABLE in str(found[0].message)
    assert list(store.directory.iterdir()) == []

  def test_a_file_is_in_the_way(self, tmp_path):
    (tmp_path / 'file').write_text('')
    store = Store(tmp_path / 'file' / 'store', width=4)
    with pytest.warns(RuntimeWarning, match='text cache') as found:
      assert store.read(['a']) == {}
      store.add(rows(['a']))
    assert 1 <= len(found) <= 2


def test_ten_thousand_names(store):
  names = [f'name {i}' for i in range(10_000)]
  store.width = 512
  matrix = np.zeros((len(names), 512), np.float32)
  matrix[np.arange(len(names)), np.arange(len(names)) % 512] = 1
  store.add(dict(zip(names, matrix, strict=True)))
  assert len(shards(store)) == 1
  same(store.read(names), dict(zip(names, matrix, strict=True)))
