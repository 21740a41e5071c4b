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


def test_what_is_a_command() -> None:
  for line in (['python', '-m', 'ovs_jax.main'], ['p', '-X', 'a', '-m', 'ovs_jax']):
    assert is_command(line, 'ovs_jax')
  for line in (['python', '-m', 'pytest'], ['python', 'x.py'], ['p', '-m'], []):
    assert not is_command(line, 'ovs_jax')
  assert not is_command(['python', '-m', 'ovs_jax_more.main'], 'ovs_jax')
