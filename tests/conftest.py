"""Runs before any test: eight CPU devices, checked annotations, strict ranks."""

import ctypes
import gc
import importlib.metadata
import os
import pathlib
import signal
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ['XLA_FLAGS'] = (
  os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=8'
)
if importlib.metadata.version('jax').startswith('0.10.'):
  # The older code generator compiles a third sooner; later versions have one only.
  os.environ['XLA_FLAGS'] += ' --xla_cpu_use_fusion_emitters=false'
  # Programs are small: one piece compiles sooner than many side by side.
  os.environ['XLA_FLAGS'] += ' --xla_cpu_parallel_codegen_split_count=1'
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
# Most programs here run once: compiling sooner beats running faster.
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
os.environ['OVS_JAX_TEXT_CACHE'] = 'off'  # tests must not depend on each other
# Programs are compiled once for all processes of a run, which inherit this.
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
  _programs = tempfile.TemporaryDirectory(prefix='ovs_jax_programs_')
  os.environ['JAX_COMPILATION_CACHE_DIR'] = _programs.name
# As the commands do (`core.programs`): what took a tenth of a second is kept.
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.1')

# Compiled modules are kept, for the many processes that tests start.
os.environ.pop('PYTHONDONTWRITEBYTECODE', None)
sys.dont_write_bytecode = False

# Shells have Ctrl-C ignored in what runs in the background, and so would all processes
# that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
  signal.signal(signal.SIGINT, signal.default_int_handler)

# Modules and tests stay: to look for garbage among them takes a fifth of collecting.
gc.disable()

# What is first imported below the hook is compiled anew: seconds for each process.
import flax  # noqa: E402, F401
import jaxtyping  # noqa: E402
import optax  # noqa: E402, F401
import orbax.checkpoint  # noqa: E402, F401
import tensorflow  # noqa: E402, F401
import tensorflow_datasets  # noqa: E402, F401

jaxtyping.install_import_hook('ovs_jax', 'beartype.beartype')

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update('jax_numpy_rank_promotion', 'raise')


MOST_MEMORY = 2 * 2**30  # bytes of a process


@pytest.fixture(scope='module', autouse=True)
def little_memory() -> Iterator[None]:
  """Forgets compiled programs between files when they have become many.

  A process that keeps those of all tests grows to 6 GB.
  """
  yield
  told = pathlib.Path('/proc/self/statm')  # by Linux
  if not told.exists():
    return
  pages = int(told.read_text().split()[1])
  if pages * os.sysconf('SC_PAGE_SIZE') > MOST_MEMORY:
    jax.clear_caches()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture(scope='session')
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
  """Returns where the embedded data sets of this test run are prepared."""
  return str(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='session')
def reuse(tmp_path_factory: pytest.TempPathFactory) -> Any:
  """Returns what runs the stages of pipelines, each once in all processes."""
  from reuse import Reuse, shared

  return Reuse(shared(tmp_path_factory) / 'stages')


@pytest.fixture(autouse=True)
def compile_sooner() -> Iterator[None]:
  """Undoes what a run may have asked for, after each test."""
  yield
  sooner = os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] == '1'
  jax.config.update('jax_disable_most_optimizations', sooner)


@pytest.fixture
def optimised(compile_sooner: None) -> None:
  """Has programs compiled to run fast, for tests that run them often."""
  jax.config.update('jax_disable_most_optimizations', False)


@pytest.fixture
def metric_programs(
  tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Any:
  """Has stand-ins of clu and wandb imported in place of the real ones."""
  import metric_stand_ins

  yield from metric_stand_ins.install(tmp_path_factory.mktemp('modules'), monkeypatch)


@pytest.fixture(scope='session')
def emulator() -> Any:
  """Returns a running `Emulator`, for the clients of this process and its children."""
  from emulator import Emulator

  with Emulator() as running:
    os.environ.update(running.environment)
    yield running
    for name in running.environment:
      del os.environ[name]


@pytest.fixture
def bucket(emulator: Any, tmp_path: pathlib.Path) -> str:
  """Returns the address of an empty folder."""
  return f'gs://bucket/{tmp_path.name}'


def pytest_collection_finish() -> None:
  """Has garbage collected from now on, of what comes now."""
  gc.freeze()
  gc.enable()


# Files that take longest; where processes share the tests, these must not come last.
LONGEST = (
  'test_everything_runs',
  'test_loop',
  'test_processes',
  'test_coseg_recipe',
  'test_recipes',
  'test_both_modes',
  'test_loop_options',
  'test_main',
  'test_tutorial',
  'test_runner',
  'test_segmenter_modes',
  'test_maskformer',
  'test_backbone_families',
  'test_convert_ovseg',
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
  """Puts the longest files first.

  Drops a helper of TensorFlow's test case that has the name of a test.
  """
  items[:] = [item for item in items if item.name != 'test_session']
  items.sort(key=lambda item: item.path.stem not in LONGEST)
