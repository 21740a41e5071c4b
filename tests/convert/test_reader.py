"""Checkpoints of other programs: every container and layout, read with right values."""

import hashlib
import json
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest
import torch_files as files

from ovs_jax.convert.reader import read

ARRAYS = {
  'bool': np.array([True, False, True]),
  'uint8': np.array([[0, 255]], np.uint8),
  'int8': np.array([-128, 127], np.int8),
  'int16': np.array([-300, 300], np.int16),
  'int32': np.array([[1 << 30]], np.int32),
  'int64': np.array([1 << 40, -1]),
  'half': np.array([[0.5, -2.25], [65504, 1e-7]], np.float16),
  'bf16': np.array([1.5, -3e38], ml_dtypes.bfloat16),
  'float': np.arange(6, dtype=np.float32).reshape(1, 2, 3),
  'double': np.array([1 / 3]),
  'scalar': np.array(3.5, np.float32),
  'empty': np.zeros((0, 4), np.float32),
}


def widened(array):
  narrow = array.dtype in (np.float16, ml_dtypes.bfloat16)
  return array.astype(np.float32) if narrow else array


def assert_equal(found, expected):
  assert list(found) == list(expected)
  for name, array in expected.items():
    want = widened(array)
    assert (found[name].dtype, found[name].shape) == (want.dtype, want.shape), name
    np.testing.assert_array_equal(found[name], want, err_msg=name)
    assert found[name].flags.c_contiguous and found[name].flags.writeable


def write_safetensors(path, arrays, **metadata):
  names = {'float64': 'F64', 'float32': 'F32', 'float16': 'F16', 'bfloat16': 'BF16'}
  names |= {'bool': 'BOOL', 'uint8': 'U8', 'int8': 'I8', 'int16': 'I16'}
  names |= {'int32': 'I32', 'int64': 'I64'}
  table, data = {'__metadata__': metadata} if metadata else {}, b''
  for name, array in arrays.items():
    offsets = [len(data), len(data) + array.nbytes]
    dtype = names[str(array.dtype)]
    table[name] = {'dtype': dtype, 'shape': array.shape, 'data_offsets': offsets}
    data += array.tobytes()
  text = json.dumps(table).encode()
  path.write_bytes(struct.pack('<Q', len(text)) + text + data)
  return path


@pytest.mark.parametrize('prefix', ['archive/', 'ViT-B 32.a/', ''])
@pytest.mark.parametrize('compression', [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_archives_of_any_name(tmp_path, prefix, compression):
  root, stores = files.tensors(ARRAYS)
  path = tmp_path / 'model.pt'
  files.write_zip(path, root, stores, prefix=prefix, compression=compression)
  checkpoint = read(path)
  assert_equal(checkpoint.tensors, ARRAYS)
  assert checkpoint.container == 'PyTorch zip archive'
  assert checkpoint.tensors.dtypes['half'] == np.float16
  assert checkpoint.tensors.shapes['float'] == (1, 2, 3)
  assert checkpoint.config is None
  digest = hashlib.sha256(path.read_bytes()).hexdigest()
  assert checkpoint.metadata.sha256 == digest
  assert checkpoint.metadata.files[0].bytes == path.stat().st_size


def test_big_endian_archives(tmp_path):
  root, stores = files.tensors(ARRAYS)
  swapped = {}
  for key, array in stores.items():
    units = array.reshape(-1).view(f'u{array.itemsize}') if array.size else array
    swapped[key] = units.byteswap()
  path = tmp_path / 'model.pt'
  files.write_zip(path, root, swapped, entries={'byteorder': 'big'})
  assert_equal(read(path).tensors, ARRAYS)
  files.write_zip(path, root, swapped, entries={'byteorder': 'middle'})
  with pytest.raises(ValueError, match="byte order 'middle', little or big"):
    read(path)


def test_stream_of_before_version_1_6(tmp_path):
  root, stores = files.tensors(ARRAYS)
  path = files.write_stream(tmp_path / 'old.pth', root, stores)
  checkpoint = read(path)
  assert_equal(checkpoint.tensors, ARRAYS)
  assert checkpoint.container == 'PyTorch stream'


def test_stream_with_views_of_storages(tmp_path):
  values = np.arange(10, dtype=np.float32)
  part = files.storage('7', np.float32, 10, ('view', 4, 3))
  whole = files.storage('7', np.float32, 10, None)
  root = {'part': files.view(part, (2,), offset=1), 'all': files.view(whole, (10,))}
  path = files.write_stream(tmp_path / 'old.pth', root, {'7': values})
  assert_equal(read(path).tensors, {'part': values[5:7], 'all': values})


@pytest.mark.parametrize('stream', [False, True])
def test_layouts_within_a_shared_storage(tmp_path, stream):
  x = np.arange(24, dtype=np.float32).reshape(4, 6)
  store = files.storage('0', np.float32, 24)
  root = {
    'all': files.view(store, (4, 6)),
    'again': files.view(store, (4, 6)),
    'transposed': files.view(store, (6, 4), (1, 6)),
    'part': files.view(store, (2, 2), (12, 2), 7),
    'repeated': files.view(store, (3, 2), (0, 1), 5),
    'number': files.view(store, (), (), 23),
  }
  expected = {
    'all': x,
    'again': x,
    'transposed': x.T,
    'part': x[1::2, 1:5:2],
    'repeated': np.array([[5, 6]] * 3, np.float32),
    'number': x[3, 5],
  }
  write = files.write_stream if stream else files.write_zip
  assert_equal(read(write(tmp_path / 'a.pt', root, {'0': x})).tensors, expected)


def test_ways_to_rebuild_tensors(tmp_path):
  x = np.arange(4, dtype=np.float32)
  plain = files.view(files.storage('0', np.float32, 4), (4,))
  untyped = files.storage('0', 'torch.storage.UntypedStorage', 16)
  hooks = files.ordered()
  third = (untyped, 0, (4,), (1,), False, hooks, files.Global('torch.float32'))
  parameter = files.Call('torch._utils._rebuild_parameter', (plain, True, hooks))
  rebuild = files.Global('torch._utils._rebuild_tensor_v2')
  kind = files.Global('torch.nn.parameter.Parameter')
  root = {
    'parameter': parameter,
    'state': files.Call(
      'torch._utils._rebuild_parameter_with_state', (plain, True, hooks, {'note': 1})
    ),
    'third': files.Call('torch._utils._rebuild_tensor_v3', third),
    'typed': files.Call(
      'torch._tensor._rebuild_from_type_v2', (rebuild, kind, plain.args, {'note': 1})
    ),
  }
  path = files.write_zip(tmp_path / 'a.pt', root, {'0': x})
  assert_equal(read(path).tensors, {name: x for name in root})


def test_torchscript_archive(tmp_path):
  x = {str(i): np.full((2, 3), i, np.float16) for i in range(4)}
  x['4'] = np.array(224)
  t = {k: files.view(files.storage(k, v.dtype, v.size), v.shape) for k, v in x.items()}
  linear = files.module('nn.Linear', weight=t['0'], bias=None, training=False)
  block = files.module('nn.Block', a=linear, b=linear, weight=t['1'], cache=t['2'])
  root = files.module(
    'clip.model.___torch_mangle_3.CLIP',
    visual=block,
    logit_scale=t['3'],
    input_resolution=t['4'],
    count=5,
  )
  entries = {
    'constants.pkl': files.dumps(()),
    'code/__torch__/nn.py': files.declaration('Linear', ['weight'], [])
    + files.declaration('Block', ['weight'], []),
  }
  path = files.write_zip(tmp_path / 'ViT-B-32.pt', root, x, entries=entries)
  checkpoint = read(path)
  expected = {
    'logit_scale': x['3'],
    'input_resolution': x['4'],
    'visual.weight': x['1'],
    'visual.a.weight': x['0'],
    'visual.b.weight': x['0'],
  }
  assert_equal(checkpoint.tensors, expected)
  assert checkpoint.container == 'TorchScript archive'
  assert checkpoint.skipped == {
    'count': '5',
    'visual.cache': 'tensor (2, 3), neither parameter nor buffer',
  }


@pytest.mark.parametrize('name', ['state_dict', 'model', 'model_state_dict', 'module'])
def test_the_model_is_found_and_the_rest_named(tmp_path, name):
  x = {'a.weight': np.ones((2, 2), np.float32)}
  views, stores = files.tensors({**x, 'moment': np.zeros(5)})
  moment = views.pop('moment')
  model = files.Call(
    'collections.OrderedDict', (list(views.items()),), {'_metadata': 1}
  )
  root = {
    'epoch': 3,
    name: model,
    'optimizer': {'state': {0: {'exp_avg': moment}}, 'param_groups': [{}]},
    'loss': moment,
    'args': files.Call('argparse.Namespace', (), {'lr': 0.1}, new=True),
    'when': files.Call('collections.defaultdict', (files.Global('builtins.list'),)),
  }
  path = files.write_zip(tmp_path / 'epoch_3.pt', root, stores)
  checkpoint = read(path)
  assert_equal(checkpoint.tensors, x)
  assert checkpoint.entry == name
  assert checkpoint.metadata.skipped == {
    'epoch': '3',
    'optimizer': 'dict of 2',
    'loss': 'tensor (5,)',
    'args': 'argparse.Namespace',
    'when': 'dict of 0',
  }


def test_several_models_are_chosen_by_key(tmp_path):
  x = {'a': np.ones(2, np.float32), 'b': np.zeros(3, np.float32)}
  views, stores = files.tensors(x)
  root = {
    'model': {'state_dict': {'a': views['a']}},
    'module': {'b': views['b'], 'step': 2},
    'ema': {'b': views['b']},
  }
  path = files.write_zip(tmp_path / 'a.pt', root, stores)
  with pytest.raises(
    ValueError,
    match='several models: model, module. Say which one to read: --key=model',
  ):
    read(path)
  assert_equal(read(path, key='module').tensors, {'b': x['b']})
  assert read(path, key='module').skipped == {'module.step': '2'}
  assert_equal(read(path, key='model.state_dict').tensors, {'a': x['a']})
  with pytest.raises(ValueError, match="no entry 'emma'; there are model, module, ema"):
    read(path, key='emma')
  del root['model'], root['module']
  files.write_zip(path, root, stores)
  with pytest.raises(ValueError, match='with tensors inside: ema'):
    read(path)


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_detectron2_pickles(tmp_path, protocol):
  x = {
    'stem.weight': np.arange(6, dtype=np.float32).reshape(2, 3),
    'large': np.arange(40_000.0).reshape(200, 200),  # stays in the file
    'fortran': np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    'swapped': np.arange(3).astype('>i4'),
    'half': np.array(0.5, np.float16),
  }
  number = np.float32(2.5)
  extras = {'__author__': 'third party', 'matching_heuristics': True}
  path = tmp_path / 'R-50.pkl'
  model = {**x, 'number': number, 'text': np.array(['a']), 'any': np.array([None])}
  path.write_bytes(pickle.dumps({'model': model, **extras}, protocol=protocol))
  checkpoint = read(path)
  x['swapped'] = x['swapped'].astype(np.int32)
  x['number'] = np.asarray(number)
  assert_equal(checkpoint.tensors, x)
  assert (checkpoint.container, checkpoint.entry) == ('pickle', 'model')
  assert set(checkpoint.skipped) == {*extras, 'model.text', 'model.any'}


def test_pickles_of_python_2(tmp_path):
  # {'w': numpy array}, text and bytes both as strings of bytes.
  state = (
    b'(I1\n(I2\ntp3\ncnumpy\ndtype\n(S"f4"\nI0\nI1\ntR(I3\nS"<"\nNNNI-1\nI-1\nI0\ntb'
  )
  state += b'I00\nU\x08' + np.array([1, 2], np.float32).tobytes() + b'tb'
  array = b'cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS"b"\ntR'
  path = tmp_path / 'old.pkl'
  path.write_bytes(b'(dp0\nS"w"\n' + array + state + b's.')
  assert_equal(read(path).tensors, {'w': np.array([1, 2], np.float32)})


def test_safetensors(tmp_path):
  path = write_safetensors(tmp_path / 'a.safetensors', ARRAYS, format='pt')
  checkpoint = read(path)
  assert_equal(checkpoint.tensors, ARRAYS)
  assert checkpoint.container == 'safetensors'
  assert checkpoint.metadata.notes == {'format': 'pt'}


def test_hugging_face_folder(tmp_path):
  (tmp_path / 'config.json').write_text('{"model_type": "clip"}')
  root, stores = files.tensors({'old': np.ones(1, np.float32)})
  files.write_zip(tmp_path / 'pytorch_model.bin', root, stores)
  assert_equal(read(tmp_path).tensors, {'old': np.ones(1, np.float32)})
  write_safetensors(tmp_path / 'model.safetensors', ARRAYS)
  for path in (tmp_path, tmp_path / 'model.safetensors'):
    checkpoint = read(path)
    assert_equal(checkpoint.tensors, ARRAYS)
    assert checkpoint.config == {'model_type': 'clip'}
  assert read(tmp_path).metadata.file == tmp_path.name


@pytest.mark.parametrize('kind', ['safetensors', 'bin'])
def test_hugging_face_folder_in_parts(tmp_path, kind):
  stem = 'model' if kind == 'safetensors' else 'pytorch_model'
  names = [f'{stem}-0000{i}-of-00002.{kind}' for i in (1, 2)]
  parts = [dict(list(ARRAYS.items())[:5]), dict(list(ARRAYS.items())[5:])]
  parts[1]['unlisted'] = np.ones(2, np.float32)
  for name, part in zip(names, parts, strict=True):
    if kind == 'safetensors':
      write_safetensors(tmp_path / name, part)
    else:
      files.write_zip(tmp_path / name, *files.tensors(part))
  table = {key: names[key in parts[1]] for key in ARRAYS}
  index = tmp_path / f'{stem}.{kind}.index.json'
  index.write_text(json.dumps({'metadata': {}, 'weight_map': table}))
  for path in (tmp_path, index):
    checkpoint = read(path)
    assert_equal(checkpoint.tensors, ARRAYS)
    assert [file.name for file in checkpoint.metadata.files] == names
    assert list(checkpoint.skipped) == ['unlisted']
  with pytest.raises(ValueError, match='part 2 of 2. Give the folder'):
    read(tmp_path / names[1])
  index.write_text(json.dumps({'weight_map': {**table, 'more': names[0]}}))
  with pytest.raises(ValueError, match='1 of which are not in their parts: more'):
    read(tmp_path)
  index.write_text(json.dumps({'weight_map': {'a': '../secret.bin'}}))
  with pytest.raises(ValueError, match='no weight_map from tensors to files beside it'):
    read(tmp_path)
  index.write_text(json.dumps({'weight_map': table}))
  (tmp_path / names[1]).unlink()
  with pytest.raises(FileNotFoundError, match=f'1 of 2 parts .* missing: {names[1]}'):
    read(tmp_path)


def test_tensors_are_read_one_at_a_time_and_renamed(tmp_path, monkeypatch):
  path = files.write_zip(tmp_path / 'a.pt', *files.tensors(ARRAYS))
  tensors = read(path).tensors
  renamed = tensors.rename(lambda name: f'x.{name}' if name != 'bool' else None)
  assert len(renamed) == len(ARRAYS) - 1
  assert 'x.float' in renamed and 'float' not in renamed
  assert renamed.shapes['x.half'] == (2, 2)
  with pytest.raises(ValueError, match="two tensors would be called 'a'"):
    tensors.rename(lambda name: 'a')
  path.write_bytes(path.read_bytes()[:200])  # values were not read before
  with pytest.raises(ValueError, match='ends within a tensor.*Convert again'):
    renamed['x.double']
