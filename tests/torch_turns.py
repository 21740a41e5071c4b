"""What the comparisons with PyTorch share: timing in turns, and versions."""

import importlib.metadata
import os
import statistics
import time
from collections.abc import Callable

import jax
import torch


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
    'torch': torch.__version__,
    'transformers': importlib.metadata.version('transformers'),
    'jax': jax.__version__,
  }
