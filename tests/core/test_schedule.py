"""Learning rates against values printed by the original training codes."""

import numpy as np
import pytest

from ovs_jax.core.schedule import SCHEDULES, build_schedule

# The last value is 1 + cos(pi - 0.0002) up to a factor: float32 keeps 7 decimals of 1.
CANCELLATION = 1e-12


@pytest.mark.parametrize(
  ('step', 'rate'),
  [
    (0, 6.0e-11),
    (750, 2.98312e-5),
    (1500, 5.93246e-5),
    (60_000, 3.21532e-5),
    (119_999, 1.61e-9),
  ],
)
def test_poly_gives_the_rates_of_the_proposer(step: int, rate: float) -> None:
  schedule = build_schedule(
    'warmup_poly', 6e-5, 120_000, warmup=1500, end=0.0, power=0.9
  )
  np.testing.assert_allclose(
    float(schedule(step)), rate, rtol=2e-3 if rate < 1e-8 else 2e-6
  )


@pytest.mark.parametrize(
  ('step', 'rate'),
  [
    (0, 5e-8),
    (99, 5e-6),
    (100, 5e-6),
    (8635, 2.52287e-6),
    (17_269, 4.2e-14),
  ],
)
def test_cosine_gives_the_rates_of_the_adaptation(step: int, rate: float) -> None:
  schedule = build_schedule(
    'warmup_cosine', 5e-6, 17_270, warmup=100, end=0.0, power=1.0
  )
  np.testing.assert_allclose(float(schedule(step)), rate, rtol=2e-6, atol=CANCELLATION)


def test_cosine_ends_at_its_share_of_the_peak() -> None:
  schedule = build_schedule('warmup_cosine', 2.0, 100, warmup=10, end=0.1, power=1.0)
  np.testing.assert_allclose(float(schedule(100)), 0.2, rtol=1e-6)


def test_constant_warms_up_and_stays() -> None:
  schedule = build_schedule('constant', 1.0, 10, warmup=4, end=0.0, power=1.0)
  rates = [float(schedule(step)) for step in (0, 1, 2, 3, 4, 9)]
  np.testing.assert_allclose(rates, [0.25, 0.5, 0.75, 1, 1, 1], rtol=1e-6)


@pytest.mark.parametrize('name', SCHEDULES)
@pytest.mark.parametrize('warmup', [0, 1])
def test_almost_no_warm_up_starts_high(name: str, warmup: int) -> None:
  schedule = build_schedule(name, 1.0, 100, warmup=warmup, end=0.0, power=0.9)
  assert float(schedule(1)) > 0.9


def test_unknown_names_are_refused() -> None:
  with pytest.raises(ValueError, match="Did you mean 'warmup_cosine'"):
    build_schedule('warmup_cosin', 1.0, 1, warmup=0, end=0.0, power=1.0)
