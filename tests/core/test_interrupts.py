"""Ctrl-C at the commands."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from ovs_jax.core.interrupts import is_command

ROOT = pathlib.Path(__file__).parents[2]
COMMANDS = {
  'ovs_jax.main': ['--config=configs/scenes.py:clip:smoke'],
  'ovs_jax.predict': ['--checkpoint=x', '--image=y', '--names=z'],
  'ovs_jax.bench': ['--workload=clip_crops'],
}


@pytest.mark.parametrize('name', COMMANDS)
def test_it_is_one_line(name: str, tmp_path: pathlib.Path) -> None:
  # Amid the imports: what all commands import is interrupted.
  (tmp_path / 'jax.py').write_text('raise KeyboardInterrupt')
  done = subprocess.run(
    [sys.executable, '-m', name, *COMMANDS[name]],
    cwd=ROOT,
    env={**os.environ, 'PYTHONPATH': str(tmp_path)},
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert done.returncode == -signal.SIGINT
  assert done.stderr.strip() == 'stopped; run the same command again to go on'


def ended(code: str, folder: pathlib.Path) -> tuple[int, str]:
  """Runs a program that a file `wait.py` may be imported from; returns how it ended."""
  (folder / 'wait.py').write_text(
    'import os, signal\n'
    'try:\n'
    '  os.kill(os.getpid(), signal.SIGINT)\n'
    'except BaseException as error:\n'
    '  raise ImportError("an extension") from error\n'
  )
  begin = 'import os, signal\nfrom ovs_jax.core import interrupts\n'
  begin += 'def stop(): os.kill(os.getpid(), signal.SIGINT)\n'
  done = subprocess.run(
    [sys.executable, '-c', f'{begin}interrupts.end_in_one_line()\n{code}'],
    env={**os.environ, 'PYTHONPATH': f'{ROOT}:{folder}'},
    capture_output=True,
    text=True,
    timeout=60,
  )
  return done.returncode, done.stderr + done.stdout


LINE = '\nstopped; run the same command again to go on\n'


def test_amid_an_import_nothing_is_raised(tmp_path: pathlib.Path) -> None:
  """Extensions make an ImportError of an exception, and some abort."""
  assert ended('import wait', tmp_path) == (-signal.SIGINT, LINE)
  # What imports while it works is ended by an exception.
  (tmp_path / 'work.py').write_text('def f():\n  import wait')
  code = 'import work\nwork.f()'
  status, said = ended(code, tmp_path)
  assert status == 1 and 'ImportError: an extension' in said


def test_the_second_is_ignored_and_the_third_is_not(tmp_path: pathlib.Path) -> None:
  (tmp_path / 'work.py').write_text(
    'def work(stop):\n'
    '  try:\n'
    '    stop()\n'
    '  finally:\n'
    '    stop()\n'
    '    print("tidy")\n'
    'def deaf(stop):\n'
    '  for _ in range(2):\n'
    '    try:\n'
    '      stop()\n'
    '    except BaseException:\n'
    '      print("what?", flush=True)\n'
    '  stop()\n'
    '  print("never")\n'
  )
  begin = 'import work\n'
  assert ended(f'{begin}work.work(stop)', tmp_path) == (
    -signal.SIGINT,
    f'{LINE}tidy\n',
  )
  assert ended(f'{begin}work.deaf(stop)', tmp_path) == (
    -signal.SIGINT,
    f'{LINE}what?\n',
  )


def test_all_is_tidied_up_before_the_end(tmp_path: pathlib.Path) -> None:
  code = (
    'import atexit\natexit.register(print, "tidy", flush=True)\n'
    'class Late:\n  def __del__(self): print("too late", flush=True)\n'
    'late = Late()\nraise KeyboardInterrupt'
  )
  assert ended(code, tmp_path) == (-signal.SIGINT, f'{LINE}tidy\n')


def test_whoever_wants_no_interrupts_gets_none() -> None:
  code = (
    'import signal, os\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n'
    'from ovs_jax.core import interrupts\ninterrupts.end_in_one_line()\n'
    'os.kill(os.getpid(), signal.SIGINT)\nprint("goes on")'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True
  )
  assert (done.returncode, done.stdout) == (0, 'goes on\n')


def test_what_is_a_command() -> None:
  for line in (['python', '-m', 'ovs_jax.main'], ['p', '-X', 'a', '-m', 'ovs_jax']):
    assert is_command(line, 'ovs_jax')
  for line in (['python', '-m', 'pytest'], ['python', 'x.py'], ['p', '-m'], []):
    assert not is_command(line, 'ovs_jax')
  assert not is_command(['python', '-m', 'ovs_jax_more.main'], 'ovs_jax')


def test_the_interpreter_is_not_taken_down(tmp_path: pathlib.Path) -> None:
  """Threads of programs that still run do not always survive that."""
  code = (
    'class Last:\n'
    '  def __del__(self):\n'
    '    print("taken down", flush=True)\n'
    'signal.last = Last()\n'
  )
  assert ended(code, tmp_path) == (0, 'taken down\n')
  assert ended(f'{code}stop()', tmp_path) == (-signal.SIGINT, LINE)
