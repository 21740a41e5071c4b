"""What a compiled program sends between its devices, read from its HLO."""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator

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
_CALLED = re.compile(r'(body|calls|to_apply|branch_computations)=\{?([%\w.\-, ]+)\}?')
_TURNS = re.compile(r'known_trip_count[^}]*?"n":"(\d+)"')


@dataclasses.dataclass
class _Computation:
  """Own traffic by kind, and (computation, times) for those that it calls."""

  sent: collections.Counter = dataclasses.field(default_factory=collections.Counter)
  called: list[tuple[str, int]] = dataclasses.field(default_factory=list)


def traffic(hlo: str) -> dict[str, int]:
  """Returns the bytes of the results of all collectives of a step, by kind.

  A loop's body counts as often as it runs, where XLA knows how often that is. A
  reduce-scatter counts what goes into it.

  Args:
    hlo: `jax.jit(f).lower(...).compile().as_text()`.

  Raises:
    ValueError: the text has no entry.
  """
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
    raise ValueError('this is not the text of an HLO module: it has no ENTRY')
  total: collections.Counter = collections.Counter()
  for name, times in _walk(computations, entry, 1):
    for kind, size in computations[name].sent.items():
      total[kind] += size * times
  return dict(total)


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
  turns = _TURNS.search(line)
  for _, names in _CALLED.findall(line):
    for name in names.split(','):
      computation.called.append((name.strip(' %'), int(turns[1]) if turns else 1))


def _walk(
  computations: dict[str, _Computation], name: str, times: int
) -> Iterator[tuple[str, int]]:
  """Yields every call of a computation with how often it happens."""
  if name in computations:
    yield name, times
    for called, turns in computations[name].called:
      yield from _walk(computations, called, times * turns)
