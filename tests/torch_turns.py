"""What the comparisons with PyTorch share: options, cores, timing in turns, versions.

Imported before anything that counts cores, and before what lies in other folders.
"""

import argparse
import importlib.metadata
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

_HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE.parent), *(str(_HERE / x) for x in ('support', 'parity'))]

REPEATS = ('--repeats', 5, 'of each, in turns')


def options(
  doc: str,
  *given: tuple[str, Any, str],
  choices: dict[str, Sequence[str]] | None = None,
) -> argparse.Namespace:
  """Reads the options of a command, and keeps the process to so many cores.

  Freed memory is kept, for both, as `launch/run.sh` has it.

  Args:
    doc: what the command is for, in its first line.
    given: name, default and meaning of each option, beside `--threads`.
    choices: what some of them may be.
  """
  parser = argparse.ArgumentParser(description=doc.split('\n')[0])
  for name, default, told in (*given, ('--threads', 2, 'cores for both')):
    allowed = (choices or {}).get(name.strip('-'))
    kind = type(default)
    parser.add_argument(name, default=default, type=kind, help=told, choices=allowed)
  found = parser.parse_args()
  os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: found.threads])
  from ovs_jax.core.devices import keep_memory  # imports JAX, which counts cores

  keep_memory()
  return found


def median_seconds(*jobs: Callable[[], object], repeats: int) -> list[float]:
  """Runs the jobs in turns, and returns the median time of each."""

  def seconds(job: Callable[[], object]) -> float:
    began = time.perf_counter()
    job()
    return time.perf_counter() - began

  times = [[seconds(job) for job in jobs] for _ in range(repeats)]
  return [statistics.median(column) for column in zip(*times, strict=True)]


def circumstances() -> dict[str, str | float]:
  """Returns the versions, and how busy the machine is."""
  return {
    'load': os.getloadavg()[0],
    **{name: importlib.metadata.version(name) for name in ('torch', 'transformers')},
    'jax': importlib.metadata.version('jax'),
  }
