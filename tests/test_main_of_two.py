"""Which processes do a stage's work, in a pipeline of two real processes."""

import json
import pathlib

from two_processes import run_both

PROGRAM = """
import json, os, pathlib, sys
import jax
import numpy as np
from configs import common
from ovs_jax import main
from ovs_jax.core import hosts
from ovs_jax.evaluate.tally import gather

address, index, workdir = sys.argv[1:]
os.environ.update(OVS_COORDINATOR=address, OVS_PROCESSES='2', OVS_PROCESS=index)
hosts.join()
worked = []

def together(config, workdir):
  worked.append(config.mode)
  return {'parts': [part.decode() for part in gather(index.encode())]}

def alone(config, workdir):
  worked.append(config.mode)
  return {}

main.MODES.update({mode: alone for mode in main.MODES if mode != 'pipeline'})
for mode in ('train', 'evaluate', 'benchmark', 'mine'):  # those that gather
  main.MODES[mode] = together
config = common.base('all', 'pipeline')
config.order = tuple(mode for mode in main.MODES if mode != 'pipeline')
config.stages = {mode: common.base(mode, mode) for mode in config.order}
for stage in config.stages.values():
  stage.needs = ()
results = main.run('pipeline', config, pathlib.Path(workdir))
print(json.dumps([worked, results]))
"""


def test_those_that_gather_work_together(tmp_path: pathlib.Path) -> None:
  said = run_both(PROGRAM, tmp_path)
  (one, results), (other, same) = (json.loads(text.splitlines()[-1]) for text in said)
  assert results == same
  together = [mode for mode in results if results[mode]['result']]
  assert together == ['train', 'evaluate', 'benchmark', 'mine']
  assert all(results[mode]['result'] == {'parts': ['0', '1']} for mode in together)
  assert one == list(results)
  assert other == [mode for mode in one if mode in (*together, 'prepare')]
