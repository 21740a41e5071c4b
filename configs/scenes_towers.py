"""OVSeg of the embedded world with other image and text towers, from nothing.

The quickstart's stages, with fine-tuning beside mask prompts, for `:clip`, `:siglip`
(no class token, a probe that pools, sigmoids of scores) and `:convnext` (no patches,
and so no mask prompts), all about as small. Everything else is the same, and was chosen
for `:clip`.
Expected: "Other towers" in docs/results.md. Hardware: 2 CPU cores; 11 to 12 minutes.
Command: launch/run.sh --config=configs/scenes_towers.py:siglip
"""

import dataclasses

import ml_collections

from configs import scenes
from ovs_jax.core.lookup import lookup
from ovs_jax.models.clip import PRESETS

TOWERS = {'clip': 'tiny', 'siglip': 'tiny_siglip', 'convnext': 'tiny_convnext'}


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above; `:TOWER:smoke` is the same at the smallest size, with four steps."""
  tower, _, rest = arg.partition(':')
  if tower == 'smoke':
    tower, rest = 'siglip', 'smoke'
  preset = lookup(TOWERS, tower or 'clip', 'word after the colon')
  sizes = dataclasses.asdict(PRESETS[preset])
  prompted = tower != 'convnext'
  known, at = scenes.stages(), scenes.in_pipeline
  own = {name: known[name] for name in ('clip', 'ft', *['mpt'] * prompted)}
  for stage in own.values():
    depth = stage.clip.prompt_depth
    stage.clip.update(sizes)
    stage.clip.prompt_depth = depth
  own['ovseg_ft'] = scenes.assemble(at('proposer'), at('ft'), prompt_depth=0)
  own['evaluate_ft'] = scenes.evaluate(at('ovseg_ft/model'))
  needs = ['evaluate_frozen', *['evaluate_mpt'] * prompted, 'ft', 'ovseg_ft']
  name = f'scenes_towers_{tower}' if tower else 'scenes_towers'
  return scenes.pipeline(name, 'evaluate_ft', rest, own=own, needs=tuple(needs))
