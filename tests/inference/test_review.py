"""The page with all photos of a run."""

import html.parser
import json
import pathlib
import re
import urllib.parse
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from tiny_ovseg import STORED, draw_params

from ovs_jax import console, predict
from ovs_jax.core.checkpoint import save_model
from ovs_jax.inference.review import doubt
from ovs_jax.inference.segmenter import Segmenter

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  directory = tmp_path_factory.mktemp('model') / 'ovseg'
  save_model(directory, draw_params(), STORED)
  return directory


@pytest.fixture
def run(
  checkpoint: pathlib.Path, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> Run:
  """Segments three photos, of which one has an odd name."""
  (tmp_path / 'photos').mkdir()
  for seed, name in enumerate(('a.png', 'b & <c>.png', 'd#e.png')):
    pixels = np.random.default_rng(seed).integers(0, 256, (50, 70, 3))
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / 'photos' / name)

  def call(*flags: str) -> tuple[int, str, str]:
    argv = [f'--checkpoint={checkpoint}', f'--image={tmp_path / "photos"}']
    argv += ['--names=red <b>, grass', f'--output={tmp_path / "out"}', *flags]
    return predict.main(argv), *capfd.readouterr()

  return call


class Page(html.parser.HTMLParser):
  """The pictures and texts of a page."""

  def __init__(self, text: str) -> None:
    super().__init__()
    self.pictures: list[str] = []
    self.texts: list[str] = []
    self.feed(text)

  def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
    if tag == 'img':
      self.pictures.append(urllib.parse.unquote(str(dict(attrs)['src'])))

  def handle_data(self, data: str) -> None:
    self.texts.append(data)


def test_all_photos_are_there_the_doubtful_first(
  run: Run, tmp_path: pathlib.Path
) -> None:
  code, out, err = run('--review')
  path = tmp_path / 'out' / 'review.html'
  assert (code, err) == (0, '') and f'to look through: {path}' in out
  page = Page(path.read_text(encoding='utf-8'))
  records = [json.loads(p.read_text()) for p in (tmp_path / 'out').glob('*.json')]
  records.sort(key=lambda r: -doubt(r))
  stems = [pathlib.Path(r['image']).stem for r in records]
  assert page.pictures == [f'{stem}_overlay.png' for stem in stems]
  assert all((tmp_path / 'out' / picture).is_file() for picture in page.pictures)
  assert 'red <b>' in page.texts  # as it was written, and no element
  shown = [float(t) for t in page.texts if re.fullmatch(r'[01]\.\d\d', t)]
  for record in records:
    for segment in record['segments']:
      assert round(segment['confidence'], 2) in shown


def test_what_was_made_earlier_is_there_too(run: Run, tmp_path: pathlib.Path) -> None:
  assert run()[0] == 0 and not (tmp_path / 'out' / 'review.html').exists()
  assert run('--review')[0] == 0
  page = Page((tmp_path / 'out' / 'review.html').read_text(encoding='utf-8'))
  assert len(page.pictures) == 3


def test_doubt() -> None:
  def record(*segments: tuple[float, float]) -> dict[str, object]:
    return {'segments': [{'share': s, 'confidence': c} for s, c in segments]}

  assert doubt(record((0.9, 0.75), (0.05, 0.5), (0.001, 0.1))) == 0.5
  assert doubt(record((0.001, 0.25), (0.002, 0.5))) == 0.75
  assert doubt(record()) == 1


def test_long_silences_are_explained(
  run: Run, checkpoint: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(console.sys.stderr, 'isatty', lambda: True, raising=False)
  _, _, err = run()
  loading, compiling = err.index(f'loading {checkpoint}'), err.index('compiling for')
  assert loading < compiling


def test_what_a_model_knows_is_told(
  run: Run, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
  for name, words in (
    ('scenes', '72 drawn shapes and textures, and nothing of photographs'),
    ('voc_20', 'masks of 20 names (voc_20)'),
    ('of another', ''),
  ):
    stored = {**STORED, 'training_names': {'name': name, 'sha256': '0'}}
    save_model(tmp_path / name, draw_params(), stored)
    argv = [f'--checkpoint={tmp_path / name}', f'--image={tmp_path / "photos"}']
    assert predict.main([*argv, '--names=a, b', f'--output={tmp_path / "out"}']) == 0
    said = f'note: this model knows {words}\n' if words else ''
    assert capfd.readouterr().err == said
    assert Segmenter.load(tmp_path / name).knows == words
  assert run('--names=c')[2] == ''  # its checkpoint does not say


def test_letters_without_a_font_are_told(
  run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(predict, 'undrawn', lambda names: ['grass'])
  code, _, err = run()
  assert code == 0
  assert (
    err.count('\n') == 1
    and "note: no font of this machine has all letters of 'g" in err
  )
