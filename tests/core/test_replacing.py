"""Directories are replaced only where this package wrote them."""

import pathlib

import numpy as np
import pytest

from ovs_jax.convert.command import main as convert
from ovs_jax.core.checkpoint import load_model, save_model
from ovs_jax.core.files import atomic_path, check_replaceable
from ovs_jax.mining.train_tagger import main as train_tagger

STORED = {'model': 'clip'}


def params(value: float) -> dict:
  return {'x': np.full(2, value, np.float32)}


def fill(directory: pathlib.Path) -> dict[str, str]:
  """Writes what belongs to a user, and returns it."""
  directory.mkdir()
  for name in ('thesis.tex', 'photo.jpg', 'notes'):
    (directory / name).write_text(name)
  return contents(directory)


def contents(directory: pathlib.Path) -> dict[str, str]:
  return {p.name: p.read_text() for p in directory.iterdir()}


def test_a_users_directory_stays(tmp_path: pathlib.Path) -> None:
  before = fill(tmp_path / 'mine')
  said = r'mine holds notes, photo.jpg, thesis.tex, which this program did not write'
  with pytest.raises(ValueError, match=said):
    save_model(tmp_path / 'mine', params(1), STORED)
  with pytest.raises(ValueError, match=said), atomic_path(tmp_path / 'mine') as path:
    path.mkdir()
  assert contents(tmp_path / 'mine') == before
  assert [p.name for p in tmp_path.iterdir()] == ['mine']  # and nothing half-written


def test_what_was_written_here_is_replaced(tmp_path: pathlib.Path) -> None:
  (tmp_path / 'empty').mkdir()
  for name in ('new', 'empty'):
    for value in (1, 2):
      save_model(tmp_path / name, params(value), STORED)
    found, _ = load_model(tmp_path / name)
    np.testing.assert_array_equal(found['x'], [2, 2])
  (tmp_path / 'new' / '.ovs_jax').unlink()  # as earlier versions wrote it
  check_replaceable(tmp_path / 'new')


def test_commands_refuse_it_before_they_begin(
  tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  before = fill(tmp_path / 'mine')
  line = [f'--input={tmp_path / "no.safetensors"}', f'--output={tmp_path / "mine"}']
  assert convert([*line, '--overwrite']) == 2
  assert 'this program did not write' in capsys.readouterr().err
  line = [f'--train={tmp_path / "no.conllu"}', f'--output={tmp_path / "mine"}']
  assert train_tagger(line) == 2
  assert 'this program did not write' in capsys.readouterr().err
  assert contents(tmp_path / 'mine') == before


def test_the_input_is_never_replaced(
  tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  save_model(tmp_path / 'out', params(1), STORED)
  source = tmp_path / 'out' / 'weights.safetensors'
  source.write_bytes(b'weights')
  for given in (source, tmp_path / 'out'):
    line = [f'--input={given}', f'--output={tmp_path / "out"}', '--overwrite']
    assert convert(line) == 2
    assert 'which would be replaced' in capsys.readouterr().err
  assert source.read_bytes() == b'weights'
