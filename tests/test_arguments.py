"""What is wrong with a command line is one line, and nothing has happened."""

import pathlib
from typing import Any

import pytest
from absl import flags

from ovs_jax import arguments, main
from ovs_jax.arguments import check_arguments, declared
from ovs_jax.core.errors import UserError
from ovs_jax.core.limits import describe

CLIP = '--config=configs/scenes.py:clip'


@pytest.mark.parametrize(
  ('given', 'line'),
  [
    (
      ['--config=configs/quickstrat.py:smoke'],
      '--config=configs/quickstrat.py:smoke: there is no file configs/quickstrat.py. '
      "Did you mean 'configs/quickstart.py'?",
    ),
    (
      ['--config', 'scenes.py'],
      '--config=scenes.py: there is no file scenes.py. Did you mean '
      "'configs/scenes.py'?",
    ),
    (
      [CLIP, '--config.train.stepss=3'],
      "--config.train.stepss: config.train has no 'stepss'. Did you mean 'steps'?",
    ),
    (
      [CLIP, '--config.trian.steps=3'],
      "--config.trian.steps: config has no 'trian'. Did you mean 'train'?",
    ),
    (
      [CLIP, '--config.steps', '3'],
      "--config.steps: config has no 'steps'. Did you mean train.steps?",
    ),
    (
      [CLIP, '--noconfig.adapt.unit8'],
      "--config.adapt.unit8: config.adapt has no 'unit8'. Did you mean 'uint8'?",
    ),
    (
      [CLIP, '--config.coseg.decoder=3'],
      '--config.coseg.decoder: config.coseg.decoder is a section; change one of its '
      'keys, such as --config.coseg.decoder.reduce_dim=',
    ),
  ],
)
def test_files_and_keys_are_looked_for(given: list[str], line: str) -> None:
  with pytest.raises(UserError) as caught:
    check_arguments(['main', *given])
  assert str(caught.value) == line


def test_what_is_there_is_taken() -> None:
  check_arguments(['main', CLIP, '--config.train.steps=3', '--noconfig.mesh.fsdp'])
  check_arguments(['main', '--config=configs/quickstart.py:smoke', '--workdir=x'])
  check_arguments(['main', CLIP, '--config.stages.seed_0/clip.train.steps=1'])


def test_a_key_has_what_is_declared_of_it() -> None:
  assert describe(declared('train.steps')) == 'an integer, at least 0'
  assert describe(declared('stages.mine.mining.chunk')) == 'an integer, at least 1'
  assert declared('train.nothing') is None and declared('train.steps.x') is None


@pytest.fixture
def start(
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
  tmp_path: pathlib.Path,
) -> Any:
  """Returns what runs the command in this process, up to the job, for its message."""
  monkeypatch.setattr(main, 'keep_programs', lambda: None)
  monkeypatch.setattr(main, 'compile_sooner', lambda: None)
  monkeypatch.setattr(main, 'run', lambda *_: None)

  def call(*given: str) -> str:
    argv = ['main', *given, f'--workdir={tmp_path}/run']
    monkeypatch.setattr('sys.argv', argv)
    flags.FLAGS.unparse_flags()
    for name in list(flags.FLAGS):
      if name.startswith('config.'):
        delattr(flags.FLAGS, name)
    try:
      main.main(arguments.parse(argv))
    except SystemExit as ended:
      assert ended.code == 2
    assert not (tmp_path / 'run').exists()
    said = capsys.readouterr()
    return said.err or said.out

  return call


@pytest.mark.parametrize(
  ('given', 'line'),
  [
    (['configs/mpt_vitl14.py:smok'], "unknown word after the colon 'smok'; known: "),
    (['configs/scenes.py:clp'], "unknown stage 'clp'; known: "),
    (
      ['configs/scenes.py:clip:smoke', '--config.stages.clp.seed=1'],
      "the configuration has no 'clp'. Did you mean 'clip'?",
    ),
    (
      ['configs/scenes.py:clip', '--config.train.steps=x'],
      "config.train.steps is 'x', expected an integer, at least 0",
    ),
    (
      ['configs/scenes.py:clip', '--config.mesh.fsdp=perhaps'],
      "config.mesh.fsdp is 'perhaps', expected True or False",
    ),
    (
      ['configs/scenes.py:clip', '--config.train.keep=0'],
      'config.train.keep is 0, expected an integer, at least 1',
    ),
    (
      ['configs/scenes.py:clip', '--config.optimizer.learning_rate=nan'],
      'config.optimizer.learning_rate is nan, expected a finite number, above 0',
    ),
    (
      ['configs/scenes.py:clip', '--config.optimizer.gradient_clip=-1'],
      'config.optimizer.gradient_clip is -1.0, expected a number, above 0 or None',
    ),
    (
      ['configs/scenes.py:clip', '--config.train.writers=clue'],
      "config.train.writers[0] is 'clue', expected one of 'tensorboard', 'clu', "
      "'wandb'. Did you mean 'clu'?",
    ),
    (
      ['configs/scenes.py:clip', '--config.train.keep=0', '--config.clip.patch=7'],
      '2 settings are wrong:\n'
      '  config.clip: image_size 48 is not a multiple of patch 7\n'
      '  config.train.keep is 0, expected an integer, at least 1',
    ),
    (
      ['configs/scenes.py:clip:smoke', '--config.stages.clip.train.keep=0'],
      'config.stages.clip.train.keep is 0, expected an integer, at least 1',
    ),
    (['configs/scenes.py:clip', '--wrokdir=x'], "Unknown command line flag 'wrokdir'."),
  ],
)
def test_a_mistake_is_told_before_anything_happens(
  start: Any, given: list[str], line: str
) -> None:
  first, *rest = given
  message = start(f'--config={first}', *rest)
  assert message.startswith(f'error: {line}'), message
  assert 'Traceback' not in message


def test_without_a_mistake_the_job_runs(start: Any) -> None:
  assert start(CLIP, '--config.train.steps=3').startswith('done: ')
