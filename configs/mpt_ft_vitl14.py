"""Mask prompt tuning on top of the fine-tuned ViT-L/14 (OVSeg, section 3.4).

Needs runs/ft_vitl14; says how to make it. `:joint` trains tower and prompts together,
from the CLIP as it came.
Expected: 9.0 / 29.6 / 55.7 mIoU on ADE20K-847, ADE20K-150 and PC-59 (paper, Table
  3c); not measured.
Hardware: one GPU of 80 GB or more, or several; time not measured.
Command: launch/run.sh --config=configs/mpt_ft_vitl14.py
Numbers of the paper; `:script` after the name takes those of the released script.
"""

import ml_collections

from configs import adaptation


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above."""
  name, size = 'mpt_ft_vitl14', 'vitl14'
  if arg == 'joint':
    config = adaptation.fine_tuning(name, size, '')
    config.clip.prompt_depth = adaptation.PROMPT_DEPTH
    prompts = 2e-2 / config.optimizer.learning_rate
    groups = ((r'visual/mask_prompt$', prompts), *config.optimizer.groups)
    config.optimizer.groups = groups
    return adaptation.finish(config, 'ft', '')
  config = adaptation.prompt_tuning(name, size, arg)
  config.init.clip = 'runs/ft_vitl14'
  config.needs = (adaptation.tuned('init.clip', 'ft_vitl14'), adaptation.mined())
  return adaptation.finish(config, 'mpt_ft', arg)
