"""The workloads of CLIPSeg and CoSeg, at their smallest."""

import numpy as np
import pytest

from ovs_jax.bench import clipseg, coseg_step


@pytest.mark.slow
def test_prompts_agree_with_one_tower_each() -> None:
  options = clipseg.Options(preset='tiny', prompts=5, size=16, repeated=True)
  workload = clipseg.build(options)
  assert [v.name for v in workload.variants] == ['package', 'tower for every prompt']
  assert workload.items == 5 and workload.variants[0].run().shape == (5, 16, 16)
  assert workload.facts['largest difference'] < 1e-4
  with pytest.raises(ValueError, match='unknown CLIPSeg preset'):
    clipseg.build(clipseg.Options(preset='rd65'))


@pytest.mark.slow
def test_both_steps_have_the_same_loss() -> None:
  workload = coseg_step.build(coseg_step.Options(small=True, batch=1))
  one, other = (workload.facts[f'loss, {v.name}'] for v in workload.variants)
  assert np.isfinite(one) and abs(one - other) < 1e-5
