"""The demo's logic: photos, questions, who waits for whom, what the browser gets."""

import base64
import dataclasses
import io
import pathlib
import threading
import zipfile
import zlib
from collections.abc import Generator
from typing import Any

import numpy as np
import pytest
import tiny_ovseg
import tiny_prompted
from PIL import Image

from ovs_jax import Segmenter
from ovs_jax.core.checkpoint import save_model
from ovs_jax.core.errors import UserError
from ovs_jax.core.types import NO_LABEL
from ovs_jax.demo import view
from ovs_jax.demo.asking import read_asked
from ovs_jax.demo.desk import Answer, Desk, Photo
from ovs_jax.demo.download import CHOICES, write_zip
from ovs_jax.demo.limits import Limits, open_photo
from ovs_jax.demo.line import Line

LIMITS = Limits(names=4, pictures=2)
NAMES = 'red ball, grass, snow, water'


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
  folder = tmp_path_factory.mktemp('models')
  save_model(folder / 'ovseg', tiny_ovseg.draw_params(), tiny_ovseg.STORED)
  return {'ovseg': folder / 'ovseg', **tiny_prompted.save(folder)}


@pytest.fixture(scope='module')
def desks(checkpoints: dict[str, pathlib.Path]) -> dict[str, Desk]:
  kinds = ('ovseg', 'clipseg', 'coseg')
  return {kind: Desk(Segmenter.load(checkpoints[kind]), LIMITS) for kind in kinds}


@pytest.fixture(scope='module')
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[pathlib.Path]:
  rng = np.random.default_rng(0)
  folder = tmp_path_factory.mktemp('photos')
  for i in range(4):
    pixels = rng.integers(0, 256, (50, 70, 3)).astype(np.uint8)
    if i == 0:
      pixels[:25], pixels[25:, :35], pixels[30:, 40:] = 30, 200, 240
    Image.fromarray(pixels).save(folder / f'{i}.png')
  return sorted(folder.iterdir())


def finish(run: Generator[Any, None, Any]) -> Any:
  """Returns what a generator returns."""
  while True:
    try:
      next(run)
    except StopIteration as end:
      return end.value


def ask(desk: Desk, photo: pathlib.Path, names: str = NAMES) -> Answer:
  return finish(desk.ask(desk.photo(photo), read_asked(names, '', LIMITS)))


def unpacked(text: str, kind: Any, size: list[int]) -> np.ndarray:
  values = np.frombuffer(zlib.decompress(base64.b64decode(text)), kind)
  return values.reshape(size[1], size[0])


def test_names_as_they_are_typed() -> None:
  asked = read_asked('a cup, a lid,\n\ncar: automobile , motor car\n', 'wall', LIMITS)
  assert asked.classes.names == ('a cup', 'a lid', 'car')
  assert asked.classes.words == (
    ('a cup',),
    ('a lid',),
    ('car', 'automobile', 'motor car'),
  )
  assert asked.background.names == ('wall',)
  assert read_asked('a', ' ', LIMITS).background.names == ()
  assert read_asked('a_b', '', LIMITS).notes[0].startswith("'a_b' is read with")


@pytest.mark.parametrize(
  ('names', 'background', 'message'),
  [
    (' ', '', 'type what to look for'),
    ('a, b, c', 'd, e', '5 names; this page takes up to 4'),
    ('a, A', '', 'are the same for CLIP'),
    ('a, b', 'B', 'both class names and background'),
    (': b', '', 'no class names'),
    ('a\n: b', '', 'blank'),
  ],
)
def test_names_that_are_refused(names: str, background: str, message: str) -> None:
  with pytest.raises(UserError, match=message) as raised:
    read_asked(names, background, LIMITS)
  assert '\n' not in str(raised.value)


def test_photos_that_are_refused(tmp_path: pathlib.Path) -> None:
  limits = Limits(megabytes=1, megapixels=1)
  (tmp_path / 'large.jpg').write_bytes(bytes(1_000_001))
  with pytest.raises(UserError, match='large.jpg has 1 MB; this page takes up to 1'):
    open_photo(tmp_path / 'large.jpg', limits)
  for size, millions in ((1001, 1), (10_000, 100)):
    Image.new('1', (size, size)).save(tmp_path / 'wide.png')
    with pytest.raises(UserError, match=f'^wide.png has {millions} megapixels'):
      open_photo(tmp_path / 'wide.png', limits)
  Image.new('1', (1000, 1000)).save(tmp_path / 'wide.png')
  assert open_photo(tmp_path / 'wide.png', limits).shape == (1000, 1000, 3)
  (tmp_path / 'broken.jpg').write_bytes(b'\xff\xd8 nothing')
  with pytest.raises(UserError, match='^broken.jpg cannot be read') as raised:
    open_photo(tmp_path / 'broken.jpg', limits)
  assert str(tmp_path) not in str(raised.value)
  with pytest.raises(UserError, match='names must be at least 1'):
    Limits(names=0)


def test_a_photo_is_encoded_once(
  checkpoints: dict[str, pathlib.Path],
  photos: list[pathlib.Path],
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  desk, seen = Desk(Segmenter.load(checkpoints['clipseg']), LIMITS), []
  encode = desk.segmenter.encode
  monkeypatch.setattr(
    desk.segmenter, 'encode', lambda image: seen.append(image) or encode(image)
  )
  for names in (NAMES, 'snow', NAMES):
    ask(desk, photos[0], names)
  assert len(seen) == 1 and desk.is_encoded(desk.photo(photos[0]))
  ask(desk, photos[1])
  ask(desk, photos[0])  # the last that was asked for
  ask(desk, photos[2])
  assert len(seen) == 3
  same = photos[3].with_name('same.png')
  same.write_bytes(photos[2].read_bytes())
  kept = [desk.is_encoded(desk.photo(path)) for path in (photos[0], photos[1], same)]
  assert kept == [True, False, True]


@pytest.mark.parametrize('kind', ['ovseg', 'clipseg', 'coseg'])
@pytest.mark.parametrize('threshold', [0.0, 0.25, 0.47])
def test_the_browser_cuts_as_the_model_does(
  kind: str,
  threshold: float,
  desks: dict[str, Desk],
  photos: list[pathlib.Path],
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  monkeypatch.setattr(view, 'LEAST', 1)
  desk = desks[kind]
  answer = ask(desk, photos[0])
  page = view.packed(answer, threshold=desk.first_threshold)
  assert page['threshold'] == (0 if kind == 'ovseg' else 0.3)
  assert page['shown'] == page['size'] == [70, 50]
  labels = unpacked(page['labels'], '<u2', page['shown']).astype(np.int32) - 1
  levels = unpacked(page['levels'], np.uint8, page['shown'])
  again = desk.ask(answer.photo, answer.asked, threshold=threshold)
  cut = finish(again).result
  shown = levels >= round(100 * threshold)
  np.testing.assert_array_equal(np.where(shown, labels, NO_LABEL), cut.labels)
  several = len(np.unique(labels)) > 1
  assert several if kind != 'coseg' else levels.min() < 47 < levels.max()
  sure = np.array(page['sums']).sum(axis=1)
  whole = [answer.result.confidence[labels == k].sum() for k in range(4)]
  np.testing.assert_allclose(sure, whole, rtol=1e-5, atol=0.01)
  shares = np.array(page['counts'])[:, round(100 * threshold) :].sum(axis=1) / 3500
  np.testing.assert_allclose(shares, [*cut.shares().values()], rtol=1e-12)
  assert bool(page['heat']) == (kind != 'ovseg')


def test_large_photos_are_shown_small(desks: dict[str, Desk]) -> None:
  result = ask_drawn(desks['clipseg'], (2000, 30))
  page = view.packed(result, threshold=0.0)
  assert page['size'] == [30, 2000] and page['shown'] == [19, 1280]
  assert np.sum(page['counts']) == 60_000
  jpeg = base64.b64decode(page['photo'].partition(',')[2])
  assert Image.open(io.BytesIO(jpeg)).size == (19, 1280)
  heat = page['heat']['0']
  values = unpacked(heat['values'], np.uint8, heat['size'])
  assert values.max() == round(255 * heat['peak'])


def ask_drawn(desk: Desk, size: tuple[int, int]) -> Answer:
  pixels = np.random.default_rng(1).integers(0, 256, (*size, 3)).astype(np.uint8)
  photo = Photo('drawn', pathlib.Path('drawn.png'), pixels)
  return finish(desk.ask(photo, read_asked(NAMES, '', LIMITS)))


def test_what_is_taken_home(
  desks: dict[str, Desk], photos: list[pathlib.Path], tmp_path: pathlib.Path
) -> None:
  answer = ask(desks['ovseg'], photos[0])
  path = write_zip(answer, tmp_path, CHOICES, alpha=0.5)
  assert path.name == '0_segments.zip'
  files = zipfile.ZipFile(path).namelist()
  for name in (
    '0_overlay.png',
    'coco/annotations.json',
    'yolo/labels/0.txt',
    'png/labels.json',
  ):
    assert name in files
  assert {name.split('/')[0] for name in files} == {'0_overlay.png', *CHOICES[1:]}
  with pytest.raises(UserError, match='choose at least one'):
    write_zip(answer, tmp_path, (), alpha=0.5)
  gone = dataclasses.replace(answer.photo, path=tmp_path / 'gone.png')
  with pytest.raises(UserError, match='^gone.png has been cleared away'):
    write_zip(dataclasses.replace(answer, photo=gone), tmp_path, CHOICES, alpha=0.5)


def test_one_after_the_other() -> None:
  line = Line(seconds=60, waiting=1)
  gate = threading.Event()
  first = line.run(lambda: gate.wait(60))
  assert next(first) == 0
  second = line.run(lambda: 2)
  assert next(second) == 1
  with pytest.raises(UserError, match='1 others are waiting already'):
    next(line.run(lambda: 3))
  third = line.run(lambda: 4)
  second.close()  # stopped: the next one takes its place
  assert next(third) == 1
  gate.set()
  assert finish(first) is True and finish(third) == 4


def test_what_takes_too_long_is_given_up() -> None:
  line = Line(seconds=0.1, waiting=1)
  gate = threading.Event()
  slow = line.run(lambda: gate.wait(60))
  with pytest.raises(UserError, match='longer than 0.1 s'):
    finish(slow)
  gate.set()
  assert finish(line.run(lambda: 'next')) == 'next'
  with pytest.raises(ZeroDivisionError):
    finish(line.run(lambda: 1 // 0))
