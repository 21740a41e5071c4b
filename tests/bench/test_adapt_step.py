"""The step of CLIP's adaptation as a workload."""

import math

import pytest

from ovs_jax.bench import clip_adapt_step


@pytest.mark.slow
def test_a_step_of_prompt_tuning_is_measured() -> None:
  options = clip_adapt_step.Options(preset='tiny', batch=4)
  workload = clip_adapt_step.build(options)
  assert workload.items == 4 and workload.facts['trained'] == 3 * 36 * 64
  assert [variant.name for variant in workload.variants] == [
    'package',
    'with text tower',
  ]
  for variant in workload.variants:
    assert math.isfinite(float(variant.run()['loss']))


def test_an_unknown_method_is_refused() -> None:
  with pytest.raises(ValueError, match='known: ft, mpt'):
    clip_adapt_step.build(clip_adapt_step.Options(method='mtp'))
