"""What the devices can do and hold, measured; and more of them than there are."""

import contextlib
import ctypes
import gc
import math
import os
import re
import resource
import sys
import time
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import local

_USED_UP = 'RESOURCE_EXHAUSTED'  # in what XLA says of memory
_THRESHOLDS = (-1, -3)  # glibc's mallopt: what it gives back, and what lies apart
_MUCH = 2 << 30  # bytes that a process holds when memory is worth giving back


def matmul_peak(dtype: str = 'float32', *, side: int | None = None) -> float:
  """Returns the floating-point operations per second of square products, measured.

  Args:
    dtype: of the factors.
    side: of the square; None: 1024 on CPUs, 8192 on accelerators.
  """
  side = side or (1024 if jax.default_backend() == 'cpu' else 8192)
  x = jnp.full((side, side), 1e-3, dtype)
  product = jax.jit(jnp.matmul)
  jax.block_until_ready(product(x, x))
  best = math.inf
  for _ in range(8):
    began = time.perf_counter()
    jax.block_until_ready(product(x, x))
    best = min(best, time.perf_counter() - began)
  return 2 * side**3 / best


def least_seconds(flops: Mapping[str, int | float]) -> float:
  """Returns what products take at their measured peaks on one device.

  Args:
    flops: by type, as `core.flops.count_work` returns them.
  """
  return math.fsum(count / matmul_peak(dtype) for dtype, count in flops.items())


def simulate_devices(count: int) -> None:
  """Splits the CPU into `count` devices, before anything asks JAX for its devices.

  Accelerators stay as they are, and must be as many.

  Raises:
    ValueError: there are more or fewer devices all the same.
  """
  if count < 1:
    raise UserError(f'{count} devices; expected at least 1')
  try:
    jax.config.update('jax_num_cpu_devices', count)
  except RuntimeError:
    pass  # JAX has its devices already, perhaps as many
  found = jax.device_count()
  if found != count:
    raise UserError(
      f'{count} devices were asked for and JAX has {found} ({jax.default_backend()}). '
      'Only CPUs are simulated (JAX_PLATFORMS=cpu), and only before JAX is used; '
      'CUDA_VISIBLE_DEVICES hides GPUs'
    )


@contextlib.contextmanager
def enough_memory(advice: str) -> Iterator[None]:
  """Says in one line that the memory of a device, or of the host, is used up.

  Args:
    advice: what takes less.

  Raises:
    UserError: something could not be allocated; names its size, where that is known.
  """
  try:
    yield
  except (MemoryError, jax.errors.JaxRuntimeError) as error:
    if not isinstance(error, MemoryError) and _USED_UP not in str(error):
      raise
    found = re.search(r'allocat\w* (\d+) ?bytes', str(error))
    what = f' for {int(found[1]) / 2**30:,.1f} GiB more' if found else ''
    raise UserError(f'there is no memory{what}; {advice}') from error


def keep_memory() -> None:
  """Lets the C library keep what is freed, as `launch/run.sh` does.

  For work on large arrays, a few at a time: clearing their pages anew each time takes
  as long as the work. Where the environment has settings, these stay.
  """
  if 'GLIBC_TUNABLES' not in os.environ:
    with contextlib.suppress(AttributeError, TypeError):  # glibc alone has it
      for option in _THRESHOLDS:
        ctypes.CDLL(None).mallopt(option, 1 << 30)


def give_back_memory(share: float = 0) -> None:
  """Returns to the system what was freed, where the C library can (glibc).

  With the settings of `launch/run.sh` it keeps all of it for itself, in pieces that a
  training step may not fit into. Getting it anew takes seconds.

  Args:
    share: of the machine's memory that the process must hold, or nothing is done. One
      that holds little is left alone in any case.
  """
  try:
    page, pages = (os.sysconf(f'SC_{x}') for x in ('PAGE_SIZE', 'PHYS_PAGES'))
    held = page * int(local('/proc/self/statm').read_text().split()[1])
    if held > max(_MUCH, share * page * pages):
      gc.collect()
      ctypes.CDLL(None).malloc_trim(0)
  except (OSError, ValueError, AttributeError, TypeError):  # another system or library
    return


def peak_memory() -> dict[str, int]:
  """Returns the most bytes that this process, and each device, held so far."""
  unit = 1 if sys.platform == 'darwin' else 1024
  found = {'process': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
  for device in jax.local_devices():
    stats = device.memory_stats()
    if stats and 'peak_bytes_in_use' in stats:
      found[str(device)] = stats['peak_bytes_in_use']
  return found
