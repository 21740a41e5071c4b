"""Damage is noticed before anything is read, and changes by what files hold."""

import os
import pathlib
import random
import shutil
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from ovs_jax.core import checkpoint, content, run_checkpoints

PARAMS = {
  f'block_{i}': {
    'kernel': np.random.default_rng(i).standard_normal((64, 96)).astype(np.float32),
    'bias': np.zeros(96, np.float32),
  }
  for i in range(4)
}
CONFIG = {'model': 'clip', 'clip': {'width': 64, 'depth': 4}}


@pytest.fixture(scope='module')
def model(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  path = tmp_path_factory.mktemp('content') / 'model'
  checkpoint.save_model(path, PARAMS, CONFIG)
  return path


@pytest.fixture(scope='module')
def run(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  path = tmp_path_factory.mktemp('content') / 'run'
  saved = run_checkpoints.RunCheckpoints(path, keep=2, config=CONFIG)
  for step in (1, 2):
    state = {
      name: {k: jnp.asarray(v) + step for k, v in x.items()}
      for name, x in PARAMS.items()
    }
    saved.save(step, state, {'mu': state})
  saved.close()
  return path


def files(directory: pathlib.Path) -> list[pathlib.Path]:
  """Files that hold something, but for the notes of Orbax that nobody reads."""
  found = sorted(path for path in directory.rglob('*') if path.is_file())
  return [p for p in found if p.stat().st_size and 'commit_success' not in p.name]


def flip(path: pathlib.Path, rng: random.Random) -> None:
  held = bytearray(path.read_bytes())
  held[rng.randrange(len(held))] ^= 1 << rng.randrange(8)
  path.write_bytes(held)


def test_70_flipped_bits_of_a_model(
  model: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  rng = random.Random(0)
  sealed = [path for item in ('params', 'config') for path in files(model / item)]
  sizes = [path.stat().st_size for path in sealed]
  wrong = []
  for case in range(70):
    copy = tmp_path / str(case)
    shutil.copytree(model, copy)
    # Half of them where most bytes are, half in files that are small.
    path = rng.choices(sealed, sizes if case % 2 else None)[0]
    flip(copy / path.relative_to(model), rng)
    try:
      checkpoint.load_model(copy)
      wrong.append(str(path.relative_to(model)))
    except ValueError as error:
      assert '\n' not in str(error)
      assert 'damaged' in str(error)
  assert not wrong


@pytest.mark.parametrize('item', ['params', 'train', 'config'])
def test_flipped_bits_of_a_run(
  run: pathlib.Path, tmp_path: pathlib.Path, item: str
) -> None:
  rng = random.Random(0)
  state = {name: dict(x) for name, x in PARAMS.items()}
  for case in range(8):
    copy = tmp_path / str(case)
    shutil.copytree(run, copy)
    found = files(copy / '2' / item)
    flip(rng.choices(found, [path.stat().st_size for path in found])[0], rng)
    with pytest.raises(ValueError, match='were written|is damaged'):
      checkpoint.verify(copy)
    if item != 'train':
      with pytest.raises(ValueError, match='damaged'):
        checkpoint.load_model(copy)
    if item != 'config':
      again = run_checkpoints.RunCheckpoints(copy, keep=2, config=CONFIG)
      with pytest.raises(ValueError, match='Delete it to go on from step 1'):
        again.restore(2, state, {'mu': state})
      again.close()


def test_a_lost_file(model: pathlib.Path, tmp_path: pathlib.Path) -> None:
  copy = pathlib.Path(shutil.copytree(model, tmp_path / 'model'))
  max(files(copy / 'params'), key=lambda path: path.stat().st_size).unlink()
  with pytest.raises(ValueError, match='is not there; .* bytes were written'):
    checkpoint.load_model(copy)


def test_without_a_seal_there_is_a_note(
  model: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  copy = pathlib.Path(shutil.copytree(model, tmp_path / 'model'))
  checkpoint.load_model(copy)
  assert not capsys.readouterr().err
  (copy / 'params' / content.SEAL).unlink()
  params, _ = checkpoint.load_model(copy)
  np.testing.assert_array_equal(params['block_0']['bias'], 0)
  assert 'did not write down' in capsys.readouterr().err


def test_the_command(
  model: pathlib.Path, run: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  def verify(path: pathlib.Path) -> tuple[int, str]:
    line = [sys.executable, '-m', 'ovs_jax.core.checkpoint', str(path)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr

  status, said = verify(run)
  assert (status, said.count('all bytes are as they were written')) == (0, 2)
  copy = pathlib.Path(shutil.copytree(model, tmp_path / 'model'))
  flip(copy / 'params' / '_METADATA', random.Random(0))
  status, said = verify(copy)
  assert status == 2
  assert said.count('\n') == 1
  assert 'holds other bytes than were written' in said


class TestIdentity:
  @staticmethod
  def fill(path: pathlib.Path) -> None:
    (path / 'deep').mkdir(parents=True)
    (path / 'small.txt').write_bytes(b'a' * 100)
    (path / 'deep' / 'large.bin').write_bytes(random.Random(0).randbytes(1 << 18))

  def test_of_a_copy_is_the_same(self, tmp_path: pathlib.Path) -> None:
    self.fill(tmp_path / 'one')
    shutil.copytree(tmp_path / 'one', tmp_path / 'two')
    os.utime(tmp_path / 'two' / 'small.txt', (0, 0))
    assert content.identity(tmp_path / 'one') == content.identity(tmp_path / 'two')

  @pytest.mark.parametrize(
    'change', ['small', 'begin', 'middle', 'end', 'name', 'more']
  )
  def test_of_a_change_is_another(self, tmp_path: pathlib.Path, change: str) -> None:
    self.fill(tmp_path)
    before = content.identity(tmp_path)
    large = tmp_path / 'deep' / 'large.bin'
    held = bytearray(large.read_bytes())
    places = {'begin': 0, 'middle': len(held) // 2, 'end': len(held) - 1}
    if change in places:
      held[places[change]] ^= 1
      large.write_bytes(held)
    elif change == 'small':
      (tmp_path / 'small.txt').write_bytes(b'a' * 99 + b'b')
    elif change == 'name':
      large.rename(large.with_name('other.bin'))
    else:
      (tmp_path / 'more').touch()
    assert content.identity(tmp_path) != before

  def test_of_a_file(self, tmp_path: pathlib.Path) -> None:
    self.fill(tmp_path)
    before = content.identity(tmp_path / 'small.txt')
    (tmp_path / 'small.txt').write_bytes(b'b' * 100)
    assert content.identity(tmp_path / 'small.txt') != before


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16'])
def test_weights_that_are_not_finite(
  tmp_path: pathlib.Path, value: float, dtype: str
) -> None:
  kernel = np.ones((3, 4), np.float32).astype(jnp.dtype(dtype))
  kernel[1, 2] = value
  checkpoint.save_model(tmp_path / 'a', {'visual': {'kernel': kernel}}, CONFIG)
  said = '1 of 1 parameters of the checkpoint .* NaN or infinite: visual/kernel'
  with pytest.raises(ValueError, match=said):
    checkpoint.load_model(tmp_path / 'a')


def test_large_weights_are_finite(tmp_path: pathlib.Path) -> None:
  large = {
    'a': np.full(8, 3e38, np.float32),  # whose sum is not
    'b': np.full(8, 3e38, np.float32).astype(jnp.bfloat16),
    'c': np.full(8, 6e4, np.float16),
    'd': np.full(8, 1 << 30, np.int32),
  }
  checkpoint.save_model(tmp_path / 'a', large, CONFIG)
  params, _ = checkpoint.load_model(tmp_path / 'a')
  assert params['a'][0] == np.float32(3e38)
