"""Two processes never work in one directory."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from ovs_jax.core.locks import alone

HOLDER = """
import pathlib, sys, time
from ovs_jax.core.locks import alone
with alone(pathlib.Path(sys.argv[1])):
  print('in', flush=True)
  time.sleep(60)
"""


def hold(directory: pathlib.Path) -> subprocess.Popen[str]:
  line = [sys.executable, '-c', HOLDER, str(directory)]
  process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
  assert process.stdout and process.stdout.readline() == 'in\n'
  return process


def test_the_second_is_told_who_is_there(tmp_path: pathlib.Path) -> None:
  process = hold(tmp_path)
  said = f'{tmp_path} is in use by process {process.pid} on .*, since 20.*; wait until'
  with pytest.raises(ValueError, match=said), alone(tmp_path):
    pass
  os.kill(process.pid, signal.SIGKILL)
  process.wait()
  with alone(tmp_path):  # what a killed one leaves is nothing
    assert f'process {os.getpid()} ' in (tmp_path / '.lock').read_text()


def test_it_is_let_go_after_a_failure(tmp_path: pathlib.Path) -> None:
  with pytest.raises(ZeroDivisionError), alone(tmp_path):
    raise ZeroDivisionError
  with alone(tmp_path), alone(tmp_path.parent):
    pass
