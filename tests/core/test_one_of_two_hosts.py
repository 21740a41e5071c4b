"""A process of several that saves and loads a model while the others do not."""

import pathlib

import pytest
from two_processes import run_both

PROGRAM = """
import pathlib, sys
import jax
import numpy as np
jax.config.update('jax_cpu_collectives_implementation', 'gloo')
address, index, directory = sys.argv[1:]
jax.distributed.initialize(address, num_processes=2, process_id=int(index))
from ovs_jax.core import checkpoint, hosts
model = pathlib.Path(directory) / 'model'
if hosts.primary():
  for value in (1, 2):
    checkpoint.save_model(model, {'w': np.full(3, value)}, {'model': 'clip'})
  assert checkpoint.load_model(model)[0]['w'].tolist() == [2, 2, 2]
hosts.barrier('written')
if not hosts.primary():
  assert checkpoint.load_config(model) == {'model': 'clip'}
hosts.barrier('read')
assert checkpoint.load_model(model)[0]['w'].tolist() == [2, 2, 2]
hosts.barrier('both')
"""


@pytest.mark.slow
def test_each_process_works_for_itself(tmp_path: pathlib.Path) -> None:
  run_both(PROGRAM, tmp_path)
