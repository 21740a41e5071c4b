"""Which processes do a stage's work, in a pipeline of two real processes."""

import json
import pathlib
import re
from typing import Any

import pytest
from two_processes import run_both

# Modes whose processes exchange what they found.
GATHER = ['train', 'evaluate', 'benchmark', 'evaluate_systems', 'mine']
PROGRAM = f"""
GATHER = {GATHER}
"""
PROGRAM += """
import json, os, pathlib, signal, sys, threading, time
import jax
import numpy as np
from configs import common
from ovs_jax import main
from ovs_jax.core import hosts
from ovs_jax.core.preemption import Stopped, pause
from ovs_jax.evaluate.tally import gather
from ovs_jax.settings import Settings

address, index, workdir, long = sys.argv[1:]
os.environ.update(OVS_COORDINATOR=address, OVS_PROCESSES='2', OVS_PROCESS=index)
hosts.join()
worked = []
begun = pathlib.Path(workdir).with_name('begun')

def stop_when_begun():
  while not begun.exists():
    time.sleep(0.1)
  time.sleep(0.5)
  os.kill(os.getpid(), signal.SIGTERM)

def together(config, workdir):
  worked.append(config.mode)
  return {'parts': [part.decode() for part in gather(index.encode())]}

def alone(config, workdir):
  worked.append(config.mode)
  if config.mode == long:
    begun.touch()
  for i in range(1000 if config.mode == long else 0):
    pause(f'{i} of 1000 are done')
    time.sleep(0.05)
  return {}

main.MODES.update(
  {mode: '__main__:alone' for mode in main.MODES if mode != 'pipeline'}
)
for mode in GATHER:
  main.MODES[mode] = '__main__:together'
config = common.base('all', 'pipeline')
config.order = tuple(mode for mode in main.MODES if mode != 'pipeline')
config.stages = {mode: common.base(mode, mode) for mode in config.order}
for stage in config.stages.values():
  stage.needs = ()
if long and index == '1':
  threading.Thread(target=stop_when_begun, daemon=True).start()
try:
  results = main.run('pipeline', Settings.of(config), pathlib.Path(workdir))
except Stopped as stopped:
  results = str(stopped)
print(json.dumps([worked, results]))
"""


def run(workdir: pathlib.Path, *, long: str = '') -> list[tuple[list[str], Any]]:
  """The modes in which each process worked, and the results.

  Args:
    workdir: of the pipeline, whose stages are all modes.
    long: a mode that would take a minute; the process that waits is told to stop.
  """
  said = run_both(PROGRAM, workdir, long)
  return [json.loads(text.splitlines()[-1]) for text in said]


def test_those_that_gather_work_together(tmp_path: pathlib.Path) -> None:
  (one, results), (other, same) = run(tmp_path)
  assert results == same
  together = [mode for mode in results if results[mode]['result']]
  assert together == GATHER
  assert all(results[mode]['result'] == {'parts': ['0', '1']} for mode in together)
  assert one == list(results)
  assert other == [mode for mode in one if mode in (*together, 'prepare')]


@pytest.mark.slow
def test_who_waits_for_a_stage_can_end_it(tmp_path: pathlib.Path) -> None:
  (one, said), (other, heard) = run(tmp_path, long='assemble')
  assert re.fullmatch(r'stopped: \d+ of 1000 are done', said)
  assert heard == 'stopped in assemble'
  assert one[-1] == 'assemble' and 'assemble' not in other
  assert not (tmp_path / 'assemble/done.json').exists()
  (rest, results), _ = run(tmp_path)
  assert rest == list(results)[len(one) - 1 :]  # from that stage on
