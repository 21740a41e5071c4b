"""SIGTERM to one of two real processes ends both, wherever the other one is."""

import json

from two_processes import run_both

PROGRAM = """
import json, os, signal, sys, time
import jax
from ovs_jax.core import hosts
from ovs_jax.core.preemption import Preemption, Stopped, apart, asked, pause

address, index, scene = sys.argv[1:]
os.environ.update(OVS_COORDINATOR=address, OVS_PROCESSES='2', OVS_PROCESS=index)
first = index == '0'
said = {}
hosts.join()

def notice():
  os.kill(os.getpid(), signal.SIGTERM)

def loop(count):
  with Preemption() as preemption:
    for step in range(count):
      time.sleep(0.02)
      if preemption.reached():
        return step
      if not first and step == told_at:
        notice()

def work(units):
  with apart('units'):
    for i in range(units):
      pause(f'{i} of {units}')
      time.sleep(0.1)

try:
  if scene == 'units':
    with apart('outer'):
      work(2 + 3 * first)
      said['first'] = 'done'
      if not first:
        notice()
      work(10 ** 4 if first else 0)  # the one that was told waits for the other
  elif scene == 'steps':
    told_at = 3
    said['stopped'] = loop(10 ** 4)
  elif scene == 'between':
    told_at = -1
    said['first'] = loop(50)
    if not first:
      notice()
    time.sleep(2)  # until JAX has spread it
    said['second'] = loop(20)
  elif scene == 'failure':
    with apart('outer'):
      if first:
        raise ValueError('only here')
      time.sleep(1)
      work(2)
except (Stopped, OSError, ValueError) as error:
  said['error'] = f'{type(error).__name__}: {error}'
print(json.dumps(said))
"""


def run(scene: str) -> list[dict[str, object]]:
  return [json.loads(text.splitlines()[-1]) for text in run_both(PROGRAM, scene)]


def test_units_of_one_end_when_the_other_is_told() -> None:
  one, other = run('units')
  assert one['first'] == other['first'] == 'done'
  assert one['error'].startswith('Stopped: stopped: ')
  assert one['error'].endswith(' of 10000')
  assert other['error'] == 'Stopped: stopped in units'


def test_steps_end_together() -> None:
  one, other = run('steps')
  assert one['stopped'] == other['stopped']
  assert 3 < one['stopped'] < 1000


def test_a_notice_between_loops_ends_the_next_at_once() -> None:
  assert run('between') == [{'first': None, 'second': 0}] * 2


def test_a_failure_is_not_waited_for() -> None:
  one, other = run('failure')
  assert one == {'error': 'ValueError: only here'}
  said = 'OSError: process 0 failed; see what it says, then start again'
  assert other == {'error': said}
