"""What the folder of the page consists of, and what is said when it cannot be made."""

import hashlib
import json
import pathlib
import re
import tomllib

import numpy as np
import pytest
from exported import MERGES
from PIL import Image

from ovs_jax.core.errors import UserError
from ovs_jax.export import web
from ovs_jax.export.__main__ import main
from ovs_jax.ops.colours import palette

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def engine(tmp_path, monkeypatch):
  """Returns a folder that is taken for onnxruntime-web."""
  dist = tmp_path / 'package' / 'dist'
  dist.mkdir(parents=True)
  sums = {}
  for name in web.ORT_FILES:
    (dist / name).write_bytes(name.encode())
    sums[name] = hashlib.sha256(name.encode()).hexdigest()
  monkeypatch.setattr(web, 'ORT_FILES', sums)
  return dist


def test_the_page_has_all_that_it_asks_for(tmp_path, engine):
  folder = tmp_path / 'page'
  folder.mkdir()
  web.write_page(folder, {'merges': list(MERGES)})
  web.write_engine(folder / 'ort', engine.parent)
  asked = {'tokenizer.json', 'colours.json', 'example.json', 'worker.js'}
  for path in folder.iterdir():
    if path.suffix in ('.js', '.html'):
      text = path.read_text('utf-8')
      asked |= set(
        re.findall(r"""(?:from ['"]\./|src="|href="(?!data:))([^'"]+)""", text)
      )
      assert not re.findall(r'https?://', text), path
  asked.add('ort/ort-wasm-simd-threaded.wasm')
  assert len(asked) == 12
  assert [name for name in sorted(asked) if not (folder / name).is_file()] == []
  assert "default-src 'none'" in (folder / 'index.html').read_text()
  example = json.loads((folder / 'example.json').read_text())
  assert Image.open(folder / example['photo']).size == (128, 128)
  assert len(example['names'].split(', ')) > 2
  colours = json.loads((folder / 'colours.json').read_text())
  np.testing.assert_array_equal([c['colour'] for c in colours], palette(256))
  assert {c['line'] for c in colours} == {0, 255}
  tokenizer = json.loads((folder / 'tokenizer.json').read_text('utf-8'))
  assert tokenizer['merges'] == list(MERGES) and tokenizer['entities']['amp;'] == '&'
  assert tokenizer['references']['128'] == '\u20ac'


def test_a_wheel_has_the_page():
  about = tomllib.loads((ROOT / 'pyproject.toml').read_text())
  kinds = about['tool']['setuptools']['package-data']['ovs_jax.export.page']
  assert {f'*{path.suffix}' for path in web.PAGE.iterdir()} == set(kinds)


def test_another_engine_is_refused(tmp_path, engine):
  with pytest.raises(
    UserError, match=r'tmp.* has no ort\.wasm.*npm pack onnxruntime-w'
  ):
    web.write_engine(tmp_path / 'ort', tmp_path)
  (engine / next(iter(web.ORT_FILES))).write_bytes(b'other')
  with pytest.raises(
    UserError, match=r'is not that of onnxruntime-web@1\.\d+\.0; take'
  ):
    web.write_engine(tmp_path / 'ort', engine)
  assert not (tmp_path / 'ort').exists()


@pytest.mark.parametrize(
  ('script', 'message'),
  [
    (None, "the format 'web' takes onnxruntime-web@.* and npm is not there; give the"),
    ('echo; echo no network >&2; exit 1', r'npm did not bring .* \(no network\); give'),
    (
      'exit 0',
      r'npm did not bring .* \(it says nothing\); give the unpacked package by',
    ),
  ],
)
def test_without_npm_or_a_network(tmp_path, monkeypatch, script, message):
  if script is not None:
    (tmp_path / 'npm').write_text(f'#!/bin/sh\n{script}\n')
    (tmp_path / 'npm').chmod(0o755)
  monkeypatch.setenv('PATH', str(tmp_path), prepend=None)
  with pytest.raises(UserError, match=message):
    web.write_engine(tmp_path / 'ort')


def test_mistakes_are_told(tmp_path, capsys):
  for options, message in [
    (['--ort=.'], "--ort is for the format 'web' alone; leave it out"),
    (['--formats=web', '--weights=int8'], 'web: with weights of float32 alone, not in'),
  ]:
    assert main(['--checkpoint=none', f'--output={tmp_path}/new', *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f'error: {message}') and error.count('\n') == 1
  assert not (tmp_path / 'new').exists()


@pytest.mark.network
def test_npm_brings_the_engine(tmp_path):
  web.write_engine(tmp_path / 'ort')
  names = {name.replace('.mjs', '.js') for name in web.ORT_FILES}
  assert {path.name for path in (tmp_path / 'ort').iterdir()} == names
