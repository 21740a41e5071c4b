"""Measuring and killing the stages of a run, on one that only pretends to work."""

import contextlib
import json
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest

from configs import rehearsal as configuration
from ovs_jax.bench import rehearsal
from ovs_jax.core.checkpoint import save_model
from ovs_jax.core.errors import UserError
from ovs_jax.core.files import write_json
from ovs_jax.settings import Settings

# Two stages; it notes every start of them, and skips what has finished.
RUN = """
import pathlib, sys, time
run = pathlib.Path(sys.argv[-1].removeprefix('--workdir='))
run.mkdir(exist_ok=True)
held = []
for number, name in enumerate(('one', 'two'), start=1):
  if (run / name).exists():
    print(f'[{number}/2] {name}: finished earlier, skipped', flush=True)
    continue
  print(f'[{number}/2] {name} (train)', flush=True)
  with open(run / 'starts', 'a') as file:
    file.write(name + ' ')
  held.append(bytearray(number * 40 * 2**20))
  time.sleep(0.5)
  if 'fail' in sys.argv:
    sys.exit('error: it does not work')
  (run / name).write_bytes(bytes(number * 2**20))
  print(f'[{number}/2] {name}: 1 s', flush=True)
"""


@pytest.fixture
def command(tmp_path: pathlib.Path) -> list[str]:
  script = tmp_path / 'run.py'
  script.write_text(RUN)
  return [sys.executable, str(script)]


def test_stages_are_measured(command: list[str], tmp_path: pathlib.Path) -> None:
  one, two = rehearsal.run(command, tmp_path / 'run')
  assert (one.name, two.name) == ('one', 'two')
  assert 0.4 < one.seconds < 20
  assert round(one.disk) == 1 and round(two.disk) == 2
  assert 60 < two.peak - one.peak < 100  # the second one takes 80 MB more
  assert '| two | ' in rehearsal.markdown([one, two])
  assert rehearsal.run(command, tmp_path / 'run') == []


def test_the_peak_of_a_process_is_known_after_its_end() -> None:
  words = [sys.executable, '-c', 'x = bytearray(90 * 2**20); input()']
  with subprocess.Popen(words, stdin=subprocess.PIPE) as process:
    with contextlib.closing(rehearsal.Peak(process.pid)) as peak:
      while peak.value() < 90:
        time.sleep(0.05)
      process.communicate(b'end')
      assert not pathlib.Path(f'/proc/{process.pid}').exists()
      assert 90 < peak.value() < 120
  peak.forget()  # of no process, which is not an error


def test_every_stage_is_killed_once(command: list[str], tmp_path: pathlib.Path) -> None:
  rehearsal.kill_each(command, tmp_path / 'run', {'one': 0.5, 'two': 0.5})
  assert (tmp_path / 'run' / 'starts').read_text() == 'one one two two '
  assert (tmp_path / 'run' / 'two').stat().st_size == 2 * 2**20


def test_a_failure_is_told(command: list[str], tmp_path: pathlib.Path) -> None:
  for start in (rehearsal.run, rehearsal.kill_each):
    with pytest.raises(UserError, match='(?s)the command failed:.*it does not work'):
      more = ({},) if start is rehearsal.kill_each else ()
      start([*command, 'fail'], tmp_path / 'run', *more)


def test_a_changed_bit_is_seen(tmp_path: pathlib.Path) -> None:
  whole = Settings.of(configuration.get_config('test'))
  chosen = {name: whole.stages[name] for name in ('ft_vitl14', 'paper_table1')}
  config = Settings('x', 'pipeline', order=tuple(chosen), stages=chosen)

  def make(run: pathlib.Path, value: float) -> dict[str, str]:
    params = {'w': np.full(3, value, np.float32)}
    save_model(run / 'runs' / 'ft_vitl14', params, {'model': 'clip'})
    rows = [{'run': str(run), 'measured': [value], 'seconds': str(run)}]
    write_json(run / 'paper_table1' / 'report.json', {'rows': rows})
    return rehearsal.results(config, run)

  first = make(tmp_path / 'a', 1.0)
  assert first == make(tmp_path / 'b', 1.0)
  other = make(tmp_path / 'c', np.nextafter(1.0, 2, dtype=np.float32).item())
  assert all(first[name] != other[name] for name in chosen)
  assert json.loads((tmp_path / 'a/paper_table1/report.json').read_text())['rows']
