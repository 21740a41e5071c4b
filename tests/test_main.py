"""The command: what it says when something is wrong, and that it can be killed."""

import collections
import errno
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import types
from typing import Any

import pytest
import tiny_configs

from configs import common
from ovs_jax import main
from ovs_jax.core import files
from ovs_jax.core.errors import UserError
from ovs_jax.settings import Settings

ROOT = pathlib.Path(__file__).parents[1]


def command(*arguments: str) -> list[str]:
  return [sys.executable, '-m', 'ovs_jax.main', *arguments]


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
  return subprocess.run(
    command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=120
  )


EARLY = """
import os, runpy, signal, sys

class Notice:
  def find_spec(self, name, *_):
    if name == 'jax':
      os.kill(os.getpid(), signal.SIGTERM)

sys.meta_path.insert(0, Notice())
runpy.run_module('ovs_jax.main', run_name='__main__')
"""


def test_a_notice_amid_the_imports_is_no_failure() -> None:
  done = subprocess.run(
    [sys.executable, '-c', EARLY], capture_output=True, text=True, cwd=ROOT
  )
  assert done.returncode == 75
  assert done.stderr == (
    'stopped before the work began; run the same command to go on\n'
  )


def test_a_missing_config_is_an_error_of_use() -> None:
  done = call()
  assert done.returncode != 0
  assert 'flag --config' in (done.stderr + done.stdout).lower()


def test_an_unknown_key_gets_a_suggestion(tmp_path: pathlib.Path) -> None:
  done = call(
    '--config=configs/scenes.py:clip', '--config.train.step=3', f'--workdir={tmp_path}'
  )
  assert done.returncode != 0
  assert done.stderr.splitlines()[-1] == (
    "error: --config.train.step: config.train has no 'step'. Did you mean 'steps'?"
  )


@pytest.mark.parametrize(
  ('argument', 'path'),
  [('--config.train.ema=0.5', 'train.ema'), ('--predictions=x', 'suite.predictions')],
)
def test_what_no_stage_would_notice_is_refused(
  tmp_path: pathlib.Path, argument: str, path: str
) -> None:
  done = call(
    '--config=configs/scenes.py:clip:smoke', argument, f'--workdir={tmp_path}/run'
  )
  assert done.returncode == 2
  assert done.stderr.splitlines()[-1] == (
    f'error: config.{path} changes no stage of the pipeline clip_scenes_smoke; change '
    f'that of one, such as --config.stages.clip.{path}='
  )
  assert not (tmp_path / 'run').exists()


def test_compiled_programs_are_kept(tmp_path: pathlib.Path) -> None:
  program = (
    'import jax, sys; from ovs_jax import main; '
    'main.run = lambda *_: print(jax.config.jax_compilation_cache_dir); main.start()'
  )
  done = subprocess.run(
    [sys.executable, '-c', program, '--config=configs/scenes.py:clip'],
    cwd=ROOT,
    env={
      **{k: v for k, v in os.environ.items() if k != 'JAX_COMPILATION_CACHE_DIR'},
      'XDG_CACHE_HOME': str(tmp_path),
    },
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert done.stdout.splitlines()[0] == f'{tmp_path}/ovs_jax/programs', done.stderr


def test_a_mistake_is_one_message(tmp_path: pathlib.Path) -> None:
  done = call(
    '--config=configs/scenes.py:clip',
    '--config.recipe=clip_pretrian',
    f'--workdir={tmp_path}',
  )
  assert done.returncode == 2
  assert done.stderr.splitlines()[-1].startswith(
    "error: config.recipe is 'clip_pretrian', expected "
  )
  assert "Did you mean 'clip_pretrain'?" in done.stderr
  assert 'Traceback' not in done.stderr


@pytest.fixture
def config(data_dir: str) -> Any:
  return tiny_configs.pretraining(data_dir)


def test_unknown_modes_are_refused(config: Any, tmp_path: pathlib.Path) -> None:
  with pytest.raises(ValueError, match="unknown mode 'trian'.*Did you mean 'train'"):
    main.run('trian', Settings.of(config), tmp_path)
  assert list(tmp_path.iterdir()) == []


def test_unknown_data_sets_are_refused(config: Any, tmp_path: pathlib.Path) -> None:
  config.dataset.name = 'scene'
  with pytest.raises(ValueError, match="is 'scene', .*Did you mean 'scenes'"):
    main.run('prepare', Settings.of(config), tmp_path)


def test_unknown_variants_are_refused(config: Any, tmp_path: pathlib.Path) -> None:
  config.dataset.variant = 'smok'
  with pytest.raises(ValueError, match="unknown configuration 'smok'"):
    main.run('prepare', Settings.of(config), tmp_path)


def test_a_directory_of_another_config_is_refused(
  config: Any, tmp_path: pathlib.Path
) -> None:
  assert main.run('prepare', Settings.of(config), tmp_path)['train'] == 32
  (tmp_path / 'result.txt').touch()  # this mode has its results elsewhere
  main.run('prepare', Settings.of(config), tmp_path)
  config.train.steps = 5
  with pytest.raises(ValueError, match=r'different: train\.steps \(4 there, 5 now\)'):
    main.run('prepare', Settings.of(config), tmp_path)


def test_a_full_disk_is_noticed_first(
  config: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  usage = collections.namedtuple('usage', 'total used free')
  monkeypatch.setattr(files.shutil, 'disk_usage', lambda _: usage(1, 1, 0))
  with pytest.raises(OSError, match='has 0 MB free, this needs about 10 MB'):
    main.run('prepare', Settings.of(config), tmp_path / 'run')


def test_a_network_that_fits_nowhere_is_one_message(
  data_dir: str, tmp_path: pathlib.Path
) -> None:
  config = tiny_configs.pretraining(data_dir)
  config.clip.update(vision_width=2**15, vision_layers=2**10)
  wanted = r'there is no memory for [\d,.]+ GiB more; lower config\.train\.batch_size'
  with pytest.raises(UserError, match=wanted):
    main.run('train', Settings.of(config), tmp_path)


def test_arguments_after_the_colon_are_checked() -> None:
  with pytest.raises(ValueError, match="Did you mean 'smoke'"):
    common.finish(common.base('test', 'train'), 'smok')


def test_only_messages_for_users_lose_their_traceback(
  monkeypatch: pytest.MonkeyPatch,
  tmp_path: pathlib.Path,
  capsys: pytest.CaptureFixture[str],
) -> None:
  flags = {'_CONFIG': common.base('test', 'train'), '_WORKDIR': str(tmp_path)}
  flags |= dict.fromkeys(('_PREDICTIONS', '_MASKS', '_I_KNOW', '_MULTIHOST'))
  for name, value in flags.items():
    monkeypatch.setattr(main, name, types.SimpleNamespace(value=value))
  monkeypatch.setattr(main.config_flags, 'get_override_values', lambda _: {})

  def end_with(error: Exception) -> None:
    def run(*_: object) -> None:
      raise error

    monkeypatch.setattr(main, 'run', run)
    main.main(['ovs_jax.main'])

  for error in (UserError('too few'), OSError('disk full'), FloatingPointError('nan')):
    with pytest.raises(SystemExit) as ended:
      end_with(error)
    assert ended.value.code == 2 and capsys.readouterr().err == f'error: {error}\n'
  for number in (errno.ENOSPC, errno.EDQUOT):  # a disk that fills while it works
    with pytest.raises(SystemExit):
      end_with(OSError(number, 'as the system says it'))
    said = f'error: no space left for {tmp_path}; what is finished stays. Free some '
    assert capsys.readouterr().err.startswith(said)
  with pytest.raises(ValueError, match='a fault of ours'):
    end_with(ValueError('a fault of ours'))


@pytest.mark.slow
def test_a_killed_quickstart_goes_on(tmp_path: pathlib.Path) -> None:
  data, run = tmp_path / 'data', tmp_path / 'run'
  line = command(
    '--config=configs/quickstart.py:smoke',
    f'--config.dataset.data_dir={data}',
    f'--workdir={run}',
  )
  environment = {**os.environ, 'JAX_COMPILATION_CACHE_DIR': str(tmp_path / 'programs')}
  with (tmp_path / 'log').open('w') as log:
    process = subprocess.Popen(line, cwd=ROOT, env=environment, stdout=log, stderr=log)
    deadline = time.time() + 600
    # Killed while the proposer is training.
    while not (run / 'proposer' / 'metrics.jsonl').exists():
      assert process.poll() is None and time.time() < deadline
      time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
  finished = json.loads((run / 'clip' / 'done.json').read_text())
  assert not (run / 'proposer' / 'done.json').exists()
  done = subprocess.run(
    line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
  )
  assert done.returncode == 0, done.stderr
  assert 'clip: finished earlier, skipped' in done.stdout
  assert json.loads((run / 'clip' / 'done.json').read_text()) == finished
  assert (run / 'report.md').exists()
