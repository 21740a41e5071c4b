"""Exports in the containers of the published files, read again to the bit."""

import dataclasses
import pathlib
import zipfile

import jax
import ml_dtypes
import numpy as np
import pytest
from tiny_clip import TINY, draw, openai_shapes

from ovs_jax.convert import exchange, torch_writer
from ovs_jax.convert.reader import read
from ovs_jax.core.checkpoint import load_model, save_model
from ovs_jax.core.errors import UserError
from ovs_jax.core.tree import flatten
from ovs_jax.models.backbones import PRESETS, init_backbone

PLAIN = dataclasses.replace(TINY, prompt_depth=0)


@pytest.mark.parametrize('ending', sorted(torch_writer.WRITERS))
def test_what_is_written_is_read(ending: str, tmp_path: pathlib.Path) -> None:
  tensors = {
    'matrix': np.arange(12, dtype=np.float32).reshape(3, 4),
    'turned': np.arange(6, dtype=np.float64).reshape(2, 3).T,
    'half': np.arange(5, dtype=np.float16),
    'scalar': np.asarray(3.5, np.float32),
    'empty': np.zeros((0, 4), np.float32),
    'count': np.asarray(7, np.int64),
    'flags': np.array([True, False]),
  }
  if ending != '.pkl':
    tensors['brain'] = np.arange(4).astype(ml_dtypes.bfloat16)
  path = tmp_path / f'a{ending}'
  torch_writer.WRITERS[ending](path, tensors)
  found = read(path).tensors
  assert list(found) == list(tensors)
  for name, x in tensors.items():
    assert found.entry(name).dtype == x.dtype
    np.testing.assert_array_equal(
      np.asarray(found[name], np.float32), np.asarray(x, np.float32)
    )
  first = path.read_bytes()
  torch_writer.WRITERS[ending](path, tensors)
  assert path.read_bytes() == first


def test_archives_are_as_torch_expects_them(tmp_path: pathlib.Path) -> None:
  """One folder, storages stored as they are, little-endian, version 3."""
  path = tmp_path / 'a.pt'
  torch_writer.write_archive(path, {'x': np.arange(3, dtype=np.float32)})
  with zipfile.ZipFile(path) as archive:
    names = archive.namelist()
    assert archive.testzip() is None
    assert {i.compress_type for i in archive.infolist()} == {zipfile.ZIP_STORED}
    assert archive.read('archive/version') == b'3\n'
    assert archive.read('archive/byteorder') == b'little'
    numbers = np.frombuffer(archive.read('archive/data/0'), '<f4')
  assert {name.split('/')[0] for name in names} == {'archive'}
  np.testing.assert_array_equal(numbers, [0, 1, 2])


def test_a_clip_goes_out_and_comes_back(tmp_path: pathlib.Path) -> None:
  first, back, again = tmp_path / 'a.pt', tmp_path / 'b.pt', tmp_path / 'o'
  source = {**draw(openai_shapes(PLAIN)), 'input_resolution': np.asarray(8)}
  torch_writer.write_archive(first, source)
  exchange.convert(first, again)
  exchange.export(again, back, layout='openai')
  found = read(back).tensors
  for name, x in source.items():
    assert found.entry(name).dtype == x.dtype
    np.testing.assert_array_equal(found[name], np.asarray(x, found[name].dtype))
  report = exchange.check(first, again)
  assert report.family == 'openai'


@pytest.mark.parametrize(
  ('preset', 'layout', 'ending'),
  [('swin_mini', 'swin', '.pth'), ('r_mini', 'resnet', '.pkl')],
)
def test_a_backbone_goes_out_and_comes_back(
  preset: str, layout: str, ending: str, tmp_path: pathlib.Path
) -> None:
  config = PRESETS[preset]
  params = jax.tree.map(np.asarray, init_backbone(config, jax.random.key(0)))
  model = {
    'model': 'backbone',
    'backbone': dataclasses.asdict(config),
    'feature_norms': True,
  }
  save_model(tmp_path / 'ours', params, model)
  path = tmp_path / f'a{ending}'
  exchange.export(tmp_path / 'ours', path, layout=layout)
  exchange.convert(path, tmp_path / 'again')
  exchange.check(path, tmp_path / 'again')
  found, stored = load_model(tmp_path / 'again')
  assert stored['source']['family'] == layout
  expected = flatten(params)
  for name, x in flatten(found).items():
    np.testing.assert_array_equal(x, expected[name], err_msg=name)


def test_endings_are_told(tmp_path: pathlib.Path) -> None:
  with pytest.raises(UserError, match=r'safetensors, \.pt, \.pth or \.pkl'):
    exchange.export(tmp_path, tmp_path / 'a.bin', layout='openai')
