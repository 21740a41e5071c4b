"""The command: `python -m ovs_jax.main --config=configs/quickstart.py`.

Dispatches on `config.mode`. Add `:smoke` to a config's path for a run of seconds on
the embedded data, `--config.key=value` to change a key, `--workdir=` to choose where
results go (default: runs/<name of the config>).
"""

import contextlib
import errno
import importlib
import os
import platform
import signal
import sys
from types import FrameType
from typing import Any


def _stop_at_once(number: int, frame: FrameType | None) -> None:
  print('stopped before the work began; run the same command to go on', file=sys.stderr)
  sys.exit(os.EX_TEMPFAIL)  # `core.preemption.STOPPED_STATUS`


if __name__ == '__main__':  # what is imported from here on takes seconds
  signal.signal(signal.SIGTERM, _stop_at_once)

import jax  # noqa: E402
from absl import app, flags, logging  # noqa: E402
from ml_collections import config_flags  # noqa: E402

import ovs_jax  # noqa: E402
from ovs_jax import arguments  # noqa: E402
from ovs_jax.core import hosts  # noqa: E402
from ovs_jax.core.checkpoint import skip_noise  # noqa: E402
from ovs_jax.core.devices import enough_memory  # noqa: E402
from ovs_jax.core.errors import UserError  # noqa: E402
from ovs_jax.core.files import Place, check_writable, fingerprint, place  # noqa: E402
from ovs_jax.core.locks import alone  # noqa: E402
from ovs_jax.core.lookup import lookup  # noqa: E402
from ovs_jax.core.preemption import STOPPED_STATUS, Stopped, apart  # noqa: E402
from ovs_jax.core.programs import compile_sooner, keep_programs  # noqa: E402
from ovs_jax.settings import Settings  # noqa: E402
from ovs_jax.train.needs import check_needs  # noqa: E402
from ovs_jax.train.ownership import claim  # noqa: E402
from ovs_jax.train.pipeline import check_changes  # noqa: E402

_CONFIG = config_flags.DEFINE_config_file('config', None, 'Configuration file.')
_WORKDIR = flags.DEFINE_string('workdir', None, 'Where results go.')
_PREDICTIONS = flags.DEFINE_string(
  'predictions', None, 'Saved label maps to score; config.suite.predictions.'
)
_MASKS = flags.DEFINE_string(
  'masks', None, 'Masks to name in place of proposals; config.suite.masks.'
)
_I_KNOW = flags.DEFINE_bool(
  'i-know', False, 'Search settings on test splits; config.suite.i_know.'
)
_MULTIHOST = flags.DEFINE_bool('multihost', False, 'Join the other hosts of a job.')

_LESS = (
  'lower config.test.chunk or the size of pictures (config.test.shortest), or use '
  'larger devices; what is finished stays'
)
_LESS_TRAINING = (
  'lower config.train.batch_size, raise config.train.accumulate, set remat of the '
  'network (config.clip.remat, config.proposer.remat), or use more or larger devices; '
  'what was saved stays'
)
_VERSIONS = f'jax {jax.__version__}, ovs_jax {ovs_jax.__version__}'


# By `config.mode`: module and function, imported when asked for.
MODES = {
  'train': 'ovs_jax.train.loop:train',
  'evaluate': 'ovs_jax.evaluate.runner:evaluate',
  'benchmark': 'ovs_jax.evaluate.suite:benchmark',
  'evaluate_systems': 'ovs_jax.evaluate.systems:evaluate_systems',
  'mine': 'ovs_jax.mining.run:mine',
  'assemble': 'ovs_jax.inference.assemble:assemble',
  'prepare': 'ovs_jax.data.inputs:prepare',
  'report': 'ovs_jax.evaluate.report:report',
  'replicate': 'ovs_jax.evaluate.replication:replicate',
  'table': 'ovs_jax.evaluate.joined:table',
  'choose': 'ovs_jax.evaluate.choose:choose',
  'rehearse': 'ovs_jax.bench.rehearsal_stages:rehearse',
  'pipeline': 'ovs_jax.train.pipeline:run_pipeline',
}
# Modes in which all processes work: they share it, or each has data of its own to
# prepare. In others one does, and the others wait.
TOGETHER = (
  'train',
  'evaluate',
  'benchmark',
  'evaluate_systems',
  'mine',
  'prepare',
  'pipeline',
)


def run(mode: str, config: Settings, workdir: Place) -> dict[str, Any]:
  """Runs one job in `workdir`, which it claims for this configuration.

  Returns:
    The job's result; nothing where another process did it.

  Raises:
    ValueError, OSError: what the user can mend; the message says how.
    Stopped: SIGTERM came, to whichever process.
  """
  module, _, function = lookup(MODES, mode, 'mode').partition(':')
  with apart(config.name), contextlib.ExitStack() as stack:
    if not hosts.primary() and mode not in TOGETHER:
      return {}
    check_needs(config)
    workdir = check_writable(workdir, megabytes=10)
    if hosts.primary():
      stack.enter_context(alone(workdir))
    claim(config, workdir)
    if mode in TOGETHER:
      hosts.barrier(f'{config.name} is claimed')
    jax.config.update('jax_disable_most_optimizations', not config.optimize_programs)
    job = getattr(importlib.import_module(module), function)
    if mode == 'pipeline':
      return job(config, workdir, run)
    with enough_memory(_LESS_TRAINING if mode == 'train' else _LESS):
      return job(config, workdir)


def main(argv: list[str]) -> None:
  """Parses flags, runs the job, and turns users' mistakes into one message."""
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}; flags start with --')
  logging.set_verbosity(logging.ERROR)  # Orbax warns of files that it does not need
  config = _CONFIG.value
  changed = list(config_flags.get_override_values(flags.FLAGS['config']))
  if _PREDICTIONS.value is not None:
    config.suite.predictions = _PREDICTIONS.value
    changed.append('suite.predictions')
  if _MASKS.value is not None:
    config.suite.masks = _MASKS.value
    changed.append('suite.masks')
  if _I_KNOW.value:
    config.suite.i_know = True
    changed.append('suite.i_know')
  keep_programs()
  try:
    settings = Settings.of(config)
    check_changes(config, changed)
    if not settings.optimize_programs:
      compile_sooner()
    workdir = place(_WORKDIR.value or f'runs/{settings.name}', schemes=('gs',))
    if _MULTIHOST.value:
      hosts.join()
      hosts.check_same('versions', f'Python {platform.python_version()}, {_VERSIONS}')
      hosts.check_same('configuration', fingerprint(settings.to_json()))
    run(settings.mode, settings, workdir)
  except Stopped as stopped:
    print(f'{stopped}; run the same command to go on', file=sys.stderr)
    sys.exit(STOPPED_STATUS)
  except (UserError, OSError, FloatingPointError) as error:
    print(f'error: {_explained(error)}', file=sys.stderr)
    sys.exit(2)
  print(f'done: {workdir}')


def _explained(error: Exception) -> str:
  """What went wrong; of a full disk, where and how to go on."""
  if getattr(error, 'errno', None) not in (errno.ENOSPC, errno.EDQUOT):
    return str(error)
  where = getattr(error, 'filename', None) or _WORKDIR.value or 'the results'
  return (
    f'no space left for {where}; what is finished stays. Free some space, and run the '
    'same command again to go on'
  )


def start() -> None:
  """Entry point; a missing --config is an error of use."""
  signal.signal(signal.SIGTERM, _stop_at_once)  # until a run listens
  flags.mark_flag_as_required('config')
  sys.unraisablehook = skip_noise
  app.run(main, flags_parser=arguments.parse)


if __name__ == '__main__':
  start()
