"""Measured peaks."""

from ovs_jax.core import devices


def test_peaks_are_plausible() -> None:
  assert 1e8 < devices.matmul_peak(side=256) < 1e16
  assert devices.peak_memory()['process'] > 50e6
