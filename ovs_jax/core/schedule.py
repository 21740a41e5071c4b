"""Learning-rate schedules by name, as functions of the 0-based step."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from ovs_jax.core.lookup import lookup


def warmup_cosine(
  peak: float, steps: int, *, warmup: int, end: float = 0.0, power: float = 1.0
) -> optax.Schedule:
  """Linear warm-up `peak * (s + 1) / warmup`, then half a cosine to `end * peak`.

  The order of open_clip's scheduler, which OVSeg's adaptation uses: the last warm-up
  step and the first cosine step both have the peak rate.
  """
  del power
  ramp = optax.linear_schedule(peak / max(warmup, 1), peak, max(warmup - 1, 1))
  cosine = optax.cosine_decay_schedule(peak, max(steps - warmup, 1), alpha=end)
  return optax.join_schedules([ramp, cosine], [warmup])


def warmup_poly(
  peak: float, steps: int, *, warmup: int, end: float = 0.0, power: float = 0.9
) -> optax.Schedule:
  """Polynomial decay times a linear warm-up from 1e-6 to 1 (MaskFormer's schedule)."""

  def rate(step: int | jax.Array) -> jax.Array:
    decay = optax.polynomial_schedule(peak, end * peak, power, steps)(step)
    # Written out: optax's sums lose two digits of the 1e-6.
    ramp = 1e-6 + (1 - 1e-6) * jnp.minimum(step / max(warmup, 1), 1.0)
    return decay * (ramp if warmup else 1.0)

  return rate


def constant(
  peak: float, steps: int, *, warmup: int, end: float = 0.0, power: float = 1.0
) -> optax.Schedule:
  """Linear warm-up, then a constant rate."""
  del steps, end, power
  ramp = optax.linear_schedule(peak / max(warmup, 1), peak, max(warmup - 1, 1))
  return optax.join_schedules([ramp, optax.constant_schedule(peak)], [warmup])


SCHEDULES: dict[str, Callable[..., optax.Schedule]] = {
  'warmup_cosine': warmup_cosine,
  'warmup_poly': warmup_poly,
  'constant': constant,
}


def build_schedule(
  name: str, peak: float, steps: int, *, warmup: int, end: float, power: float
) -> optax.Schedule:
  """Returns the named schedule over `steps` steps."""
  return lookup(SCHEDULES, name, 'schedule')(
    peak, steps, warmup=warmup, end=end, power=power
  )
