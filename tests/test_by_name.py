"""The commands with models by name, from a server that speaks as the hub does."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import local_hub
import numpy as np
import pytest
import tiny_prompted
from PIL import Image

from ovs_jax import Segmenter
from ovs_jax.convert import exchange

NAME = 'me/mine'


@pytest.fixture(scope='module')
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
  path = tmp_path_factory.mktemp('by_name')
  model = tiny_prompted.save(path)['clipseg']
  exchange.export(model, path / 'published', layout='hf_clipseg')
  with local_hub.serving() as server:
    server.files['CIDAS/clipseg-rd64-refined'] = local_hub.folder(path / 'published')
    server.path, server.model = path, model
    yield server


def run(server: Any, *line: str) -> tuple[int, str, str]:
  environment = {
    **os.environ,
    'HF_ENDPOINT': server.url,
    'HF_HUB_CACHE': str(server.path / 'hub'),
    'OVS_JAX_CACHE': str(server.path / 'cache'),
    'no_proxy': '*',
  }
  done = subprocess.run(
    [sys.executable, '-m', *line],
    capture_output=True,
    text=True,
    check=False,
    env=environment,
  )
  return done.returncode, done.stdout, done.stderr


def test_predict_and_convert(server: Any, tmp_path: pathlib.Path) -> None:
  photo = tmp_path / 'photo.png'
  Image.fromarray(np.arange(40 * 30 * 3, dtype=np.uint8).reshape(40, 30, 3)).save(photo)
  line = ['ovs_jax.predict', f'--image={photo}', f'--output={tmp_path / "out"}']
  by_name = [*line, '--checkpoint=clipseg-rd64-refined']
  status, _, said = run(server, *by_name, '--names=,')
  assert status == 2 and 'fetching' not in said
  status, _, said = run(server, *by_name, '--names=a cup, a lid')
  assert status == 0, said
  assert 'licence Apache-2.0' in said and 'fetching 3 files' in said
  server.asked.clear()
  status, _, said = run(server, *by_name, '--names=a cup, a lid', '--overwrite')
  assert (status, server.asked) == (0, [])
  name = '--download=clipseg-rd64-refined'
  status, told, said = run(
    server, 'ovs_jax.convert', name, f'--output={tmp_path / "mine"}', '--check'
  )
  assert status == 0 and 'all equal' in told, said
  status, _, said = run(
    server, 'ovs_jax.predict', *line[1:], '--names=a', '--checkpoint=x'
  )
  assert status == 2 and said.splitlines()[-1].startswith('error: ')


def test_save_and_share(server: Any, tmp_path: pathlib.Path) -> None:
  segmenter = Segmenter.load(server.model)
  segmenter.save(tmp_path / 'copy')
  folder = segmenter.push(NAME, licence='mit', dry_run=tmp_path / 'shared')
  assert sorted(p.name for p in pathlib.Path(folder).iterdir() if p.name[0] != '.') == [
    'README.md',
    'ovs_jax.json',
    'ovs_jax.safetensors',
  ]
  server.files[NAME] = local_hub.folder(tmp_path / 'shared')
  again = Segmenter.load(tmp_path / 'copy')
  photo = np.arange(40 * 30 * 3, dtype=np.uint8).reshape(40, 30, 3)
  names = ['a cup', 'a lid']
  maps = [x.segment(x.encode(photo), names).labels for x in (segmenter, again)]
  np.testing.assert_array_equal(*maps)
  Image.fromarray(photo).save(tmp_path / 'photo.png')
  line = [f'--image={tmp_path / "photo.png"}', f'--output={tmp_path / "out"}']
  address = f'--checkpoint=hf://{NAME}'
  status, _, said = run(
    server, 'ovs_jax.predict', *line, address, '--names=a cup, a lid'
  )
  assert status == 0, said
  (found,) = (tmp_path / 'out').glob('*_labels.png')
  np.testing.assert_array_equal(np.asarray(Image.open(found)), maps[0])
