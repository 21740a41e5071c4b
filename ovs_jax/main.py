"""The command: `python -m ovs_jax.main --config=configs/quickstart.py`.

Dispatches on `config.mode`. Add `:smoke` to a config's path for a run of seconds on
the embedded data, `--config.key=value` to change a key, `--workdir=` to choose where
results go (default: runs/<name of the config>).
"""

import json
import os
import pathlib
import platform
import signal
import sys
import traceback
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
from ovs_jax.core import hosts  # noqa: E402
from ovs_jax.core.checkpoint import skip_noise  # noqa: E402
from ovs_jax.core.files import Place, check_writable, fingerprint, place  # noqa: E402
from ovs_jax.core.lookup import lookup  # noqa: E402
from ovs_jax.core.preemption import STOPPED_STATUS, Stopped, apart  # noqa: E402
from ovs_jax.core.programs import compile_sooner, keep_programs  # noqa: E402
from ovs_jax.data.needs import check_needs  # noqa: E402
from ovs_jax.train.pipeline import check_changes, check_owner, run_pipeline  # noqa: E402

_CONFIG = config_flags.DEFINE_config_file('config', None, 'Configuration file.')
_WORKDIR = flags.DEFINE_string('workdir', None, 'Where results go.')
_PREDICTIONS = flags.DEFINE_string(
  'predictions', None, 'Saved label maps to score; config.suite.predictions.'
)
_I_KNOW = flags.DEFINE_bool(
  'i-know', False, 'Search settings on test splits; config.suite.i_know.'
)
_MULTIHOST = flags.DEFINE_bool('multihost', False, 'Join the other hosts of a job.')

_VERSIONS = f'jax {jax.__version__}, ovs_jax {ovs_jax.__version__}'


def _train(config: Any, workdir: Place) -> dict[str, Any]:
  from ovs_jax.train.loop import train

  return train(config, workdir)


def _evaluate(config: Any, workdir: Place) -> dict[str, Any]:
  from ovs_jax.evaluate.runner import evaluate

  return evaluate(config, workdir)


def _benchmark(config: Any, workdir: Place) -> dict[str, Any]:
  from ovs_jax.evaluate.suite import benchmark

  return benchmark(config, workdir)


def _evaluate_systems(config: Any, workdir: Place) -> dict[str, Any]:
  from ovs_jax.evaluate.systems import evaluate_systems

  return evaluate_systems(config, workdir)


def _mine(config: Any, workdir: Place) -> dict[str, Any]:
  from ovs_jax.mining.run import mine

  return mine(config, workdir)


def _assemble(config: Any, workdir: Place) -> dict[str, Any]:
  from ovs_jax.inference.assemble import assemble

  return assemble(config, workdir)


def _prepare(config: Any, workdir: Place) -> dict[str, Any]:
  from ovs_jax.data import load_dataset

  check_writable(workdir, megabytes=10)
  _, builder = load_dataset(config.dataset)
  return {k: int(split.num_examples) for k, split in builder.info.splits.items()}


def _report(config: Any, workdir: Place) -> dict[str, Any]:
  from ovs_jax.evaluate.report import report

  return report(config, workdir)


def _replicate(config: Any, workdir: Place) -> dict[str, Any]:
  from ovs_jax.evaluate.replication import replicate

  return replicate(config, workdir)


def _pipeline(config: Any, workdir: Place) -> dict[str, Any]:
  return run_pipeline(config, workdir, run)


MODES = {
  'train': _train,
  'evaluate': _evaluate,
  'benchmark': _benchmark,
  'evaluate_systems': _evaluate_systems,
  'mine': _mine,
  'assemble': _assemble,
  'prepare': _prepare,
  'report': _report,
  'replicate': _replicate,
  'pipeline': _pipeline,
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


def run(mode: str, config: Any, workdir: Place) -> dict[str, Any]:
  """Runs one job in `workdir`, which it claims for this configuration.

  Returns:
    The job's result; nothing where another process did it.

  Raises:
    ValueError, OSError: what the user can mend; the message says how.
    Stopped: SIGTERM came, to whichever process.
  """
  job = lookup(MODES, mode, 'mode')
  with apart(config.name):
    if not hosts.primary() and mode not in TOGETHER:
      return {}
    check_needs(config)
    workdir = check_writable(workdir, megabytes=10)
    check_owner(_plain(config), workdir)
    jax.config.update('jax_disable_most_optimizations', not config.optimize_programs)
    return job(config, workdir)


def _plain(config: Any) -> dict[str, Any]:
  """The configuration as JSON has it."""
  return json.loads(json.dumps(config.to_dict(), default=str))


def _is_ours(error: Exception) -> bool:
  """Whether a message was written for users; other errors keep their traceback."""
  raised = traceback.extract_tb(error.__traceback__)[-1].filename
  package = pathlib.Path(__file__).parent
  return isinstance(error, OSError) or package in pathlib.PurePath(raised).parents


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
  if _I_KNOW.value:
    config.suite.i_know = True
    changed.append('suite.i_know')
  keep_programs()
  if not config.optimize_programs:
    compile_sooner()
  try:
    check_changes(config, changed)
    workdir = place(_WORKDIR.value or f'runs/{config.name}', schemes=('gs',))
    if _MULTIHOST.value:
      hosts.join()
      hosts.check_same('versions', f'Python {platform.python_version()}, {_VERSIONS}')
      hosts.check_same('configuration', fingerprint(_plain(config)))
    run(config.mode, config, workdir)
  except Stopped as stopped:
    print(f'{stopped}; run the same command to go on', file=sys.stderr)
    sys.exit(STOPPED_STATUS)
  except (ValueError, OSError, FloatingPointError) as error:
    if not _is_ours(error):
      raise
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)
  print(f'done: {workdir}')


def start() -> None:
  """Entry point; a missing --config is an error of use."""
  signal.signal(signal.SIGTERM, _stop_at_once)  # until a run listens
  flags.mark_flag_as_required('config')
  sys.unraisablehook = skip_noise
  app.run(main)


if __name__ == '__main__':
  start()
