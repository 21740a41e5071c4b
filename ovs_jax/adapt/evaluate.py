"""Evaluates a checkpoint on photographs of your own that have masks.

ovs-jax evaluate --checkpoint=CHECKPOINT --data=DIR --output=DIR
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

from absl import logging

from ovs_jax import arguments, main
from ovs_jax.core.checkpoint import load_config
from ovs_jax.core.errors import UserError
from ovs_jax.core.files import DATA_DIR, local, place
from ovs_jax.core.preemption import STOPPED_STATUS, Stopped
from ovs_jax.core.programs import keep_programs
from ovs_jax.settings import Settings


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='ovs-jax evaluate',
    description='mIoU with intervals, of each class, and pictures.',
    allow_abbrev=False,
  )
  add = parser.add_argument
  add(
    '--checkpoint',
    required=True,
    metavar='DIR',
    help='an OVSeg, CLIPSeg or CoSeg, or the name of one',
  )
  add('--accept-licence', action='store_true', help="the model's, if it is fetched")
  add('--data', required=True, metavar='PATH', help='photographs with masks')
  add('--split', default='val', help='of these (default: val); train+val is all')
  add('--output', required=True, metavar='DIR', help='where the report goes')
  add('--data_dir', default=DATA_DIR, help=f'of data sets (default: {DATA_DIR})')
  return parser


def evaluate(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns 0, 75 when stopped, or 2 after an explained mistake."""
  given = _parser().parse_args(argv)
  # Seconds, which --help need not wait for.
  from ovs_jax.adapt.plan import training_list
  from ovs_jax.inference.named import located

  logging.set_verbosity(logging.ERROR)
  keep_programs()
  try:
    arguments.with_packaged([])  # makes `configs` importable
    config = importlib.import_module('configs.photos_evaluate').get_config()
    data = local(given.data).resolve()
    checkpoint = located(given.checkpoint, accept_licence=given.accept_licence)
    config.checkpoint = str(checkpoint)
    config.dataset.data_dir = given.data_dir
    config.suite.datasets = (f'folder/{data}:{given.split}',)
    config.suite.training = training_list(load_config(checkpoint))
    main.run('benchmark', Settings.of(config), place(given.output))
  except Stopped as stopped:
    print(f'{stopped}; run the same command to go on', file=sys.stderr)
    return STOPPED_STATUS
  except (UserError, OSError, FloatingPointError) as error:
    lines = [f'error: {error}', *getattr(error, '__notes__', ())]
    print('\n'.join(lines), file=sys.stderr)
    return 2
  print(f'done: {given.output}')
  return 0


if __name__ == '__main__':
  sys.exit(evaluate())
