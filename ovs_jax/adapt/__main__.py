"""Makes a model of your own photographs and a checkpoint, within some minutes.

ovs-jax adapt --data=DIR --checkpoint=CHECKPOINT --output=RUN --minutes=15
"""

import argparse
import sys
from collections.abc import Sequence

from absl import logging

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import DATA_DIR, check_writable, local
from ovs_jax.core.locks import alone
from ovs_jax.core.preemption import STOPPED_STATUS, Stopped
from ovs_jax.core.programs import keep_programs


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='ovs-jax adapt',
    description='Trains what can be trained with your photographs, keeps what is best, '
    'and reports on photographs that were not used for it.',
    allow_abbrev=False,
  )
  add = parser.add_argument
  add(
    '--data',
    required=True,
    metavar='PATH',
    help='your photographs; docs/your_own_data.md says in which forms',
  )
  add(
    '--checkpoint',
    required=True,
    metavar='DIR',
    help='an OVSeg or CLIPSeg to begin with, or the name of one',
  )
  add('--accept-licence', action='store_true', help="the model's, if it is fetched")
  add('--output', required=True, metavar='DIR', help='where everything goes')
  add('--minutes', type=float, default=15.0, help='to take, about (default: 15)')
  add('--side', type=int, default=0, help="of photos in pixels (0: the checkpoint's)")
  add('--seed', type=int, default=0, help='of what is drawn (default: 0)')
  add('--data_dir', default=DATA_DIR, help=f'of data sets (default: {DATA_DIR})')
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns 0, 75 when stopped, or 2 after an explained mistake."""
  given = _parser().parse_args(argv)
  # Seconds, which --help need not wait for.
  from ovs_jax.adapt.run import Asked, adapt
  from ovs_jax.inference.named import located

  logging.set_verbosity(logging.ERROR)
  keep_programs()
  try:
    if not given.minutes > 0 or given.side < 0:
      raise UserError('--minutes must be above 0, and --side no less than 0')
    found = located(given.checkpoint, accept_licence=given.accept_licence)
    data, checkpoint = (str(local(path).resolve()) for path in (given.data, found))
    more = (given.minutes, given.side, given.seed, given.data_dir)
    workdir = check_writable(given.output, megabytes=200, option='--output=')
    with alone(workdir):
      adapt(Asked(data, checkpoint, *more), workdir)
    return 0
  except Stopped as stopped:
    print(f'{stopped}; run the same command to go on', file=sys.stderr)
    return STOPPED_STATUS
  except (UserError, OSError, FloatingPointError) as error:
    lines = [f'error: {error}', *getattr(error, '__notes__', ())]
    print('\n'.join(lines), file=sys.stderr)
    return 2


if __name__ == '__main__':
  sys.exit(main())
