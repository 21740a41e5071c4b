"""The proposer's workloads at sizes that compile in seconds."""

import numpy as np
import pytest

from ovs_jax.bench import proposer_forward, proposer_step
from ovs_jax.models.maskformer import PRESETS


@pytest.mark.slow
def test_forward_agrees_with_hidden_padding() -> None:
  options = proposer_forward.Options(preset='tiny', side=64, batch=2)
  workload = proposer_forward.build(options)
  assert [v.name for v in workload.variants] == ['package', 'bucket']
  assert (workload.unit, workload.items) == ('pictures', 2)
  assert workload.facts['largest relative difference'] < 1e-4
  embeddings, masks = workload.variants[0].run()
  sizes = PRESETS['tiny']
  assert embeddings.shape == (1, 2, sizes.num_queries, sizes.embed_dim)
  assert masks.shape == (1, 2, sizes.num_queries, 16, 16)


@pytest.mark.slow
def test_steps_go_on_and_agree() -> None:
  options = proposer_step.Options(preset='tiny', side=32, targets=4)
  workload = proposer_step.build(options)
  package, remat = workload.variants
  assert package.name == 'package' and remat.name == 'remat'
  first, again = package.run(), remat.run()
  for name, value in first.items():
    np.testing.assert_allclose(again[name], value, rtol=2e-4, err_msg=name)
  second = package.run()
  assert float(second['learning_rate']) > float(first['learning_rate'])
  assert workload.facts['parameters'] > 1e5


def test_an_unknown_preset_is_named() -> None:
  with pytest.raises(ValueError, match="Did you mean 'swin_b_l14'"):
    proposer_forward.build(proposer_forward.Options(preset='swin_b_l41'))
