"""SIGTERM to real runs outside of training: the status, and what is left."""

import pathlib
import signal
import subprocess
import sys
import time

import pytest
from fake_checkout import ROOT, Checkout
from test_processes import checkout as checkout  # noqa: F401 (a fixture)
from test_processes import finish, start

CONFIG = """
import os, signal
from configs import common

def get_config(arg=''):
  os.kill(os.getpid(), signal.SIGTERM)
  return common.base('early', 'train')
"""


def test_a_notice_before_the_work_ends_it_too(tmp_path: pathlib.Path) -> None:
  """Else a scheduler would not queue it again."""
  (tmp_path / 'early.py').write_text(CONFIG)
  command = [sys.executable, '-m', 'ovs_jax.main', f'--config={tmp_path}/early.py']
  process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  said = 'stopped before the work began; run the same command to go on\n'
  assert (process.returncode, process.stderr) == (75, said)


@pytest.mark.slow
@pytest.mark.parametrize('count', [1, 2])
def test_drawing_ends_and_leaves_nothing(
  checkout: Checkout,  # noqa: F811
  tmp_path: pathlib.Path,
  count: int,
) -> None:
  data = tmp_path / 'data'
  script = ('run.sh',) if count == 1 else ('local_processes.sh', f'{count}')
  run = ('--config=configs/quickstart.py', f'--workdir={tmp_path}/run')
  process = start(checkout, *script, *run, f'--config.dataset.data_dir={data}')
  deadline = time.monotonic() + 120
  while not list(data.glob('scenes/default/*incomplete*')):
    assert process.poll() is None and time.monotonic() < deadline
    time.sleep(0.1)
  process.send_signal(signal.SIGTERM)
  began = time.monotonic()
  err = finish(process, 75)
  assert time.monotonic() - began < 60
  assert 'stopped: scenes was not finished, and will be built anew' in err
  assert err.count('; run the same command to go on') == count
  assert [path.name for path in (data / 'scenes/default').iterdir()] == [
    '.prepare.lock'
  ]
  assert not (tmp_path / 'run/data/done.json').exists()
