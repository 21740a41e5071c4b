"""A process of several that saves and loads a model while the others do not."""

import os
import pathlib
import socket
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]

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
  assert np.asarray(checkpoint.open_model(model)[0]['w']).tolist() == [2, 2, 2]
hosts.barrier('read')
assert checkpoint.load_model(model)[0]['w'].tolist() == [2, 2, 2]
hosts.barrier('both')
"""


@pytest.mark.slow
def test_each_process_works_for_itself(tmp_path: pathlib.Path) -> None:
  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'localhost:{free.getsockname()[1]}'
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': ''}
  started = [
    subprocess.Popen(
      [sys.executable, '-c', PROGRAM, address, f'{i}', tmp_path],
      cwd=ROOT,
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for i in range(2)
  ]
  said = [process.communicate(timeout=300)[0] for process in started]
  assert [process.returncode for process in started] == [0, 0], said
