"""Predictions of scaling, by hand."""

import pytest

from ovs_jax.bench import scaling
from ovs_jax.bench.scaling import Chip, Job

CHIP = Chip(flops=100.0, link=10.0)
ISLANDS = Chip(flops=100.0, link=10.0, island=4, outside=1.0)


def test_a_ring_sends_almost_everything_twice() -> None:
  assert scaling.ring_seconds(80.0, 4, CHIP) == pytest.approx(2 * 3 / 4 * 80 / 10)
  # Four add up inside, then a quarter of the sum goes around the two islands.
  assert scaling.ring_seconds(80.0, 8, ISLANDS) == pytest.approx(12 + 2 / 2 * 20 / 1)
  assert scaling.ring_seconds(80.0, 4, ISLANDS) == pytest.approx(12)


def test_efficiency_is_the_share_of_computing() -> None:
  job = Job('a', flops=50, reduced=80, gathered=0, batch=6)
  # 300 operations at 50 a second, then 12 seconds of sending.
  assert scaling.efficiency(job, 4, CHIP) == pytest.approx(6 / (6 + 12))
  assert scaling.efficiency(job, 1, CHIP) == 1


def test_fine_tuning_costs_three_forwards_and_reduces_its_parameters() -> None:
  ft = scaling.adaptation('tiny', 'ft', batch=1)
  mpt = scaling.adaptation('tiny', 'mpt', batch=1)
  assert mpt.reduced == 4 * 3 * 36 * 64  # depth, patches, width
  assert ft.reduced > 100 * mpt.reduced / 4
  assert mpt.flops < ft.flops < 2 * mpt.flops
  assert scaling.table([mpt]).count('| MPT tiny, 1 |') == len(scaling.CHIPS)


def test_the_program_reduces_what_is_predicted() -> None:
  ft = scaling.adaptation('tiny', 'ft', batch=1)
  found = scaling.measured('tiny', 'ft', data=8, model=1, fsdp=False, batch=8)
  assert found['all-reduce'] == pytest.approx(ft.reduced, rel=0.01)
