"""The demo in a real browser: needs requirements/test_more.txt, and chromium."""

import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tiny_prompted
from in_chromium import chromium
from PIL import Image

from ovs_jax import Segmenter

pytestmark = pytest.mark.slow

NAMES = ['red ball', 'grass', 'snow', 'water']
WAIT = 120_000  # ms; programs are compiled the first time


class Served:
  """A running page.

  Attributes:
    address: of the page.
    folder: with photos.
    model: the checkpoint.
  """

  def __init__(self, folder: pathlib.Path) -> None:
    self.folder, self.model = folder, tiny_prompted.save(folder)['clipseg']
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / 'noise.png')
    pixels[:25], pixels[25:, :35], pixels[30:, 40:] = 30, 200, 240
    Image.fromarray(pixels).save(folder / 'plain.png')
    with socket.create_server(('127.0.0.1', 0)) as free:
      port = free.getsockname()[1]
    line = ['-m', 'ovs_jax.demo', f'--checkpoint={self.model}', f'--port={port}']
    self.process = subprocess.Popen(
      [sys.executable, *line, f'--examples={folder / "plain.png"}'],
      stdout=subprocess.PIPE,
      text=True,
      env={**os.environ, 'no_proxy': '*'},
    )
    said = self.process.stdout.readline()
    found = re.match(r'open (http://127\.0\.0\.1:\d+/) in a browser', said)
    assert found, said
    self.address = found[1]

  def shares(self, photo: str, names: list[str], threshold: float) -> dict[str, float]:
    segmenter = Segmenter.load(self.model)
    result = segmenter.segment(self.folder / photo, names, threshold=threshold)
    return result.shares()


@pytest.fixture(scope='module')
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
  page = Served(tmp_path_factory.mktemp('served'))
  yield page
  page.process.terminate()
  page.process.wait(30)


@pytest.fixture(scope='module')
def browser() -> Iterator[Any]:
  with chromium() as browser:
    yield browser


@pytest.fixture
def visit(served: Served, browser: Any) -> Iterator[Any]:
  """Opens the page as another user each time; nothing comes from elsewhere."""
  outside, wrong, contexts = [], [], []

  def call(**options: Any) -> Any:
    context = browser.new_context(accept_downloads=True, **options)
    contexts.append(context)
    page = context.new_page()
    page.set_default_timeout(WAIT)
    own = (served.address, 'data:', 'blob:')
    page.on('request', lambda r: r.url.startswith(own) or outside.append(r.url))
    page.on('pageerror', lambda error: wrong.append(str(error)))
    page.goto(served.address)
    page.wait_for_selector('.ovs-drop')
    return page

  yield call
  for context in contexts:
    context.close()
  assert outside == [] and wrong == []


def send(page: Any, path: pathlib.Path, names: str | None = None) -> None:
  if names is not None:
    page.fill('#ovs-names textarea', names)
  page.set_input_files('.ovs-file', str(path))


def answered(page: Any) -> None:
  page.wait_for_selector('.ovs[data-state=answer]')
  page.wait_for_selector('#ovs-said .done:has-text("names found")')


def rows(page: Any) -> dict[str, list[str]]:
  """Returns what the legend says of each name: its share and confidence."""
  page.wait_for_timeout(300)
  lines = [x.inner_text().split('\n') for x in page.locator('.ovs-list label').all()]
  return {name: figures for name, *figures in lines}


def test_names_legend_click_and_download(served: Served, visit: Any) -> None:
  page = visit(viewport={'width': 1280, 'height': 860})
  send(page, served.folder / 'plain.png')
  page.wait_for_selector('#ovs-said .done:has-text("now say what to look for")')
  page.fill('#ovs-names textarea', ', '.join(NAMES))
  page.click('#ovs-go')
  answered(page)
  assert {share for share, _ in rows(page).values()} == {'0.0 %'}  # all have 0.25
  page.locator('[data-tool=threshold]').fill('20')
  expected = served.shares('plain.png', NAMES, 0.2)
  shown = {name: share for name, (share, _) in rows(page).items()}
  assert shown == {name: f'{100 * x:.1f} %' for name, x in expected.items()}
  first = next(iter(shown))
  assert expected[first] == max(expected.values())
  box = page.locator('.ovs-canvas').bounding_box()
  page.mouse.click(box['x'] + 9, box['y'] + 9)
  page.wait_for_function("document.querySelector('.ovs-tip').innerText.trim()")
  tip = page.inner_text('.ovs-tip')
  assert tip.split('\n')[0] in NAMES and shown[tip.split('\n')[0]] in tip
  page.locator('.ovs-list input').first.uncheck()
  page.locator('.ovs-files summary').click()
  page.wait_for_function("document.querySelectorAll('.ovs-list li.off').length === 1")
  with page.expect_download() as download:
    page.click('[data-do=download]')
  path = served.folder / 'got.zip'
  download.value.save_as(path)
  assert download.value.suggested_filename == 'plain_segments.zip'
  inside = zipfile.ZipFile(path)
  assert {'plain_overlay.png', 'coco/annotations.json'} <= set(inside.namelist())
  coco = json.loads(inside.read('coco/annotations.json'))
  areas = {a['category_id']: a['area'] for a in coco['annotations']}
  assert sum(areas.values()) == 3500
  page.locator('[data-tool=heat]').select_option(label='heat map of snow')
  page.mouse.move(box['x'] + 30, box['y'] + 30)
  page.wait_for_selector('.ovs-tip:has-text("probability here 0.")')


def test_by_keyboard(served: Served, visit: Any) -> None:
  page = visit()
  page.fill('#ovs-names textarea', ', '.join(NAMES))
  page.locator('.ovs-thumbs button').focus()
  page.keyboard.press('Enter')
  answered(page)
  page.locator('[data-tool=threshold]').focus()
  for _ in range(10):
    page.keyboard.press('ArrowLeft')
  assert page.inner_text('[data-tool=threshold] + output') == '0.20'
  page.locator('.ovs-canvas').focus()
  page.keyboard.press('ArrowRight')
  page.wait_for_function(
    "document.querySelector('.ovs-sr').textContent.includes('% of the photo')"
  )
  page.keyboard.press('Enter')
  page.wait_for_selector('.ovs-list li.held')
  page.keyboard.press('Escape')
  page.wait_for_selector('.ovs-list li.held', state='detached')
  page.fill('#ovs-names textarea', 'grass')
  page.keyboard.press('Shift+Enter')
  page.wait_for_selector('#ovs-said .done:has-text("1 of 1 names found")')
  assert list(rows(page)) == ['grass']


def test_two_users_at_once(served: Served, visit: Any) -> None:
  one, other = visit(), visit(viewport={'width': 390, 'height': 844})
  send(one, served.folder / 'plain.png', ', '.join(NAMES))
  send(other, served.folder / 'noise.png', 'grass, snow')
  for page in (one, other):
    answered(page)
    page.locator('[data-tool=threshold]').fill('0')
  for page, photo, names in (
    (one, 'plain.png', NAMES),
    (other, 'noise.png', ['grass', 'snow']),
  ):
    expected = served.shares(photo, names, 0.0)
    found = {name: share for name, (share, _) in rows(page).items()}
    assert found == {name: f'{100 * x:.1f} %' for name, x in expected.items()}
  wide = other.evaluate('document.documentElement.scrollWidth')
  assert wide == 390  # nothing sticks out of a phone's screen


def test_what_cannot_be_taken(served: Served, visit: Any) -> None:
  page = visit()
  error = page.locator('#ovs-said .error')
  page.click('#ovs-go')
  page.wait_for_selector('#ovs-said .error:has-text("choose a photo first")')
  (served.folder / 'broken.jpg').write_bytes(b'\xff\xd8 nothing')
  send(page, served.folder / 'broken.jpg')
  page.wait_for_selector('#ovs-said .error:has-text("broken.jpg cannot be read")')
  Image.new('1', (10_000, 10_000)).save(served.folder / 'huge.png')
  send(page, served.folder / 'huge.png')
  page.wait_for_selector('#ovs-said .error:has-text("huge.png has 100 megapixels")')
  (served.folder / 'long.jpg').write_bytes(bytes(21_000_000))
  send(page, served.folder / 'long.jpg')
  page.wait_for_selector('#ovs-said .error:has-text("long.jpg has 21 MB")')
  send(page, served.folder / 'plain.png', 'red ball, Red Ball')
  page.wait_for_selector('#ovs-said .error:has-text("are the same for CLIP")')
  assert error.inner_text().count('\n') == 0
  page.fill('#ovs-names textarea', ', '.join(map(str, range(101))))
  page.click('#ovs-go')
  page.wait_for_selector('#ovs-said .error:has-text("101 names; this page takes")')
  page.click('#ovs-stop')
  page.wait_for_selector('#ovs-said .done:has-text("stopped")')
  assert str(served.folder) not in page.content()
