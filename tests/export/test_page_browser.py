"""The exported page in a real browser: needs requirements/test_more.txt and chromium.

onnxruntime-web comes from npm, or from the folder that OVS_ORT names.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from exported import onnx_python, photo, unchecked, use_merges
from in_chromium import chromium
from PIL import Image
from tiny_ovseg import save_smallest

from ovs_jax import Segmenter
from ovs_jax.export.artefact import ONNX_PYTHON, write
from ovs_jax.ops.colours import palette
from ovs_jax.ops.overlay import blend

pytestmark = pytest.mark.slow

NAMES = ['red ball', 'grass', 'thing']
MANY = [*NAMES, 'a bass', 're 12', 'ass', '\u00e9 &amp; x', 'gr', "it's"]
WAIT = 120_000  # ms
NOTHING_ELSE = '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1'
# What the page's own worker says of pixels.
LABELS = """async ([data, width, height, names]) => {
  const worker = new Worker('worker.js', { type: 'module' });
  const photo = { data: Uint8Array.from(data), width, height };
  worker.postMessage({ photo, number: 1, names, shown: { width, height } });
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => {
      if (data.error) reject(new Error(data.error));
      if (data.labels) resolve([Array.from(data.labels), Array.from(data.confidence)]);
    };
  });
}"""


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """Returns a checkpoint and the folder with the page."""
  folder = tmp_path_factory.mktemp('page')
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv(ONNX_PYTHON, onnx_python(folder))
    use_merges(folder, patch)
    save_smallest(folder / 'ovseg')
    options = {'formats': ['web'], 'aspect': 1.5, 'ort': os.environ.get('OVS_ORT')}
    with unchecked():
      write(folder / 'ovseg', folder / 'new', **options)
    yield folder / 'ovseg', folder / 'new' / 'web'


@contextlib.contextmanager
def serving(folder):
  """Serves a folder by Python's own server; yields the address."""
  line = [sys.executable, '-u', '-m', 'http.server', '0', '--bind', '127.0.0.1']
  with subprocess.Popen(
    line, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
  ) as server:
    try:
      port = re.search(r'port (\d+)', server.stdout.readline())[1]
      yield f'http://127.0.0.1:{port}/'
    finally:
      server.terminate()


@contextlib.contextmanager
def visiting(folder, *options, state='ready'):
  """Opens the page; nothing may come from elsewhere, and no script may fail."""
  outside, wrong = [], []
  with serving(folder) as address, chromium(NOTHING_ELSE, *options) as browser:
    page = browser.new_page()
    page.set_default_timeout(WAIT)
    own = (address, 'data:', 'blob:')
    page.on('request', lambda r: r.url.startswith(own) or outside.append(r.url))
    page.on('pageerror', lambda error: wrong.append(str(error)))
    page.goto(address)
    page.wait_for_selector(f'body[data-state={state}]')
    yield page
  assert outside == [] and wrong == []


def ask(page, names):
  page.fill('#names', ', '.join(names))
  page.keyboard.press('Enter')


def said(page, kind='error'):
  page.wait_for_function(f"document.getElementById('{kind}').textContent")
  return page.inner_text(f'#{kind}')


def shown(page, count):
  """Returns the pixels of the page once `count` names are answered."""
  page.wait_for_selector(f'#said:has-text("of {count} names found")')
  pixels = """() => {
    const { width, height } = document.getElementById('canvas');
    const pen = document.getElementById('canvas').getContext('2d');
    return [height, width, Array.from(pen.getImageData(0, 0, width, height).data)];
  }"""
  height, width, data = page.evaluate(pixels)
  return np.reshape(data, (height, width, 4))[..., :3].astype(np.uint8)


def test_labels_are_those_of_the_segmenter(made, tmp_path):
  segmenter, seen = Segmenter.load(made[0]), set()
  with visiting(made[1]) as page:
    for seed, size in enumerate([(70, 50), (130, 100), (40, 40), (44, 60)]):
      for names in (NAMES, NAMES[:1], MANY):
        image = photo(seed, *size)
        rgba = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
        given = [rgba.ravel().tolist(), size[0], size[1], ', '.join(names)]
        labels, confidence = page.evaluate(LABELS, given)
        expected = segmenter.segment(image, names)
        labels = np.reshape(labels, expected.labels.shape)
        np.testing.assert_array_equal(labels, expected.labels)
        confidence = np.reshape(confidence, labels.shape)
        np.testing.assert_allclose(confidence, expected.confidence, atol=1e-3)
        seen |= set(labels.flat)
  assert len(seen) > 2


def test_a_visit(made, tmp_path):
  segmenter, image = Segmenter.load(made[0]), photo(1, 130, 100)
  Image.fromarray(image).save(tmp_path / 'photo.png')
  (tmp_path / 'broken.jpg').write_bytes(b'nothing')
  Image.fromarray(photo(1, 1400, 1000)).save(tmp_path / 'large.png')
  Image.fromarray(photo(1, 20, 200)).save(tmp_path / 'narrow.png')
  with visiting(made[1]) as page:
    ask(page, NAMES)
    assert said(page) == 'Choose a photo first, or take the example.'
    page.set_input_files('#file', str(tmp_path / 'broken.jpg'))
    page.wait_for_selector('#error:has-text("broken.jpg cannot be read; take a JPEG")')
    page.set_input_files('#file', str(tmp_path / 'narrow.png'))
    page.wait_for_selector(
      '#error:has-text("A photo of 20 x 200 is too long and narr")'
    )
    page.set_input_files('#file', str(tmp_path / 'photo.png'))
    expected = segmenter.segment(image, NAMES)
    overlay = blend(image, expected.labels, palette(3), alpha=0.55)
    np.testing.assert_array_equal(shown(page, 3), overlay)
    rows = [row.split('\n') for row in page.locator('#legend li').all_inner_texts()]
    shares = {name: f'{100 * x:.1f} %' for name, x in expected.shares().items()}
    assert {name: share for name, share, *_ in rows} == shares
    ask(page, ['grass', 'others', 'a', 'b'])
    shown(page, 4)
    assert 'photo' not in page.inner_text('#said')  # its networks ran before
    for names, message in [
      (['a', '', 'b'], 'Name 2 of 3 is blank; remove it'),
      (['a', 'A'], '"a" and "A" are the same for CLIP; keep one.'),
      (['"a'], 'The quotes do not match; '),
      (['x' * 400], 'tokens; the model reads '),
    ]:
      ask(page, names)
      page.wait_for_selector(f"#error:has-text('{message}')")
    page.fill('#names', 'grass, a')
    page.set_input_files('#file', str(tmp_path / 'large.png'))
    assert shown(page, 2).shape == (731, 1024, 3)
    # A photo, and another one while the model has the first.
    page.set_input_files('#file', str(tmp_path / 'photo.png'))
    page.fill('#names', '')
    page.click('#example')
    shown(page, len(page.input_value('#names').split(',')))
    assert (
      page.evaluate(
        "fetch('https://example.com/').then(() => 'there', (error) => error.name)"
      )
      == 'TypeError'
    )


@pytest.mark.parametrize(
  ('option', 'message'),
  [
    ('--no-enable-sse4-1', 'This browser lacks WebAssembly with SIMD, which the'),
    ('--wasm-max-mem-pages=400', 'This browser has too little memory for the model'),
  ],
)
def test_a_browser_that_cannot(made, option, message):
  with visiting(made[1], f'--js-flags={option}', state='refused') as page:
    assert said(page).startswith(message)
    assert page.is_disabled('#go') and page.inner_text('#said') == ''


def test_a_folder_that_is_not_whole(made, tmp_path):
  shutil.copytree(made[1], tmp_path / 'part')
  (tmp_path / 'part' / 'models' / 'maps.onnx').unlink()
  with visiting(tmp_path / 'part', state='refused') as page:
    assert said(page) == (
      'models/maps.onnx cannot be loaded: the server says 404. Put the whole folder on '
      'the server.'
    )
