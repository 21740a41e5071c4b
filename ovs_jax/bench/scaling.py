"""Says what training steps need and send, and predicts how they scale over chips.

    python -m ovs_jax.bench.scaling --write=docs/scaling.md

compiles the steps of the full-size configurations, from shapes alone, for eight
simulated devices, and writes the table of that document; with `--only=PART` the rows
whose names have that part. About a minute and 6 GB for each on one free core.

The prediction: a step computes at half the chip's peak for the types of its factors,
then sends what the program sends over the chip's links without hiding any of it. Real
runs overlap the two. The share is that of computing. With more chips come more
examples: sums stay as large, what is gathered of examples grows.
"""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ovs_jax.bench import drawn
from ovs_jax.bench.programs import StepProgram, compile_step
from ovs_jax.core.devices import simulate_devices
from ovs_jax.core.errors import UserError
from ovs_jax.settings import Settings

_UTILISATION = 0.5  # of a chip's peak while it computes
_DEVICES = 8  # that are simulated
_COUNTS = (8, 64, 256)  # chips of the predictions
_MARK = '<!-- made by python -m ovs_jax.bench.scaling -->'


@dataclasses.dataclass(frozen=True)
class Chip:
  """Published rates of one chip.

  Attributes:
    flops: dense operations per second by the type of the factors.
    link: bytes per second that it can send to its neighbours.
    island: chips that are connected so; 0: all of them.
    outside: bytes per second that it can send beyond its island.
  """

  flops: Mapping[str, float]
  link: float
  island: int = 0
  outside: float = 0.0


# Google's and NVIDIA's data sheets; of links, one direction. JAX rounds float32 factors
# to bfloat16 on TPUs and to TF32 on GPUs unless told otherwise.
CHIPS = {
  'v5e': Chip({'bfloat16': 197e12, 'float32': 197e12}, 100e9),
  'v5p': Chip({'bfloat16': 459e12, 'float32': 459e12}, 300e9),
  'H100': Chip(
    {'bfloat16': 989e12, 'float32': 494.5e12}, 450e9, island=8, outside=50e9
  ),
}


@dataclasses.dataclass(frozen=True)
class Row:
  """A training step to compile.

  Attributes:
    config: a file of `configs`.
    changed: keys of it, and what they become.
  """

  config: str
  changed: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def name(self) -> str:
    """The configuration, and what is changed in it."""
    return ', '.join([self.config, *(f'{k}={v}' for k, v in self.changed.items())])


_BF16 = {'proposer.dtype': 'bfloat16'}
_REMAT = {'proposer.remat': True}
_SPLIT = {'mesh.data': 4, 'mesh.model': 2}
ROWS = (
  Row('mpt_vitl14'),
  Row('mpt_vitl14', _SPLIT),
  Row('ft_vitl14'),
  Row('ft_vitl14', {'mesh.fsdp': True}),
  Row('ft_vitl14', _SPLIT),
  Row('coseg_prefix_vitb16'),
  Row('coseg_prefix_vitb16', {'clip.remat': True}),
  Row('clipseg_finetune'),
  Row('proposer_r101c'),
  Row('proposer_swin_b'),
  Row('proposer_swin_b', _REMAT),
  Row('proposer_swin_b', _BF16),
  Row('proposer_swin_b', _BF16 | _REMAT),
)


def ring_seconds(size: float, chips: int, chip: Chip) -> float:
  """Returns the time of an all-reduce of `size` bytes over `chips`.

  A ring sends 2 (n - 1) / n of the bytes. Beyond an island the chips of an island first
  add up among themselves, then each sends its part of the sum outside.
  """
  inside = min(chips, chip.island or chips)
  seconds = 2 * (inside - 1) / inside * size / chip.link
  islands = chips // inside
  if islands > 1:
    seconds += 2 * (islands - 1) / islands * (size / inside) / chip.outside
  return seconds


def computing_share(
  found: StepProgram, chips: int, chip: Chip, *, examples: int | float
) -> float:
  """Returns the share of a step in which a data-parallel chip computes.

  Args:
    found: the program for `_DEVICES` devices.
    chips: how many there are.
    chip: their rates.
    examples: of each.
  """
  peaks = chip.flops
  seconds = sum(n / peaks[kind] for kind, n in found.work.items())
  computing = seconds * examples / _UTILISATION
  # A gather sends half of what a sum of as many bytes does.
  gathered = sum(n for kind, n in found.sent.items() if kind != 'all-reduce')
  size = found.sent.get('all-reduce', 0) + gathered * chips / _DEVICES / 2
  return computing / (computing + ring_seconds(size, chips, chip))


def configured(given: Row) -> Any:
  """Returns the configuration of a row."""
  config = drawn.configuration(given.config)
  config.update_from_flattened_dict(dict(given.changed))
  return config


def row(given: Row) -> str:
  """Compiles a step; returns its line of the table."""
  config = configured(given)
  found = compile_step(Settings.of(config))
  # The model knows one axis, and that what is gathered are examples.
  plain = config.mesh.model == 1 and not config.mesh.fsdp
  return line(given.name, config.train.batch_size, found, predicted=plain)


def line(name: str, batch_size: int, found: StepProgram, *, predicted: bool) -> str:
  """Returns a line of the table, with predictions or without."""
  gathered = sum(n for kind, n in found.sent.items() if kind != 'all-reduce')
  turns = [loop.turns for loop in found.loops]
  endless = turns.count(None)
  waits = f'{sum(n for n in turns if n):,}' + (f' + {endless} loops' * bool(endless))
  examples = batch_size / _DEVICES
  cells = [
    name,
    f'{batch_size}',
    f'{sum(found.work.values()) / 1e9:,.0f}',
    f'{found.gradients / 1e6:,.1f}',
    f'{found.arguments / 1e6:,.0f}',
    f'{found.temporary / 1e6:,.0f}',
    f'{found.sent.get("all-reduce", 0) / 1e6:,.1f}',
    f'{gathered / 1e6:,.1f}',
    waits,
  ]
  for chip in CHIPS.values():
    shares = (computing_share(found, n, chip, examples=examples) for n in _COUNTS)
    cells.append(' / '.join(f'{x:.1%}' for x in shares) if predicted else '-')
  return '| ' + ' | '.join(cells) + ' |'


def heading() -> list[str]:
  """Returns the first two lines of the table."""
  counts = ' / '.join(map(str, _COUNTS))
  cells = [
    'step',
    'batch',
    'GFLOP per example',
    'gradients, MB',
    'state and batch, MB',
    'temporary, MB',
    'added up, MB',
    'gathered, MB',
    'turns that wait',
    *(f'{name}: {counts} chips' for name in CHIPS),
  ]
  return ['| ' + ' | '.join(cells) + ' |', '|' + '---|' * len(cells)]


def rewrite(text: str, lines: Mapping[str, str]) -> str:
  """Returns a document with lines of its table made anew, by the name of their step.

  Raises:
    ValueError: it has no place for the table, between two marks.
  """
  parts = text.split(_MARK)
  if len(parts) != 3:
    raise UserError(
      f'expected two lines {_MARK!r} with the table between them, found '
      f'{len(parts) - 1}; put them where it belongs'
    )
  old = [x for x in parts[1].splitlines() if x.startswith('| ')]
  kept = {x.split(' | ')[0].removeprefix('| '): x for x in old}
  kept.update(lines)
  rows = [kept[x.name] for x in ROWS if x.name in kept]
  return _MARK.join([parts[0], '\n'.join(['', *heading(), *rows, '']), parts[2]])


def main(argv: Sequence[str] | None = None) -> int:
  """Prints the lines of the table as they are compiled, and writes them."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument(
    '--only', default='', help='a step, or part of the names of several'
  )
  parser.add_argument('--write', type=pathlib.Path, help='document with the table')
  arguments = parser.parse_args(argv)
  only = arguments.only
  exact = [given for given in ROWS if given.name == only]
  chosen = exact or [given for given in ROWS if only in given.name]
  if not chosen:
    known = '; '.join(given.name for given in ROWS)
    parser.error(f'--only={only} is in the name of no step; known: {known}')
  simulate_devices(_DEVICES)
  print('\n'.join(heading()))
  for given in chosen:
    text = row(given)
    print(text, flush=True)
    if arguments.write is not None:
      document = arguments.write.read_text()
      arguments.write.write_text(rewrite(document, {given.name: text}))
  return 0


if __name__ == '__main__':
  sys.exit(main())
