"""What steps of whole configurations send between eight simulated devices."""

import dataclasses
from typing import Any

import pytest
import tiny_configs

from configs import proposer_swin_b
from ovs_jax.bench import programs
from ovs_jax.models import backbones, maskformer, swin
from ovs_jax.settings import Settings
from ovs_jax.train.recipes import RECIPES


def tiny_swin_proposer(monkeypatch: pytest.MonkeyPatch) -> Any:
  """Swin-B's training with all but the sizes of the networks and the pictures."""
  sizes = swin.SwinConfig(8, (2, 1), (1, 2), 4)
  monkeypatch.setitem(backbones.PRESETS, 'swin_of_two_stages', sizes)
  config = proposer_swin_b.get_config()
  with config.unlocked():
    config.proposer.update(dataclasses.asdict(maskformer.PRESETS['tiny']))
    config.proposer.backbone = 'swin_of_two_stages'
    config.train.update(crop=128, max_targets=8, batch_size=16)
  return config


def test_the_proposer_sends_its_gradients_and_waits_for_nobody(
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  config = tiny_swin_proposer(monkeypatch)
  found = programs.compile_step(Settings.of(config))
  # Neither masks, of any layer or target, nor the biases of each window.
  assert found.gradients <= sum(found.sent.values()) < found.gradients + 2**16
  # Blocks add up their gradients one by one; matching has loops, too.
  assert {loop.name.split('/')[-2] for loop in found.loops} == {'backbone'}
  assert all(loop.turns is not None for loop in found.loops)


@pytest.mark.slow
@pytest.mark.parametrize('recipe', RECIPES)
def test_more_examples_send_no_more(recipe: str) -> None:
  """But contrastive losses: the embeddings of the others' texts, and rows' sums."""
  config = tiny_configs.of_recipe(recipe, '-', '-', '-', heads=2)
  sent = {}
  for size in (16, 32):
    config.train.batch_size = size
    sent[size] = programs.compile_step(Settings.of(config)).sent
  gathered = {size: n.get('all-gather', 0) for size, n in sent.items()}
  if recipe.startswith('clip_'):
    assert gathered == {size: size * config.clip.embed_dim * 4 for size in sent}
    assert 0 <= sent[32]['all-reduce'] - sent[16]['all-reduce'] <= 16 * 2**7
  else:
    assert sent[16] == sent[32]
