"""Measures named workloads: rates, latencies, memory and utilisation.

    python -m ovs_jax.bench --workload=clip_crops --set=preset=b16 --set=batch=8

    python -m ovs_jax.bench --workload=clip_adapt_step --devices=8 --mesh=4,2 --batch=8

Every workload runs what the package does beside its alternatives, in turns in one
process, and reports their ratio. `--output=FILE.json` keeps the report, and
`--compare=FILE.json` shows the ratios to an earlier one.
"""

import argparse
import dataclasses
import importlib
import platform
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax

from ovs_jax.bench import WORKLOADS, checks
from ovs_jax.bench.measure import Workload, measure
from ovs_jax.core.devices import matmul_peak, peak_memory, simulate_devices
from ovs_jax.core.errors import UserError
from ovs_jax.core.files import place, read_json, write_json, write_text
from ovs_jax.core.lookup import lookup

DTYPES = {name: name for name in ('float32', 'bfloat16', 'float16')}


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns 0, or 2 after a mistake, which it explains.

  A workload of checks returns 1 if one of them does not hold.
  """
  arguments = parser().parse_args(argv)
  try:
    for given in (arguments.output, arguments.compare):
      if given and place(given).suffix != '.json':  # refused before the work
        raise UserError(f'{given} is no name of a report; expected FILE.json')
    report = run(arguments)
    if arguments.output is not None:
      write_json(arguments.output, report)
    if 'checks' in report:
      return _tell_checks(report, arguments.output)
    print(table(report))
    if arguments.compare is not None:
      print(compare(report, read_json(arguments.compare)))
  except (ValueError, OSError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  return 0


def _tell_checks(report: dict[str, Any], output: str | None) -> int:
  """Prints the rows, and keeps them beside the JSON file; returns the exit code."""
  title = f'{report["device"]}, JAX {report["jax"]}, {report["date"]}'
  text = f'{title}\n\n{checks.table(report["checks"])}\n'
  if output is not None:
    write_text(place(output).with_suffix('.md'), text)
  print(text, end='')
  return 0 if all(row['held'] for row in report['checks']) else 1


def parser() -> argparse.ArgumentParser:
  """Returns the parser of all flags."""
  parser = argparse.ArgumentParser(
    prog='python -m ovs_jax.bench', description=__doc__.split('\n')[0]
  )
  parser.add_argument('--workload', required=True, help=', '.join(WORKLOADS))
  parser.add_argument(
    '--set', action='append', default=[], metavar='KEY=VALUE', help='an option of it'
  )
  parser.add_argument(
    '--devices', type=int, help='CPU devices to simulate; accelerators must be as many'
  )
  parser.add_argument(
    '--mesh',
    metavar='DATA,MODEL',
    help='devices along batch and heads; default: one, or those of --devices along the '
    'batch',
  )
  parser.add_argument('--batch', help='short for --set=batch=')
  parser.add_argument('--dtype', help=f'--set=dtype=: {", ".join(DTYPES)}')
  parser.add_argument('--variants', help='only these, separated by commas')
  parser.add_argument('--warmup', type=int, default=1, help='untimed runs of each')
  parser.add_argument('--repeats', type=int, default=5, help='timed runs of each')
  parser.add_argument('--output', help='JSON file for the report')
  parser.add_argument('--compare', help='an earlier JSON file')
  return parser


def run(arguments: argparse.Namespace) -> dict[str, Any]:
  """Builds and measures a workload; returns the report.

  Raises:
    ValueError: an unknown workload, option or variant, or an unfit value.
  """
  name = lookup(WORKLOADS, arguments.workload, 'workload')
  module = importlib.import_module(name)
  settings = [*arguments.set, *flag_settings(arguments, module.Options)]
  options = parse_options(module.Options, settings)
  dtype = lookup(DTYPES, getattr(options, 'dtype', 'float32'), 'dtype')
  if arguments.devices is not None:
    simulate_devices(arguments.devices)
  workload: Workload | checks.Checklist = module.build(options)
  if isinstance(workload, checks.Checklist):
    found = {'checks': workload.run()}
  else:
    found = _measured(workload, arguments, dtype)
  return {
    'workload': arguments.workload,
    'options': {  # as JSON gives them back
      key: list(value) if isinstance(value, tuple) else value
      for key, value in dataclasses.asdict(options).items()
    },
    **found,
    'peak_memory_bytes': peak_memory(),
    'device': jax.devices()[0].device_kind,
    'devices': jax.device_count(),
    'jax': jax.__version__,
    'python': platform.python_version(),
    'date': time.strftime('%Y-%m-%d'),
  }


def _measured(
  workload: Workload, arguments: argparse.Namespace, dtype: str
) -> dict[str, Any]:
  if arguments.variants:
    workload = _choose(workload, arguments.variants.split(','))
  peak = matmul_peak(dtype)
  rows = measure(
    workload, warmup=arguments.warmup, repeats=arguments.repeats, peak=peak
  )
  return {
    'unit': workload.unit,
    'items': workload.items,
    'facts': workload.facts,
    'variants': rows,
    'matmul_flops_per_second': peak,
  }


def _choose(workload: Workload, names: Sequence[str]) -> Workload:
  known = {variant.name: variant for variant in workload.variants}
  chosen = [lookup(known, name.strip(), 'variant') for name in names]
  return dataclasses.replace(workload, variants=chosen)


def flag_settings(arguments: argparse.Namespace, options: type) -> list[str]:
  """Returns the flags that are options of the workload, as `--set` has them.

  Raises:
    ValueError: the workload has no such option.
  """
  known = [field.name for field in dataclasses.fields(options)]
  given = {name: getattr(arguments, name) for name in ('mesh', 'batch', 'dtype')}
  flags = {name: f'--{name}' for name in given}
  if arguments.devices is not None and given['mesh'] is None:
    given['mesh'], flags['mesh'] = f'{arguments.devices},1', '--devices'
  given = {name: value for name, value in given.items() if value is not None}
  for name in given:
    if name not in known:
      raise UserError(
        f'the workload {arguments.workload!r} has no option {name!r}; leave '
        f'{flags[name]} out. It has: {", ".join(known)}'
      )
  return [f'{name}={value}' for name, value in given.items()]


def parse_options(options: type, settings: Sequence[str]) -> Any:
  """Returns an `Options` with the settings, each `key=value`, in place of defaults.

  Raises:
    ValueError: a setting of another form, an unknown key, or a value of another type.
  """
  fields = {field.name: field for field in dataclasses.fields(options)}
  changed = {}
  for setting in settings:
    key, equals, value = setting.partition('=')
    if not equals:
      raise UserError(f'--set={setting} has no value; expected --set=KEY=VALUE')
    kind = type(lookup(fields, key, 'option').default)
    if kind is bool:
      kind = {'true': True, 'false': False}.__getitem__
    if kind is tuple:
      kind = _numbers
    try:
      changed[key] = kind(value)
    except (ValueError, KeyError):
      expected = type(fields[key].default).__name__
      expected = {'tuple': 'numbers with commas'}.get(expected, expected)
      raise UserError(f'option {key}={value!r} is not of type {expected}') from None
  return options(**changed)


def _numbers(text: str) -> tuple[int, ...]:
  return tuple(int(x) for x in text.split(','))


def table(report: dict[str, Any]) -> str:
  """Returns the report for people, as a Markdown table with its facts below."""
  unit = report['unit']
  lines = [
    f'| variant | {unit}/s | median, s | p95, s | times the first | MB | utilisation |',
    '|---|---|---|---|---|---|---|',
  ]
  for row in report['variants']:
    size, used = row['program_bytes'], row['utilisation']
    cells = [
      row['variant'],
      f'{row["items_per_second"]:.4g}',
      f'{row["seconds"]:.4g}',
      f'{row["p95_seconds"]:.4g}',
      f'{row["ratio"]:.2f}',
      '-' if size is None else f'{size / 1e6:.0f}',
      '-' if used is None else f'{used:.0%}',
    ]
    lines.append('| ' + ' | '.join(cells) + ' |')
  lines += [f'{key}: {value}' for key, value in report['facts'].items()]
  memory = ', '.join(
    f'{place} {size / 1e6:.0f} MB'
    for place, size in report['peak_memory_bytes'].items()
  )
  lines.append(f'peak memory: {memory}')
  return '\n'.join(lines)


def compare(report: dict[str, Any], earlier: dict[str, Any]) -> str:
  """Returns how many times as fast each variant is as in an earlier report.

  Raises:
    ValueError: the reports are of different workloads.
  """
  if report['workload'] != earlier.get('workload'):
    raise UserError(
      f'the earlier report is of {earlier.get("workload")!r}, this one of '
      f'{report["workload"]!r}; compare reports of the same workload'
    )
  before = {row['variant']: row for row in earlier['variants']}
  lines = []
  for row in report['variants']:
    if row['variant'] in before:
      rate = row['items_per_second'] / before[row['variant']]['items_per_second']
      lines.append(f'{row["variant"]}: {rate:.2f} times the rate of {earlier["date"]}')
  changed = {
    key: (value, report['options'].get(key))
    for key, value in earlier['options'].items()
    if report['options'].get(key) != value
  }
  lines += [f'{key} was {old}, is {new}' for key, (old, new) in changed.items()]
  return '\n'.join(lines)


if __name__ == '__main__':
  sys.exit(main())
