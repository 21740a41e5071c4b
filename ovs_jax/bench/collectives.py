"""What a compiled program sends between its devices, read from its HLO."""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator

from ovs_jax.core.errors import UserError

_BYTES = {'pred': 1, 's8': 1, 'u8': 1, 'bf16': 2, 'f16': 2, 's32': 4, 'u32': 4}
_BYTES |= {'f32': 4, 's64': 8, 'u64': 8, 'f64': 8}
_KINDS = (
  'all-reduce',
  'all-gather',
  'reduce-scatter',
  'all-to-all',
  'collective-permute',
)
_HEADER = re.compile(r'^(ENTRY )?%?([\w.\-]+) .*\{$')
_INSTRUCTION = re.compile(r'^\s+(?:ROOT )?%?[\w.\-]+ = (.*?) ([\w\-]+)\(')
_SHAPE = re.compile(r'(\w+)\[([\d,]*)\]')
_CALLED = re.compile(
  r'(body|condition|calls|to_apply|branch_computations)=(\{[^}]*\}|[%\w.\-]+)'
)
_NAME = re.compile(r'op_name="([^"]*)"')
_TURNS = re.compile(r'known_trip_count[^}]*?"n":"(\d+)"')


@dataclasses.dataclass
class _Computation:
  """Own traffic by kind, (computation, times) for those that it calls, and loops."""

  sent: collections.Counter = dataclasses.field(default_factory=collections.Counter)
  count: int = 0  # of collectives
  called: list[tuple[str, int]] = dataclasses.field(default_factory=list)
  loops: list[tuple[str, int | None, list[str]]] = dataclasses.field(
    default_factory=list
  )


@dataclasses.dataclass(frozen=True)
class Loop:
  """A loop in which devices wait for each other.

  Attributes:
    name: where it comes from, as 'jit(step)/transpose(jvp(Model))/backbone/while'.
    turns: how often it turns; None if that depends on the data.
    collectives: of a turn, those of loops inside it counted once.
  """

  name: str
  turns: int | None
  collectives: int


def traffic(hlo: str) -> dict[str, int]:
  """Returns the bytes of the results of all collectives of a step, by kind.

  A loop's body counts as often as it runs, where XLA knows how often that is. A
  reduce-scatter counts what goes into it.

  Args:
    hlo: `jax.jit(f).lower(...).compile().as_text()`.

  Raises:
    ValueError: the text has no entry.
  """
  computations, entry = _parse(hlo)
  total: collections.Counter = collections.Counter()
  for name, times in _walk(computations, entry, 1):
    for kind, size in computations[name].sent.items():
      total[kind] += size * times
  return dict(total)


def waiting_loops(hlo: str) -> list[Loop]:
  """Returns the loops with collectives in their bodies or conditions.

  Args:
    hlo: text of a compiled program, as for `traffic`.

  Raises:
    ValueError: the text has no entry.
  """
  computations, _ = _parse(hlo)
  found = []
  for computation in computations.values():
    for name, turns, inside in computation.loops:
      reached = {x for part in inside for x, _ in _walk(computations, part, 1)}
      count = sum(computations[x].count for x in reached)
      if count:
        found.append(Loop(name, turns, count))
  return found


def _parse(hlo: str) -> tuple[dict[str, _Computation], str]:
  """Returns all computations by name, and the name of the entry."""
  computations: dict[str, _Computation] = {}
  entry, current = '', _Computation()
  for line in hlo.splitlines():
    header = _HEADER.match(line)
    if header:
      current = computations.setdefault(header[2], _Computation())
      entry = header[2] if header[1] else entry
    else:
      _read(line, current)
  if not entry:
    raise UserError('this is not the text of an HLO module: it has no ENTRY')
  return computations, entry


def _read(line: str, computation: _Computation) -> None:
  """Adds what an instruction sends and calls to its computation."""
  found = _INSTRUCTION.match(line)
  if not found:
    return
  shapes, operation = found[1], found[2].removesuffix('-start')
  if operation in _KINDS:
    size = sum(
      _BYTES[dtype] * math.prod(int(n) for n in sides.split(',') if n)
      for dtype, sides in _SHAPE.findall(shapes)
      if dtype in _BYTES
    )
    groups = re.search(r'replica_groups=\[(\d+),(\d+)\]', line)
    listed = re.search(r'replica_groups=\{\{([\d,]+)\}', line)
    if operation == 'reduce-scatter' and (groups or listed):
      size *= int(groups[2]) if groups else listed[1].count(',') + 1
    computation.sent[operation] += size
    computation.count += 1
  known = _TURNS.search(line)
  turns = int(known[1]) if known else None
  called = {kind: re.findall(r'[\w.\-]+', x) for kind, x in _CALLED.findall(line)}
  computation.called += [(x, turns or 1) for names in called.values() for x in names]
  if operation == 'while':
    origin = _NAME.search(line)
    inside = [*called['body'], *called['condition']]
    computation.loops.append((origin[1] if origin else '', turns, inside))


def _walk(
  computations: dict[str, _Computation], name: str, times: int
) -> Iterator[tuple[str, int]]:
  """Yields every call of a computation with how often it happens."""
  if name in computations:
    yield name, times
    for called, turns in computations[name].called:
      yield from _walk(computations, called, times * turns)
