"""Exports an OVSeg: what it does with photos and any names, without this package.

ovs-jax export --checkpoint=DIR --output=DIR --formats=stablehlo
"""

import argparse
import sys
from collections.abc import Sequence

from ovs_jax.console import complain
from ovs_jax.core.errors import UserError
from ovs_jax.export.artefact import FORMATS, write
from ovs_jax.export.web import ORT
from ovs_jax.models.reduced import WEIGHTS


def parser() -> argparse.ArgumentParser:
  """Returns the parser of all flags."""
  flags = argparse.ArgumentParser(
    prog='ovs-jax export',
    description='Exports an OVSeg, its vocabulary still open.',
    allow_abbrev=False,
  )
  add = flags.add_argument
  add('--checkpoint', required=True, metavar='DIR|NAME', help='an OVSeg model')
  add('--output', required=True, metavar='DIR', help='an empty or a new folder')
  add(
    '--formats',
    default='stablehlo',
    metavar='NAMES',
    help=f'some of {",".join(FORMATS)} (default: %(default)s)',
  )
  add(
    '--aspect',
    type=float,
    default=2.0,
    help='the most that photos may be longer than wide, or wider than long: a program '
    'for each size that they are padded to (default: %(default)s)',
  )
  add(
    '--weights',
    default=WEIGHTS[0],
    metavar='KIND',
    help=f'{", ".join(WEIGHTS)}: how weights are stored; int8 is of matrices, by '
    'output channel (default: %(default)s)',
  )
  add(
    '--ort',
    metavar='DIR',
    help=f"onnxruntime-web {ORT} for the format 'web', which npm downloads else",
  )
  return flags


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns 0, or 2 after a mistake, which it explains."""
  given = parser().parse_args(argv)
  try:
    formats = [name.strip() for name in given.formats.split(',')]
    options = {'aspect': given.aspect, 'kind': given.weights, 'ort': given.ort}
    folder = write(given.checkpoint, given.output, formats=formats, **options)
  except (UserError, OSError) as error:
    complain(error)
    return 2
  size = sum(path.stat().st_size for path in folder.rglob('*') if path.is_file())
  print(f'written: {folder} ({size / 1e6:.1f} MB)')
  return 0


if __name__ == '__main__':
  sys.exit(main())
