"""A program in several processes that know of each other through `jax.distributed`."""

import os
import pathlib
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
_DEVICES = '--xla_force_host_platform_device_count'


def run_both(program: str, *args: object) -> list[str]:
  """Returns what two processes printed; both must end well; see `run_together`."""
  return run_together(program, *args, count=2)


def run_together(
  program: str, *args: object, count: int, devices: int = 1, timeout: float = 540
) -> list[str]:
  """Returns what the processes printed; all must end well.

  Args:
    program: Python code; sys.argv[1:] are the address of the first process, its own
      index, and `args`.
    args: see `program`.
    count: of processes.
    devices: that each of them simulates.
    timeout: seconds.
  """
  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'localhost:{free.getsockname()[1]}'
  # The last of the same flags counts.
  flags = f'{os.environ["XLA_FLAGS"]} {_DEVICES}={devices}'
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': flags}
  started = [
    subprocess.Popen(
      [sys.executable, '-c', program, address, f'{i}', *map(str, args)],
      cwd=ROOT,
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for i in range(count)
  ]
  try:
    said = [process.communicate(timeout=timeout)[0] for process in started]
  finally:
    for process in started:
      process.kill()  # which does nothing to those that have ended
  assert [process.returncode for process in started] == [0] * count, said
  return said
