"""Measured peaks, and simulated devices."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ovs_jax.core import devices
from ovs_jax.core.errors import UserError


def test_peaks_are_plausible() -> None:
  assert 1e8 < devices.matmul_peak(side=256) < 1e16
  assert devices.peak_memory()['process'] > 50e6


def test_each_type_has_its_own_peak(monkeypatch: pytest.MonkeyPatch) -> None:
  peaks = {'float32': 2e9, 'bfloat16': 8e9}
  monkeypatch.setattr(devices, 'matmul_peak', peaks.__getitem__)
  assert devices.least_seconds({'float32': 1e9, 'bfloat16': 4e9}) == 1.0
  assert devices.least_seconds({}) == 0.0


def test_devices_are_simulated_before_jax_has_some() -> None:
  devices.simulate_devices(8)  # those of these tests
  with pytest.raises(ValueError, match='4 devices were asked for and JAX has 8'):
    devices.simulate_devices(4)
  with pytest.raises(ValueError, match='0 devices; expected at least 1'):
    devices.simulate_devices(0)


def test_memory_that_is_not_there_is_one_line() -> None:
  advice = 'take fewer'
  with pytest.raises(UserError, match=r'^there is no memory for 3,725\.3 GiB more; '):
    with devices.enough_memory(advice):
      jax.jit(lambda: jnp.zeros(10**12))().block_until_ready()
  with pytest.raises(UserError, match='^there is no memory.*; take fewer$'):
    with devices.enough_memory(advice):
      np.zeros(10**15)
  with pytest.raises(jax.errors.JaxRuntimeError, match='INTERNAL'):
    with devices.enough_memory(advice):
      raise jax.errors.JaxRuntimeError('INTERNAL: something else')


FORGETFUL = """
import pathlib, re
import numpy as np
from ovs_jax.core.devices import give_back_memory

def resident():
  text = pathlib.Path('/proc/self/status').read_text()
  return int(re.search(r'VmRSS:\\s+(\\d+) kB', text)[1]) // 1024

before = resident()
held = [np.ones(100_000) for _ in range(2600)]  # 2,080 MB
held.clear()
there = resident()
give_back_memory(0.999)
kept = resident()
give_back_memory()
after = resident()
assert there - before > 1900 and kept - before > 1900, (before, there, kept)
assert after - before < 100, (before, after)
"""


def test_what_was_freed_is_given_back() -> None:
  tunables = 'mmap_threshold=8589934592:glibc.malloc.trim_threshold=8589934592'
  done = subprocess.run(
    [sys.executable, '-c', FORGETFUL],
    env={**os.environ, 'GLIBC_TUNABLES': f'glibc.malloc.{tunables}'},
    cwd=pathlib.Path(__file__).parents[2],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
