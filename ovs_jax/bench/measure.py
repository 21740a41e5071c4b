"""Times the alternatives of one piece of work in turns, on the same machine state."""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.flops import count_work


@dataclasses.dataclass(frozen=True)
class Program:
  """What XLA compiled.

  Attributes:
    compiled: the program.
    work: operations of one run by the type of their factors, see
      `core.flops.count_work`; on several accelerators, of one.
  """

  compiled: jax.stages.Compiled
  work: dict[str, float]

  @property
  def flops(self) -> float:
    """Operations of all types."""
    return sum(self.work.values(), 0.0)

  def __call__(self, *args: Any) -> Any:
    """Runs it."""
    return self.compiled(*args)


def compile_program(function: Any, *args: Any, devices: int = 1) -> Program:
  """Compiles a jitted function for some arguments.

  Args:
    function: what `jax.jit` returned.
    args: its arguments.
    devices: that share the work. Simulated ones share one processor, too.
  """
  traced = function.trace(*args)
  shared = 1 if jax.default_backend() == 'cpu' else devices
  work = {kind: n / shared for kind, n in count_work(function, *args).items()}
  return Program(traced.lower().compile(), work)


@dataclasses.dataclass(frozen=True)
class Variant:
  """One way to do the work.

  Attributes:
    name: what it is called in the table.
    run: does the work once; returns arrays, which the clock waits for.
    flops: of one run by formula, a multiply-add being two; None: those of `program`.
    program: that it runs, for XLA's own count and its memory; None: not one program.
  """

  name: str
  run: Callable[[], Any]
  flops: float | None = None
  program: Program | None = None


@dataclasses.dataclass(frozen=True)
class Workload:
  """A piece of work that every variant does.

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
    raise UserError(
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
  counted, memory = program_facts(variant.program)
  flops = variant.flops
  if flops is None and variant.program is not None:
    flops = variant.program.flops
  return {
    'variant': variant.name,
    'seconds': median,
    'p95_seconds': float(np.percentile(taken, 95)),
    'spread_seconds': max(taken) - min(taken),
    'items_per_second': workload.items / median,
    'flops': flops,
    'flops_by_xla': counted,
    'flops_per_second': flops / median if flops else None,
    'utilisation': flops / median / peak if flops and peak else None,
    'program_bytes': memory,
  }


def program_facts(
  program: Program | None,
) -> tuple[float | None, int | None]:
  """Returns XLA's count of floating-point operations and of bytes live at once."""
  if program is None:
    return None, None
  cost = program.compiled.cost_analysis() or {}
  flops = cost.get('flops', math.nan)
  memory = program.compiled.memory_analysis()
  size = None
  if memory is not None:
    size = (
      memory.argument_size_in_bytes
      + memory.output_size_in_bytes
      - memory.alias_size_in_bytes
      + memory.temp_size_in_bytes
    )
  return (float(flops) if flops > 0 else None), size
