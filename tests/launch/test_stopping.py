"""SIGTERM to real runs outside of training: the status, and what is left."""

import pathlib
import signal
import time

import pytest
from fake_checkout import Checkout
from test_processes import checkout as checkout  # noqa: F401 (a fixture)
from test_processes import finish, start


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
