"""Notebooks: their code runs on tiny models, and results show themselves."""

import dataclasses
import gc
import io
import json
import os
import pathlib
import re
import subprocess
import sys

import local_hub
import numpy as np
import pytest
import tiny_ovseg
import tiny_prompted
from PIL import Image

from ovs_jax import Segmenter
from ovs_jax.convert import exchange
from ovs_jax.core.checkpoint import save_model
from ovs_jax.inference import shown

ROOT = pathlib.Path(__file__).parents[1]
BOOKS = sorted((ROOT / 'examples').glob('*.ipynb'))


def cells(name: str) -> list[str]:
  (path,) = (book for book in BOOKS if book.stem == name)
  content = json.loads(path.read_text(encoding='utf-8'))
  code = [cell for cell in content['cells'] if cell['cell_type'] == 'code']
  # What was run on somebody's machine is not kept.
  assert all(c['outputs'] == [] and c['execution_count'] is None for c in code)
  return [''.join(cell['source']) for cell in code]


def run(name: str, folder: pathlib.Path, **environment: str) -> list[str]:
  """Runs a notebook's code as a program; returns the files that are there then."""
  done = subprocess.run(
    [sys.executable, '-c', '\n'.join(cells(name))],
    cwd=folder,
    capture_output=True,
    text=True,
    check=False,
    env={**os.environ, 'MPLBACKEND': 'agg', 'PYTHONPATH': str(ROOT), **environment},
  )
  assert done.returncode == 0, done.stderr
  return [str(p.relative_to(folder)) for p in folder.rglob('*') if p.is_file()]


def quickstart(folder: pathlib.Path) -> pathlib.Path:
  save_model(
    folder / 'runs/quickstart/ovseg_mpt', tiny_ovseg.draw_params(), tiny_ovseg.STORED
  )
  return folder


def test_the_quick_tour(tmp_path: pathlib.Path) -> None:
  files = run('quick_tour', quickstart(tmp_path))
  assert {'for_tools/coco/annotations.json', 'for_tools/png/drawn.png'} <= set(files)


def test_a_photo_with_a_named_model(tmp_path: pathlib.Path) -> None:
  model = tiny_prompted.save(tmp_path / 'models')['clipseg']
  exchange.export(model, tmp_path / 'published', layout='hf_clipseg')
  (tmp_path / 'work').mkdir()
  photo = np.arange(40 * 30 * 3, dtype=np.uint8).reshape(40, 30, 3)
  Image.fromarray(photo).save(tmp_path / 'work' / 'photo.jpg')
  with local_hub.serving() as server:
    server.files['CIDAS/clipseg-rd64-refined'] = local_hub.folder(
      tmp_path / 'published'
    )
    caches = {'HF_HUB_CACHE': 'hub', 'OVS_JAX_CACHE': 'cache'}
    places = {name: str(tmp_path / folder) for name, folder in caches.items()}
    files = run(
      'photo', tmp_path / 'work', HF_ENDPOINT=server.url, no_proxy='*', **places
    )
  assert {'photo_overlay.png', 'for_tools/coco/annotations.json'} <= set(files)


@pytest.mark.slow
def test_the_quick_tour_as_a_notebook(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  import nbclient
  import nbformat

  monkeypatch.setenv('PYTHONPATH', str(ROOT))
  (path,) = (book for book in BOOKS if book.stem == 'quick_tour')
  book = nbformat.read(path, as_version=4)
  nbformat.validate(book)
  folder = quickstart(tmp_path)
  done = nbclient.NotebookClient(
    book, timeout=300, resources={'metadata': {'path': str(folder)}}
  ).execute()
  kinds = [
    set(output.get('data', {}))
    for cell in done.cells
    for output in cell.get('outputs', [])
  ]
  results = [kind for kind in kinds if {'text/html', 'image/png'} <= kind]
  assert len(results) == 2  # both results; the drawing and the figure are PNG alone
  assert sum('image/png' in kind for kind in kinds) == 4


@pytest.mark.parametrize('kind', ['ovseg', 'clipseg', 'coseg'])
def test_results_show_themselves(kind: str, tmp_path: pathlib.Path) -> None:
  if kind == 'ovseg':
    save_model(tmp_path / kind, tiny_ovseg.draw_params(), tiny_ovseg.STORED)
  else:
    tiny_prompted.save(tmp_path)
  segmenter = Segmenter.load(tmp_path / kind)
  photo = np.random.default_rng(0).integers(0, 256, (50, 70, 3)).astype(np.uint8)
  encoded = segmenter.encode(photo)
  result = segmenter.segment(encoded, ['<b>red', 'grass'])
  np.testing.assert_array_equal(result.photo, photo)
  picture = Image.open(io.BytesIO(result._repr_png_()))
  assert picture.width >= 70 and picture.height > 50  # a legend below
  text = result._repr_html_()
  assert '<b>' not in text and '&lt;b&gt;red' in text
  told = re.findall(r'<td>([\d.]+) %</td>', text)
  assert abs(sum(map(float, told)) - 100) < 0.5
  # It is kept as long as what was encoded.
  assert len(segmenter._photos) == 1
  del encoded
  gc.collect()
  assert len(segmenter._photos) == 0 and result.photo is not None
  grey = dataclasses.replace(result, photo=None)
  assert len(grey._repr_png_()) > 100


def test_large_photos_are_kept_small() -> None:
  wide = np.random.default_rng(0).integers(0, 256, (100, 3000, 3)).astype(np.uint8)
  assert shown.small(wide).shape == (21, 640, 3)
  little = wide[:10, :10]
  copy = shown.small(little)
  np.testing.assert_array_equal(copy, little)
  assert copy.base is None  # or it would keep the whole photo in memory
