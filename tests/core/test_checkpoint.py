"""Checkpoints: whole, replaced at once, and refused with a reason."""

import errno
import json
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ovs_jax
from ovs_jax.core import checkpoint, run_checkpoints

PARAMS = {
  'visual': {'kernel': np.arange(6, dtype=np.float32).reshape(2, 3)},
  'logit_scale': np.float32(2.5).reshape(()),
}
CONFIG = {'model': 'clip', 'clip': {'width': 3, 'depths': [1, 2], 'none': None}}


@pytest.fixture(scope='module')
def written(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """Returns a model directory that tests only read or copy."""
  path = tmp_path_factory.mktemp('written') / 'model'
  checkpoint.save_model(path, PARAMS, CONFIG)
  return path


@pytest.fixture
def copied(written: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
  """Returns a copy that may be damaged."""
  return pathlib.Path(shutil.copytree(written, tmp_path / 'model'))


def assert_equal(got: Any, expected: Any) -> None:
  jax.tree.map(np.testing.assert_array_equal, got, expected)


class TestModel:
  def test_round_trip(self, written: pathlib.Path) -> None:
    params, config = checkpoint.load_model(written, kind='clip')
    assert_equal(params, PARAMS)
    assert config == CONFIG
    assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(params))

  def test_is_replaced_as_a_whole(self, copied: pathlib.Path) -> None:
    checkpoint.save_model(copied, {'other': np.ones(2)}, {'model': 'proposer'})
    params, config = checkpoint.load_model(copied)
    assert set(params) == {'other'} and config == {'model': 'proposer'}
    assert list(copied.parent.iterdir()) == [copied]

  def test_a_failed_save_leaves_the_old_one(
    self, copied: pathlib.Path, monkeypatch: pytest.MonkeyPatch
  ) -> None:
    def fill_disk(self: Any, path: pathlib.Path, items: Any, **_: Any) -> None:
      (path.parent / f'{path.name}.orbax-checkpoint-tmp' / 'params').mkdir(parents=True)
      raise OSError(errno.ENOSPC, 'No space left on device')

    with monkeypatch.context() as patch:
      patch.setattr(checkpoint.ocp.Checkpointer, 'save', fill_disk)
      with pytest.raises(OSError, match='No space left'):
        checkpoint.save_model(copied, PARAMS, CONFIG)
    assert_equal(checkpoint.load_model(copied)[0], PARAMS)
    assert list(copied.parent.iterdir()) == [copied]

  def test_missing_directories_are_guessed_at(self, written: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
      checkpoint.load_model(written.with_name('modle'), what='CLIP checkpoint')
    assert 'CLIP checkpoint' in str(error.value)
    assert "Did you mean 'model'?" in str(error.value)

  def test_another_kind_is_refused(self, written: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="holds a 'clip' model; a 'ovseg' model was"):
      checkpoint.load_model(written, kind='ovseg')

  def test_an_empty_directory_is_refused(self, tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match='not a checkpoint, or was not written to its'):
      checkpoint.load_model(tmp_path)

  @pytest.mark.parametrize('part', ['params', '_CHECKPOINT_METADATA', 'params/d'])
  def test_missing_parts_are_noticed(self, copied: pathlib.Path, part: str) -> None:
    path = copied / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ValueError, match='not written to its end'):
      checkpoint.load_model(copied)

  @pytest.mark.parametrize('pattern', ['params/_METADATA', 'config/*', 'params/**/*'])
  def test_cut_files_are_noticed(self, copied: pathlib.Path, pattern: str) -> None:
    cut = [path for path in copied.glob(pattern) if path.is_file()]
    assert cut
    for path in cut:
      path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match='damaged or was not written to its end'):
      checkpoint.load_model(copied)


class TestFormat:
  @staticmethod
  def stamp(path: pathlib.Path, stamp: dict[str, Any] | None) -> None:
    """Writes another format into a checkpoint, or none, as there was once."""
    file = path / '_CHECKPOINT_METADATA'
    written = json.loads(file.read_text())
    assert written['custom_metadata'] == {
      'format': checkpoint.FORMAT,
      'ovs_jax': ovs_jax.__version__,
    }
    file.write_text(json.dumps({**written, 'custom_metadata': stamp}))

  @pytest.mark.parametrize('stamp', [None, {}])
  def test_without_one_is_read(
    self, copied: pathlib.Path, stamp: dict[str, Any] | None
  ) -> None:
    self.stamp(copied, stamp)
    params, config = checkpoint.load_model(copied)
    assert_equal(params, PARAMS)
    assert config == CONFIG

  def test_a_newer_one_is_refused(self, copied: pathlib.Path) -> None:
    self.stamp(copied, {'format': checkpoint.FORMAT + 1, 'ovs_jax': '9.0'})
    said = f'has format {checkpoint.FORMAT + 1}, written by ovs_jax 9.0; ovs_jax .* to '
    for read in (checkpoint.load_model, checkpoint.load_config):
      with pytest.raises(ValueError, match=said) as error:
        read(copied)
      assert '\n' not in str(error.value)

  def test_of_a_run(self, tmp_path: pathlib.Path) -> None:
    saved = run_checkpoints.RunCheckpoints(tmp_path, keep=2, config=CONFIG)
    for step in (1, 2):
      saved.save(step, *TestRun.state(step))
    saved.close()
    self.stamp(tmp_path / '1', None)
    self.stamp(tmp_path / '2', {'format': checkpoint.FORMAT + 1, 'ovs_jax': '9.0'})
    again = run_checkpoints.RunCheckpoints(tmp_path, keep=2, config=CONFIG)
    assert_equal(again.restore(1, *TestRun.state(0))[:2], TestRun.state(1))
    with pytest.raises(ValueError, match='written by ovs_jax 9.0'):
      again.restore(2, *TestRun.state(0))
    again.close()


class TestRun:
  @staticmethod
  def state(value: float) -> tuple[Any, Any]:
    """Parameters and Adam's state, filled with a value."""
    params = {'a': {'b': jnp.full((2, 3), value)}}
    return params, optax.adam(1.0).init({'a/b': params['a']['b']})

  def test_restores_the_newest_of_those_kept(self, tmp_path: pathlib.Path) -> None:
    saved = run_checkpoints.RunCheckpoints(tmp_path, keep=2, config=CONFIG)
    assert saved.latest() is None
    for step in (1, 2, 3):
      saved.save(step, *self.state(step))
    saved.close()
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.isdigit()) == ['2', '3']
    again = run_checkpoints.RunCheckpoints(tmp_path, keep=2, config=CONFIG)
    assert again.latest() == 3
    assert_equal(again.restore(3, *self.state(0)), (*self.state(3), None))
    again.close()
    params, config = checkpoint.load_model(tmp_path)  # the newest step of a run
    assert_equal(params, self.state(3)[0])
    assert config == CONFIG

  def test_a_damaged_step_is_named(self, tmp_path: pathlib.Path) -> None:
    saved = run_checkpoints.RunCheckpoints(tmp_path, keep=2, config=CONFIG)
    saved.save(1, *self.state(1))
    saved.close()
    for path in (tmp_path / '1' / 'train').rglob('*'):
      if path.is_file():
        path.write_bytes(b'')
    again = run_checkpoints.RunCheckpoints(tmp_path, keep=2, config=CONFIG)
    with pytest.raises(ValueError, match=rf'{tmp_path}/1 cannot be read'):
      again.restore(1, *self.state(0))
    again.close()

  def test_a_step_that_was_not_finished_is_passed_over(
    self, tmp_path: pathlib.Path
  ) -> None:
    saved = run_checkpoints.RunCheckpoints(tmp_path, keep=2, config=CONFIG)
    for step in (1, 2):
      saved.save(step, *self.state(step))
    saved.close()
    (tmp_path / '2' / '_CHECKPOINT_METADATA').unlink()
    assert checkpoint.resolve(tmp_path).name == '1'
