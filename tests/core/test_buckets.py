"""Addresses of object stores, on an emulator of one."""

import importlib.util
import os
import pathlib
from collections.abc import Iterator

import numpy as np
import pytest

from ovs_jax.core import buckets, checkpoint, files, run_checkpoints


@pytest.fixture(scope='module')
def s3() -> Iterator[None]:
  """Starts an emulator of Amazon's store, with one bucket."""
  import boto3
  from moto.server import ThreadedMotoServer

  server = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False)
  server.start()
  host, port = server.get_host_and_port()
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('AWS_ENDPOINT_URL', f'http://{host}:{port}')
    for name in ('AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY'):
      patch.setenv(name, 'any')
    patch.setenv('AWS_DEFAULT_REGION', 'us-east-1')
    boto3.client('s3').create_bucket(Bucket='bucket')
    yield
  server.stop()


@pytest.fixture(params=['emulator', pytest.param('s3', marks=pytest.mark.slow)])
def bucket(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> str:
  """Returns the address of an empty folder, in each kind of store."""
  request.getfixturevalue(request.param)
  scheme = 'gs' if request.param == 'emulator' else 's3'
  return f'{scheme}://bucket/{tmp_path.name}'


class TestPlace:
  def test_knows_paths_from_addresses(self, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('HOME', '/home/me')
    assert files.place('runs/a') == pathlib.Path('runs/a')
    assert files.place('~/a') == files.local('~/a') == pathlib.Path('/home/me/a')
    for path in ('c:/a', 'run:1/a'):
      assert files.place(path) == pathlib.Path(path)
    address = files.place('gs://bucket/a')
    assert not isinstance(address, pathlib.Path)
    assert (
      str(address / 'b.txt') == os.fspath(address / 'b.txt') == 'gs://bucket/a/b.txt'
    )
    assert files.place(address) == files.absolute(address) == files.real(address)
    assert files.absolute(files.place('a')) == pathlib.Path.cwd() / 'a'

  @pytest.mark.parametrize(
    ('given', 'schemes', 'message'),
    [
      ('s4://bucket/a', ('gs', 's3'), r'only addresses of gs://, s3:// and paths'),
      ('s3://bucket/a', ('gs',), r's3://bucket/a: only addresses of gs:// and paths'),
      ('gs://bucket/a', (), r'gs://bucket/a: only paths of this machine'),
      ('gs:/bucket/a', ('gs',), r'gs:/bucket/a is no address; write it as gs://bucket'),
      ('gs:///a', ('gs',), r'gs:///a is no address'),
      ('gs:bucket/a', ('gs',), r'gs:bucket/a is no address; write it as gs://bucket'),
      ('S3:bucket', (), r'S3:bucket: only paths of this machine'),
      ('gs://bucket/a/../b', ('gs',), r'without "\.\."'),
      (pathlib.Path('gs://bucket/a'), ('gs',), r'gs:/bucket/a is no address'),
    ],
  )
  def test_refuses_others_in_a_line(
    self, given: str, schemes: tuple[str, ...], message: str
  ) -> None:
    with pytest.raises(ValueError, match=message) as caught:
      files.place(given, schemes=schemes)
    assert '\n' not in str(caught.value)

  def test_names_the_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(ValueError, match='needs the package gcsfs; .* pip install gcs'):
      files.place('gs://bucket/a')

  def test_a_bucket_that_is_not_there(self, emulator: object) -> None:
    with pytest.raises(OSError, match='gs://nobody/a.*check the name of the bucket'):
      files.check_writable('gs://nobody/a', megabytes=1)


class TestFiles:
  def test_are_written_and_read(self, bucket: str) -> None:
    root = files.check_writable(bucket, megabytes=10**9)  # no disk to be full
    assert not root.exists()
    files.write_json(root / 'a' / 'b.json', {'x': 1})
    files.write_json(root / 'a' / 'b.json', {'x': 2})
    assert files.read_json(f'{bucket}/a/b.json') == {'x': 2}
    assert files.below(root) == [('a/b.json', 13)]
    assert files.modified(root / 'a' / 'b.json') > 1.7e9
    files.remove(root / 'a')
    files.remove(root / 'nothing')
    assert files.below(root) == []

  def test_an_error_leaves_what_was_there(self, bucket: str) -> None:
    path = files.place(bucket) / 'a.npz'
    files.write_text(path, 'old')
    with pytest.raises(KeyError):
      with files.atomic_path(path) as temporary:
        assert temporary.suffix == '.npz'
        temporary.write_text('half')
        raise KeyError
    assert path.read_text() == 'old'
    assert not temporary.parent.exists()

  def test_folders_are_replaced_and_their_mark_comes_last(
    self, bucket: str, monkeypatch: pytest.MonkeyPatch
  ) -> None:
    sent: list[str] = []
    upload = buckets.upload
    monkeypatch.setattr(
      buckets, 'upload', lambda a, b, names: sent.extend(names) or upload(a, b, names)
    )
    for name in ('old', 'new'):
      with files.atomic_path(f'{bucket}/a', last='mark') as temporary:
        (temporary / 'in').mkdir(parents=True)
        for file in ('mark', f'in/{name}', 'z'):
          (temporary / file).write_text(name)
    assert [name for name, _ in files.below(files.place(bucket))] == [
      'a/in/new',
      'a/mark',
      'a/z',
    ]
    assert sent[2::3] == ['mark', 'mark']

  def test_copies_are_files_of_this_machine(self, bucket: str) -> None:
    root = files.place(bucket)
    for name in ('a', 'b/c'):
      files.write_text(root / name, name)
    copy = buckets.Copy(root)
    assert [name for name, _ in files.below(copy.path)] == ['a', 'b/c']
    one = buckets.Copy(root / 'b' / 'c').path
    with pytest.raises(FileNotFoundError, match='nothing does not exist'):
      buckets.Copy(root / 'nothing')
    assert not one.exists()  # with its copy
    path = copy.path
    del copy
    assert not path.exists()
    assert buckets.Copy(pathlib.Path('here')).path == pathlib.Path('here')

  def test_a_mirror_sends_what_is_new(self, bucket: str) -> None:
    root = files.place(bucket)
    files.write_text(root / 'log', 'one\n')
    mirror = buckets.Mirror(root)
    mirror.fetch('log')
    mirror.fetch('nothing')
    with (mirror.path / 'log').open('a') as log:
      log.write('two\n')
    mirror.send()
    assert (root / 'log').read_text() == 'one\ntwo\n'
    files.write_text(root / 'log', 'of another')
    mirror.send()
    assert (root / 'log').read_text() == 'of another'


def params(value: int) -> dict[str, np.ndarray]:
  return {'w': np.full((3, 4), value, np.float32)}


class TestModel:
  def test_is_saved_replaced_and_read(self, bucket: str) -> None:
    for value in (1, 2):
      checkpoint.save_model(bucket, params(value), {'model': 'clip', 'value': value})
      found, config = checkpoint.load_model(bucket, kind='clip')
      np.testing.assert_array_equal(found['w'], params(value)['w'])
      assert config['value'] == value
    assert {name.split('/')[0] for name, _ in files.below(files.place(bucket))} == {'1'}
    assert str(checkpoint.resolve(bucket)) == f'{bucket}/1'

  def test_replaces_one_that_was_copied_there(
    self, bucket: str, tmp_path: pathlib.Path
  ) -> None:
    checkpoint.save_model(tmp_path / 'a', params(1), {'model': 'clip'})
    names = [name for name, _ in files.below(tmp_path / 'a')]
    buckets.upload(tmp_path / 'a', files.place(bucket), names)
    assert str(checkpoint.resolve(bucket)) == bucket
    before = checkpoint.version(bucket)
    checkpoint.save_model(bucket, params(2), {'model': 'clip'})
    np.testing.assert_array_equal(checkpoint.load_model(bucket)[0]['w'], params(2)['w'])
    assert checkpoint.version(bucket) != before

  def test_other_bytes_than_were_written_are_noticed(
    self, bucket: str, tmp_path: pathlib.Path
  ) -> None:
    checkpoint.save_model(bucket, params(1), {'model': 'clip'})
    assert [str(p) for p in checkpoint.verify(bucket)] == [f'{bucket}/0']
    item = files.place(f'{bucket}/0/params')
    sizes = dict(files.below(item))
    largest = max((n for n in sizes if n != 'contents.json'), key=sizes.__getitem__)
    content = bytearray((item / largest).read_bytes())
    content[len(content) // 2] ^= 1
    (item / largest).write_bytes(bytes(content))
    wanted = f'{item / largest} holds other bytes than were written'
    with pytest.raises(ValueError, match=wanted):
      checkpoint.load_model(bucket)
    with pytest.raises(ValueError, match=wanted):
      checkpoint.verify(bucket)

  def test_tells_what_is_missing(self, bucket: str) -> None:
    with pytest.raises(FileNotFoundError, match=f'{bucket} not found'):
      checkpoint.load_model(bucket)
    files.write_text(f'{bucket}/other', '')
    with pytest.raises(ValueError, match='is not a checkpoint'):
      checkpoint.load_model(bucket)
    with pytest.raises(ValueError, match='s3://bucket/a: only addresses of gs://'):
      run_checkpoints.RunCheckpoints('s3://bucket/a', keep=1, config={})
