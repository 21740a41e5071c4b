"""OVSeg from nothing to a segmented picture, on a laptop.

Reproduces: the pipeline of the paper on the embedded world `scenes`: CLIP, proposer,
mined pairs, mask prompt tuning, evaluation on classes whose masks were never seen.
Expected: see "Results" in README.md. Hardware: 2 CPU cores, 4 GB; about 10 minutes.
Command: launch/run.sh
"""

import ml_collections

from configs import common, scenes


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """Stages from the drawing of the data to the report."""
  config = common.base('quickstart', 'pipeline')
  clip, proposer = '{run}/clip', '{run}/proposer'
  stages = {
    'data': common.base('scenes', 'prepare'),
    'clip': scenes.clip_pretrain(),
    'proposer': scenes.proposer(clip),
    'ovseg_frozen': scenes.assemble(proposer, clip, prompt_depth=0),
    'mine': scenes.mine('{run}/ovseg_frozen/model'),
    'mpt': scenes.mask_prompt_tuning(clip, '{run}/mine/pairs'),
    'ovseg_mpt': scenes.assemble(proposer, '{run}/mpt', prompt_depth=3),
    'evaluate_frozen': scenes.evaluate('{run}/ovseg_frozen/model'),
    'evaluate_mpt': scenes.evaluate('{run}/ovseg_mpt/model'),
    'report': scenes.report('{run}'),
  }
  for name, stage in stages.items():
    stage.name = name
    stage.seed = config.get_ref('seed')
    for section in ('name', 'variant', 'data_dir'):
      stage.dataset[section] = config.dataset.get_ref(section)
  config.order = tuple(stages)
  config.stages = ml_collections.ConfigDict(stages)
  return common.finish(config, arg)
