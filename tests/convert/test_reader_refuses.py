"""Checkpoints that are damaged, mistaken or malicious: one clear refusal each."""

import io
import os
import pickle
import shutil
import struct
import zipfile
import zlib

import numpy as np
import pytest
import torch_files as files
from test_reader import write_safetensors

from ovs_jax.convert import storage
from ovs_jax.convert.reader import read
from ovs_jax.convert.unpickle import RefusedPickle, Unpickler

X = np.arange(6, dtype=np.float32)


def good():
  return files.view(files.storage('0', np.float32, 6), (2, 3))


def write(path, root, stores=None, **more):
  return files.write_zip(path, root, {'0': X} if stores is None else stores, **more)


class Runs:
  """Would run a command when Python unpickles it."""

  def __init__(self, marker):
    self.marker = marker

  def __reduce__(self):
    return os.system, (f'touch {self.marker}',)


@pytest.mark.parametrize('container', ['zip', 'stream', 'pickle', 'script'])
def test_commands_in_pickles_are_not_run(tmp_path, container):
  marker = tmp_path / 'marker'
  data = pickle.dumps({'w': Runs(marker)}, protocol=2)
  pickle.loads(data)
  assert marker.exists()  # the attack works where it can
  marker.unlink()
  path = tmp_path / 'model.pt'
  if container == 'pickle':
    path.write_bytes(data)
  elif container == 'stream':
    start = files.dumps(files.MAGIC) + files.dumps(files.PROTOCOL) + files.dumps({})
    path.write_bytes(start + data + files.dumps([]))
  else:
    entries = {'code/__torch__.py': ''} if container == 'script' else {}
    write(path, data, entries=entries)
  with pytest.raises(RefusedPickle, match='names posix.system.*Nothing of it was run'):
    read(path)
  assert not marker.exists()


@pytest.mark.parametrize(
  'name',
  [
    'builtins.eval',
    'builtins.getattr',
    'builtins.__import__',
    'os.system',
    'torch.load',
    'torch.storage._load_from_bytes',
    'torch._utils.os.system',
    'torch._utils._rebuild_sparse_tensor',
    'torch.hub.load',
    '__torch__.os.system',
    'numpy.load',
    'numpy.core.multiarray.fromfile',
    'collections.namedtuple',
    'codecs.encode',
    'operator.attrgetter',
    'functools.partial',
    'open_clip.model.CLIP',
  ],
)
def test_other_names_are_refused_by_their_full_name(tmp_path, name):
  for use in (files.Global(name), files.Call(name, ('1',)), files.Call(name, new=True)):
    path = write(tmp_path / 'a.pt', {'w': good(), 'x': [(use,)]})
    with pytest.raises(RefusedPickle, match=f'besides tensors it names {name}. '):
      read(path)


def test_all_refused_names_are_in_one_message(tmp_path):
  names = {'a': files.Global('os.system'), 'b': files.Call('builtins.eval', ('1',))}
  path = write(tmp_path / 'a.pt', {'w': good(), **names})
  with pytest.raises(RefusedPickle, match='names builtins.eval, os.system. '):
    read(path)


def test_names_of_newer_pickles_are_checked_too(tmp_path):
  path = tmp_path / 'a.pkl'
  path.write_bytes(b'\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.')
  with pytest.raises(RefusedPickle, match='builtins.eval'):
    read(path)
  path.write_bytes(b'\x80\x02(S"1"\nibuiltins\neval\n.')
  with pytest.raises(RefusedPickle, match='builtins.eval'):
    read(path)
  path.write_bytes(b'\x80\x02(c__builtin__\neval\nS"1"\no.')
  with pytest.raises(RefusedPickle, match='builtins.eval'):
    read(path)


def test_classes_of_torchscript_are_never_more_than_data(tmp_path):
  module = files.module('os.system', w=good(), __class__=1, __reduce__=2)
  path = write(tmp_path / 'a.pt', module, entries={'code/__torch__/os.py': 'boom('})
  checkpoint = read(path)
  np.testing.assert_array_equal(checkpoint.tensors['w'], X.reshape(2, 3))
  assert checkpoint.skipped == {'__class__': '1', '__reduce__': '2'}


@pytest.mark.parametrize(
  'use, message',
  [
    (files.Call('_codecs.encode', ('a', 'zip')), 'of Latin-1 text only'),
    (files.Call('builtins.bytearray', (1 << 40,)), 'something else than bytes'),
    (files.Call('torch.float32', ()), 'torch.float32 is called'),
    (files.Call('torch.FloatStorage', (9,)), 'torch.FloatStorage is called'),
    (files.Call('torch._utils._rebuild_tensor_v2', ('0', 0, (), ())), 'no storage'),
    (files.Call('torch._utils._rebuild_tensor_v2', ()), 'missing a? ?.*required'),
    (files.Call('torch.Size', ((1,),), {'x': 1}), 'something that takes none'),
    (files.Call('torch._utils._rebuild_parameter', (1, 1, 1)), 'has no tensor'),
    (files.Call('numpy.dtype', (files.Global('numpy.ndarray'),)), 'than its code'),
    (files.Outside('0'), 'not identified by five values'),
    (files.Outside(('module', 'a', 'b', 'c', 'd')), 'else than a storage'),
    (files.Outside(('storage', files.Global('torch.Size'), '0', '', 1)), 'else than'),
    (files.storage('0', np.float32, -1), 'no name or no size'),
  ],
)
def test_allowed_names_do_nothing_else(tmp_path, use, message):
  path = write(tmp_path / 'a.pt', {'w': good(), 'x': use})
  with pytest.raises(ValueError, match=f'a.pt is damaged: at byte .*{message}'):
    read(path)


def test_states_do_not_reach_python_objects():
  # A state for a function or a class that the reader itself uses.
  for name in ('torch._utils._rebuild_tensor_v2', 'torch.Tensor', 'numpy.ndarray'):
    state = (None, {'__defaults__': (), '__call__': 1})
    data = files.dumps(files.Global(name))[:-1] + files.dumps(state)[2:-1] + b'b.'
    with pytest.raises(ValueError, match='something that takes none'):
      Unpickler(io.BytesIO(data), size=len(data), where='x').load()


@pytest.mark.parametrize(
  'data', [b'0.', b'R.', b'h\5.', b't.', b'\x82\1.', b'u.', b'Qa']
)
def test_nonsense_pickles(data):
  data = b'\x80\x02' + data
  with pytest.raises(ValueError, match='x is damaged: at byte'):
    Unpickler(io.BytesIO(data), size=len(data), where='x').load()


def test_self_referring_containers_end(tmp_path):
  path = tmp_path / 'a.pkl'
  path.write_bytes(b'\x80\x02}q\0X\5\0\0\0modelh\0s.')  # d['model'] = d
  with pytest.raises(ValueError, match='no state dict in its tensors'):
    read(path)
  cyclic = b'\x80\x02c__torch__\nM\n)\x81q\0}(X\1\0\0\0ah\0X\1\0\0\0bh\0ub.'
  path = write(tmp_path / 'b.pt', cyclic, entries={'code/__torch__.py': ''})
  with pytest.raises(ValueError, match='contain each other without end'):
    read(path)
  # Of tuples within tuples the hash takes exponential time.
  path = tmp_path / 'c.pkl'
  path.write_bytes(b'\x80\x02}X\1\0\0\0a' + b'2\x86' * 90 + b'K\1s.')
  with pytest.raises(ValueError, match='no state dict'):
    read(path)


@pytest.mark.parametrize(
  'view, message',
  [
    (dict(shape=(7,)), 'reaches beyond its storage .0. of 24 bytes'),
    (dict(shape=(2, 3), offset=1), 'reaches beyond its storage'),
    (dict(shape=(2, 3), strides=(1 << 70, 1)), 'reaches beyond its storage'),
    (dict(shape=(2,), strides=(-1,), offset=3), 'negative size, stride or offset'),
    (dict(shape=(2,), offset=-1), 'negative size, stride or offset'),
    (dict(shape=(-2, 3)), 'negative size, stride or offset'),
    (dict(shape=(2, 3), strides=(1,)), 'has 2 sizes and 1 strides'),
    (dict(shape=(1 << 30,), strides=(0,)), 'repeats 4 stored bytes to 4294967296'),
    (dict(shape=(1 << 60, 0), strides=(0, 0)), 'impossible shape'),
  ],
)
def test_tensors_that_do_not_fit_their_storage(tmp_path, view, message):
  bad = files.view(files.storage('0', np.float32, 6), **view)
  path = write(tmp_path / 'a.pt', {'fine': good(), 'bad.weight': bad})
  with pytest.raises(
    ValueError, match=f'1 of its 2 tensors .*\n *bad.weight .*{message}'
  ):
    read(path)


def test_storages_that_are_missing_or_short(tmp_path):
  path = write(tmp_path / 'a.pt', {'w': good()}, {})
  with pytest.raises(ValueError, match="w has its values in storage '0', which is mis"):
    read(path)
  write(path, {'w': good()}, {'0': X[:5]})
  with pytest.raises(ValueError, match='of 24 bytes, of which 20 are there'):
    read(path)
  path = files.write_stream(tmp_path / 'b.pt', {'w': good()}, {'0': X[:5]})
  with pytest.raises(ValueError, match='b.pt is cut off'):
    read(path)
  path.write_bytes(path.read_bytes() + bytes(100))
  with pytest.raises(ValueError, match="storage '0' has 5 elements, its tensors exp"):
    read(path)


@pytest.mark.parametrize('fraction', [0.05, 0.4, 0.9, 0.999])
@pytest.mark.parametrize('container', ['zip', 'stream', 'safetensors', 'pickle'])
def test_truncated_files(tmp_path, container, fraction):
  path = tmp_path / 'model.bin'
  arrays = {'w': np.arange(2000, dtype=np.float32), 'v': np.ones(30, np.float32)}
  if container == 'safetensors':
    write_safetensors(path, arrays)
  elif container == 'pickle':
    path.write_bytes(pickle.dumps({'model': arrays}, protocol=2))
  else:
    writer = files.write_zip if container == 'zip' else files.write_stream
    writer(path, *files.tensors(arrays))
  assert read(path).tensors['v'].sum() == 30
  data = path.read_bytes()
  path.write_bytes(data[: int(len(data) * fraction)])
  with pytest.raises(ValueError, match='model.bin .*(cut off|more than|end at).*again'):
    read(path)


def test_damaged_directories_of_archives(tmp_path):
  path = write(tmp_path / 'a.pt', {'w': good()})
  data = path.read_bytes()
  path.write_bytes(data.replace(b'PK\3\4', b'PK\3\5').replace(b'PK\3\5', b'PK\3\4', 1))
  with pytest.raises(ValueError, match='no entry where its directory says data/0 is'):
    read(path)
  with zipfile.ZipFile(path, 'a') as archive, pytest.warns(UserWarning):
    archive.writestr('archive/data.pkl', b'')
  with pytest.raises(ValueError, match='encrypted .none. or occur twice .1.'):
    read(path)
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('a/data.pkl', files.dumps({'w': good()}))
    archive.writestr('a/data/0', X.tobytes())
  data = bytearray(path.read_bytes())
  data[36:44] = b'\xff' * 8  # within what is compressed
  path.write_bytes(data)
  with pytest.raises(ValueError, match='begins like a zip archive .* damaged'):
    read(path)


def test_zip_bombs_are_not_unpacked(tmp_path):
  path = tmp_path / 'a.pt'
  zeros = np.zeros(2**23, np.float32)
  root = {'w': files.view(files.storage('0', np.float32, zeros.size), zeros.shape)}
  files.write_zip(path, root, {'0': zeros}, compression=zipfile.ZIP_DEFLATED)
  assert path.stat().st_size < 2**20
  with pytest.raises(ValueError, match='a zip bomb and is not unpacked'):
    read(path)
  # Entries that share their bytes, or are larger than declared.
  write(path, {'w': good()})
  data = path.read_bytes()
  start = data.index(b'PK\1\2')
  sizes = struct.pack('<II', 2**30, 2**30)
  path.write_bytes(data[: start + 20] + sizes + data[start + 28 :])
  with pytest.raises(ValueError, match='declares entries of 10737'):
    read(path)


def test_other_kinds_of_archives(tmp_path):
  path = tmp_path / 'a.pt'
  for name, kind in (
    ('w.npy', 'a NumPy archive .*'),
    ('a/model.json', 'a TorchScript archive from before PyTorch 1.4'),
    ('a/.data/python_version', 'an archive of torch.package'),
    ('word/document.xml', 'a zip archive, but not of torch.save'),
  ):
    with zipfile.ZipFile(path, 'w') as archive:
      archive.writestr(name, b'x')
    with pytest.raises(ValueError, match=f'a.pt is {kind}: 0 entries data.pkl'):
      read(path)


@pytest.mark.parametrize(
  'data, message',
  [
    (b'', 'is empty'),
    (b'<!DOCTYPE html><html>', 'is a web page.*Download the file itself'),
    (b'\n<HTML>', 'is a web page'),
    (
      b'version https://git-lfs.github.com/spec/v1\n',
      'a Git LFS pointer.*git lfs pull',
    ),
    (b'{"a": 1}', 'is a JSON file'),
    (zlib.compress(b'x', wbits=31), 'is compressed.*Unpack it first'),
    (b'\x89HDF\r\n', 'is an HDF5 file'),
    (b'\x93NUMPY\1', 'is a NumPy array'),
    (b'sys_info'.ljust(257, b'\0') + b'ustar  ', 'is a tar archive.*save it anew'),
    (b'hello world', "begins with b'hello wo'.*are read"),
    (b'\x80\x02}.', 'no state dict in its tensors: its 0 entries'),
    (b'\x80\x02K\1.', 'it holds 1'),
  ],
)
def test_files_that_are_no_checkpoints(tmp_path, data, message):
  path = tmp_path / 'a.pt'
  path.write_bytes(data)
  with pytest.raises(ValueError, match=f'a.pt.*{message}'):
    read(path)


@pytest.mark.parametrize(
  'table, message',
  [
    ('{"w": {"dtype": "F32", "shape": [7], "data_offsets": [0, 24]}}', 'has 24 bytes'),
    ('{"w": {"dtype": "F33", "shape": [6], "data_offsets": [0, 24]}}', "type 'F33'"),
    ('{"w": {"dtype": "F32", "shape": [6], "data_offsets": [8, 32]}}', 'end at byte'),
    ('{"w": {"dtype": "F32", "shape": [-6], "data_offsets": [24, 0]}}', 'bytes'),
    ('{"w": {"dtype": "F32", "shape": [6]}}', 'data_offsets'),
    ('{"w": 1, "w": 2}', 'a name occurs twice'),
    ('{' * 100_000, 'cannot be read'),
    ('{"__metadata__": null}', 'cannot be read'),
    ('{"__metadata__": [1, 2]}', 'cannot be read'),
    (
      '{"w": {"dtype": "F32", "shape": [%s6], "data_offsets": [0, 24]}}'
      % ('1, ' * 100_000),
      'w has 100001 axes, more than 32',
    ),
  ],
)
def test_damaged_safetensors(tmp_path, table, message):
  path = tmp_path / 'a.safetensors'
  text = table.encode()
  path.write_bytes(struct.pack('<Q', len(text)) + text + X.tobytes())
  with pytest.raises(ValueError, match=f'a.safetensors is not a whole .*{message}'):
    read(path)


def test_safetensors_without_gaps_or_overlaps(tmp_path):
  path = tmp_path / 'a.safetensors'
  for start in (8, 16):
    row = '{"dtype": "F32", "shape": [3], "data_offsets": [%d, %d]}'
    text = f'{{"a": {row % (0, 12)}, "b": {row % (start, start + 12)}}}'.encode()
    path.write_bytes(struct.pack('<Q', len(text)) + text + bytes(start + 12))
    with pytest.raises(ValueError, match='overlap, or have gaps'):
      read(path)
  write_safetensors(path, {'a': X})
  with pytest.raises(ValueError, match='has no entries; omit key'):
    read(path, key='model')


def test_paths_that_cannot_be_read(tmp_path, monkeypatch):
  with pytest.raises(
    FileNotFoundError, match='nowhere.pt does not exist. Give the path'
  ):
    read(tmp_path / 'nowhere.pt')
  with pytest.raises(FileNotFoundError, match='has none of model.safetensors.*nothing'):
    read(tmp_path)
  path = write(tmp_path / 'a.pt', {'w': good()})

  def refuse(*args, **kwargs):
    raise PermissionError(13, 'Permission denied')

  monkeypatch.setattr(storage, 'open', refuse, raising=False)
  with pytest.raises(PermissionError, match='a.pt may not be read by this user; make'):
    read(path)
  monkeypatch.undo()
  (tmp_path / 'config.json').write_text('[1]')
  shutil.move(path, tmp_path / 'pytorch_model.bin')
  with pytest.raises(ValueError, match='config.json holds no settings by name'):
    read(tmp_path)


def test_lists_within_lists_are_not_written_out(tmp_path):
  # Each list has the one before twice: text of it would have 2**40 parts.
  nested = b']q\0' + b''.join(b'](h%ch%ceq%c' % (i, i, i + 1) for i in range(40))
  start = files.dumps(files.MAGIC) + files.dumps(files.PROTOCOL) + files.dumps({})
  keys = b'\x80\x02](' + nested + b'e.'
  path = tmp_path / 'a.pt'
  path.write_bytes(start + files.dumps({'w': 1}) + keys)
  with pytest.raises(ValueError, match='a.pt lists a storage .* that no tensor has'):
    read(path)
  path.write_bytes(files.dumps(files.MAGIC) + b'\x80\x02' + nested + b'.' + start)
  with pytest.raises(ValueError, match='a.pt is of version .* was expected'):
    read(path)
