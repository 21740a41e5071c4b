"""Models by name: fetched once, verified, converted, and refused in one line."""

import json
import pathlib
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import jax
import local_hub
import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import save_file
from test_command import PLAIN, SOURCE
from tiny_clip import hf_settings, to_hf

from ovs_jax.convert import catalogue, exchange, hub, share
from ovs_jax.core.checkpoint import load_config, load_model

NAME = 'openai/clip-vit-base-patch32'


@pytest.fixture
def server(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
  with local_hub.serving() as server:
    monkeypatch.setenv('no_proxy', '*')
    monkeypatch.setenv('OVS_JAX_CACHE', str(tmp_path / 'cache'))
    # What the package makes of HF_ENDPOINT and HF_HUB_CACHE when it is imported.
    monkeypatch.setattr(constants, 'ENDPOINT', server.url)
    addresses = f'{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}'
    monkeypatch.setattr(constants, 'HUGGINGFACE_CO_URL_TEMPLATE', addresses)
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
    path = tmp_path / 'published'
    path.mkdir()
    save_file(to_hf(SOURCE), path / 'model.safetensors')
    (path / 'config.json').write_text(json.dumps(hf_settings(PLAIN)))
    more = {'pytorch_model.bin': b'never fetched' * 200, 'model.py': b'never run'}
    server.files[NAME] = {**local_hub.folder(path), **more}
    yield server


def expected(tmp_path: pathlib.Path) -> Any:
  exchange.convert(tmp_path / 'published', tmp_path / 'expected')
  return load_model(tmp_path / 'expected')[0]


def assert_equal(a: Any, b: Any) -> None:
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize(
  'name', ['clip-vit-base-patch32', f'hf://{NAME}', f'hf://{NAME}@{local_hub.COMMIT}']
)
def test_fetched_once(
  server: Any, tmp_path: pathlib.Path, name: str, capfd: Any
) -> None:
  directory = hub.located(name)
  assert pathlib.Path(directory).parent == tmp_path / 'cache' / 'models'
  assert_equal(load_model(directory)[0], expected(tmp_path))
  said = capfd.readouterr().err
  assert f'{NAME}@' in said and 'licence ' in said and 'fetching 2 files, ' in said
  fetched = {address.rpartition('/')[2] for _, address, _ in server.asked}
  assert not fetched & {'pytorch_model.bin', 'model.py'}
  server.asked.clear()
  assert hub.located(name) == directory
  assert server.asked == []


def test_directories_are_what_they_are(tmp_path: pathlib.Path) -> None:
  assert hub.located(tmp_path) == tmp_path
  assert hub.located('runs/mine/clip') == 'runs/mine/clip'
  assert hub.located('gs://bucket/clipseg-rd64') == 'gs://bucket/clipseg-rd64'


@pytest.mark.parametrize(
  ('name', 'said'),
  [
    ('clipseg-rd64-refind', "Did you mean 'clipseg-rd64-refined'?"),
    ('ViT-B16', "Did you mean 'ViT-B/16'?"),
    ('hf://one', 'expected hf://ORG/NAME'),
    ('hf://a/b@c d', 'expected hf://ORG/NAME'),
    ('hf://no/such', 'no/such@main is not there, or private'),
    (f'hf://{NAME}@old', f"{NAME} has no branch, tag or commit 'old'"),
    (
      'ovseg (Swin-B, ViT-L/14)',
      'get it at https://github.com/facebookresearch/ov-seg',
    ),
  ],
)
def test_names_that_are_none(server: Any, name: str, said: str) -> None:
  with pytest.raises(ValueError) as error:
    hub.located(name)
  assert said in str(error.value)
  assert '\n' not in str(error.value)


def test_another_kind_of_repository(server: Any, tmp_path: pathlib.Path) -> None:
  server.files['a/b'] = {'README.md': b'x', 'tf_model.h5': b'y'}
  with pytest.raises(ValueError, match='a/b@main has none of .*; there is README.md'):
    hub.located('hf://a/b')
  server.files['a/c'] = {**server.files[NAME], 'config.json': b'{"model_type": "bert"}'}
  with pytest.raises(ValueError, match="model_type 'bert'"):
    hub.located('hf://a/c')
  assert not [p for p in (tmp_path / 'cache' / 'models').iterdir() if p.is_dir()]


def test_a_gated_one(server: Any) -> None:
  server.status = (401, 'GatedRepo')
  with pytest.raises(ValueError, match='accept its terms at https://huggingface.co/'):
    hub.located(f'hf://{NAME}')


def test_a_broken_transfer_goes_on(server: Any, tmp_path: pathlib.Path) -> None:
  server.stops = [100_000]
  directory = hub.located(f'hf://{NAME}')  # the hub's package asks for the rest itself
  asked = [a for method, a, _ in server.asked if method == 'GET' and '/store/' in a]
  assert len(asked) == 2
  assert_equal(load_model(directory)[0], expected(tmp_path))


def test_a_replaced_file_is_deleted(server: Any, tmp_path: pathlib.Path) -> None:
  server.replaced = True
  with pytest.raises(ValueError, match='whose sha256 is not'):
    hub.located(f'hf://{NAME}')
  server.replaced = False
  assert_equal(load_model(hub.located(f'hf://{NAME}'))[0], expected(tmp_path))


def test_no_network(
  server: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
  with pytest.raises(OSError, match='is not in the cache, and there is no network'):
    hub.located(f'hf://{NAME}')
  monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
  directory = hub.located(f'hf://{NAME}')
  shutil.rmtree(directory)
  server.asked.clear()
  monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
  assert_equal(load_model(hub.located(f'hf://{NAME}'))[0], expected(tmp_path))
  assert server.asked == []


def test_no_space(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
  usage = shutil.disk_usage('/')._replace(free=1_000_000)
  monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage)
  with pytest.raises(OSError, match='has 1 MB free, .* needs .* MB .*OVS_JAX_CACHE'):
    hub.located(f'hf://{NAME}')


def test_restricted_licences_are_accepted_once(server: Any) -> None:
  server.licence = 'cc-by-nc-4.0'
  with pytest.raises(ValueError, match='restricts what it may be used for; read it'):
    hub.located(f'hf://{NAME}')
  assert not [x for x in server.asked if '/resolve/' in x[1]]
  directory = hub.located(f'hf://{NAME}', accept_licence=True)
  assert hub.located(f'hf://{NAME}') == directory


def test_without_the_package(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
  with pytest.raises(ValueError, match='pip install huggingface_hub'):
    hub.located(f'hf://{NAME}')


def test_a_shared_one_comes_back(server: Any, tmp_path: pathlib.Path) -> None:
  params = expected(tmp_path)
  written = share.write(
    tmp_path / 'expected', tmp_path / 'mine', address='hf://me/mine', licence='mit'
  )
  card = (written / 'README.md').read_text()
  assert 'license: mit' in card and "Segmenter.load('hf://me/mine')" in card
  server.files['me/mine'] = local_hub.folder(written)
  directory = hub.located('hf://me/mine')
  assert_equal(load_model(directory)[0], params)
  assert load_config(directory) == load_config(tmp_path / 'expected')
  server.files['me/broken'] = {**server.files['me/mine'], share.FILE: b'[]'}
  with pytest.raises(ValueError, match='does not describe a model'):
    hub.located('hf://me/broken')


def test_every_repository_of_the_catalogue_has_a_name() -> None:
  for name, item in catalogue.PUBLISHED.items():
    if item.repository:
      assert catalogue.named(item.repository.rpartition('/')[2]) == name
      assert item.repository.count('/') == 1
    assert catalogue.named(name) == name
  assert catalogue.named('clipseg-rd64-refined') == 'clipseg-rd64-refined'
  assert catalogue.named('') is None
