"""Times the alternatives of one piece of work in turns, on the same machine state."""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class Variant:
  """One way to do the work.

  Attributes:
    name: what it is called in the table.
    run: does the work once; returns arrays, which the clock waits for.
    flops: of one run by formula, a multiply-add being two; None: not counted.
    program: what XLA compiled for it, for its own count and its memory; None: not one
      program.
  """

  name: str
  run: Callable[[], Any]
  flops: float | None = None
  program: jax.stages.Compiled | None = None


@dataclasses.dataclass(frozen=True)
class Workload:
  """The same work, done by every variant.

  Attributes:
    unit: what is counted, in the plural: 'crops'.
    items: how many of them one run handles.
    variants: first what the package does, then what it is compared with.
    facts: sizes and agreement of the variants, for the report.
  """

  unit: str
  items: int
  variants: Sequence[Variant]
  facts: dict[str, Any] = dataclasses.field(default_factory=dict)


def measure(
  workload: Workload, *, warmup: int = 1, repeats: int = 5, peak: float | None = None
) -> list[dict[str, Any]]:
  """Returns one row for each variant, in their order.

  The variants run in turns, so that a change of the machine's speed meets all of them.

  Args:
    workload: what to time.
    warmup: untimed runs of each, which compile.
    repeats: timed runs of each.
    peak: floating-point operations per second of this device, for the utilisation.

  Raises:
    ValueError: no repeats are asked for.
  """
  if repeats < 1 or warmup < 0:
    raise ValueError(
      f'{repeats} repeats after {warmup} to warm up; expected at least 1 and 0'
    )
  for variant in workload.variants:
    for _ in range(warmup):
      jax.block_until_ready(variant.run())
  times: list[list[float]] = [[] for _ in workload.variants]
  for _ in range(repeats):
    for variant, taken in zip(workload.variants, times, strict=True):
      began = time.perf_counter()
      jax.block_until_ready(variant.run())
      taken.append(time.perf_counter() - began)
  rows = [
    _row(workload, variant, taken, peak)
    for variant, taken in zip(workload.variants, times, strict=True)
  ]
  first = rows[0]['seconds']
  for row in rows:
    row['ratio'] = row['seconds'] / first
  return rows


def _row(
  workload: Workload, variant: Variant, taken: list[float], peak: float | None
) -> dict[str, Any]:
  """Figures of one variant; None where there is nothing to tell."""
  median = statistics.median(taken)
  counted, memory = _program_facts(variant.program)
  flops = variant.flops or counted
  return {
    'variant': variant.name,
    'seconds': median,
    'p95_seconds': float(np.percentile(taken, 95)),
    'spread_seconds': max(taken) - min(taken),
    'items_per_second': workload.items / median,
    'flops': variant.flops,
    'flops_by_xla': counted,
    'flops_per_second': flops / median if flops else None,
    'utilisation': flops / median / peak if flops and peak else None,
    'program_bytes': memory,
  }


def _program_facts(
  program: jax.stages.Compiled | None,
) -> tuple[float | None, int | None]:
  """XLA's count of floating-point operations and of bytes that are live at once."""
  if program is None:
    return None, None
  cost = program.cost_analysis() or {}
  flops = cost.get('flops', math.nan)
  memory = program.memory_analysis()
  size = None
  if memory is not None:
    size = (
      memory.argument_size_in_bytes
      + memory.output_size_in_bytes
      - memory.alias_size_in_bytes
      + memory.temp_size_in_bytes
    )
  return (float(flops) if flops > 0 else None), size
