"""A program in two processes that know of each other through `jax.distributed`."""

import os
import pathlib
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]


def run_both(program: str, *args: object) -> list[str]:
  """Returns what the two processes printed; both must end well.

  Args:
    program: Python code; sys.argv[1:] are the address of the first process, its own
      index, and `args`.
    args: see `program`.
  """
  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'localhost:{free.getsockname()[1]}'
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': ''}
  started = [
    subprocess.Popen(
      [sys.executable, '-c', program, address, f'{i}', *map(str, args)],
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
  return said
