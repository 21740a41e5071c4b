"""What a user of the demo is told step by step, and how the command begins."""

import pathlib
import shutil
import sys
from typing import Any

import numpy as np
import pytest
import tiny_prompted
from PIL import Image

from ovs_jax import Segmenter
from ovs_jax.demo import __main__ as command
from ovs_jax.demo.desk import Desk
from ovs_jax.demo.limits import Limits
from ovs_jax.demo.visit import BUSY, DONE, ERROR, Visit, look, take, take_home


@pytest.fixture(scope='module')
def model(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  return tiny_prompted.save(tmp_path_factory.mktemp('model'))['clipseg']


@pytest.fixture(scope='module')
def desk(model: pathlib.Path) -> Desk:
  return Desk(Segmenter.load(model), Limits(names=4))


@pytest.fixture
def sent(tmp_path: pathlib.Path) -> pathlib.Path:
  (tmp_path / 'sent').mkdir()
  pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
  Image.fromarray(pixels).save(tmp_path / 'sent' / 'photo.png')
  return tmp_path / 'sent' / 'photo.png'


def test_one_visit(desk: Desk, sent: pathlib.Path, tmp_path: pathlib.Path) -> None:
  visit = Visit()
  *_, last = take(desk, visit, sent, sent.parent)
  assert (last.kind, visit.path) == (DONE, sent)
  assert last.view['size'] == [30, 20] and last.view['names'] == []
  first, *_, last = look(desk, visit, 'a, b_c', '')
  assert first.kind == BUSY and first.said.startswith('looking at the photo; this is')
  assert last.kind == DONE and last.view['names'] == ['a', 'b_c']
  assert ' of 2 names found in ' in last.said and "'b_c' is read with" in last.said
  first, *_ = look(desk, visit, 'a', '')
  assert first.said.startswith('looking for the names')
  home = take_home(desk, visit, tmp_path, chosen=['npz'], threshold=0.1, alpha=0.5)
  *_, last = home
  assert last.kind == DONE and last.file == tmp_path / 'photo_segments.zip'
  assert last.file.exists()


def test_what_goes_wrong_is_one_line(
  desk: Desk, sent: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  def said(steps: Any) -> str:
    *_, last = steps
    assert last.kind == ERROR and '\n' not in last.said
    return last.said

  visit, own = Visit(), sent.parent
  assert said(look(desk, visit, 'a', '')) == 'choose a photo first'
  secret = shutil.copy(sent, tmp_path / 'secret.png')
  for path in (secret, f'{own}/../secret.png', '', '/etc/passwd', own):
    assert 'was not sent to this page' in said(take(desk, visit, path, own))
  (own / 'link.png').symlink_to(secret)
  assert 'was not sent' in said(take(desk, visit, own / 'link.png', own))
  assert visit.path is None
  *_, _ = take(desk, visit, sent, own)
  nothing = {'chosen': ['npz'], 'threshold': 0.0, 'alpha': 0.5}
  assert 'say what to look for' in said(take_home(desk, visit, tmp_path, **nothing))
  assert '5 names; this page' in said(look(desk, visit, 'a, b, c, d, e', ''))
  too_long = ' '.join(map(str, range(99)))
  assert 'the limit is 77' in said(look(desk, visit, too_long, ''))
  sent.unlink()
  assert said(look(desk, visit, 'a', '')).startswith('photo.png has been cleared away')


def test_faults_of_the_program_are_logged(
  desk: Desk,
  sent: pathlib.Path,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
) -> None:
  monkeypatch.setattr(desk, 'photo', lambda path: 1 // 0)
  *_, last = look(desk, Visit(path=sent), 'a', '')
  assert last.kind == ERROR and last.said.startswith('that failed on our side')
  assert 'ZeroDivisionError' in capsys.readouterr().err


def test_the_command_without_gradio(
  model: pathlib.Path,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
) -> None:
  monkeypatch.setitem(sys.modules, 'gradio', None)
  monkeypatch.delitem(sys.modules, 'ovs_jax.demo.page', raising=False)
  for name in ('GRADIO_ANALYTICS_ENABLED', 'HF_HUB_DISABLE_TELEMETRY'):
    monkeypatch.setenv(name, 'x')
  monkeypatch.setenv('GRADIO_TEMP_DIR', 'x')
  assert command.main([f'--checkpoint={model}']) == 2
  said = capsys.readouterr().err
  assert said.count('\n') == 1 and 'pip install -r requirements/demo.txt' in said
  assert command.main([f'--checkpoint={model}', '--port=0']) == 2
  assert 'ports are 1 to 65535' in capsys.readouterr().err
