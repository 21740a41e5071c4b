"""Mask prompt tuning on top of the fine-tuned ViT-B/16 (OVSeg, section 3.4).

Needs runs/ft_vitb16; says how to make it.
Expected: 24.8 mIoU on ADE20K-150 with R101c (paper, Table 1); not measured.
Hardware: one GPU of 80 GB or more, or several; time not measured.
Command: launch/run.sh --config=configs/mpt_ft_vitb16.py
Numbers of the paper; `:script` after the name takes those of the released script.
"""

import ml_collections

from configs import adaptation


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above."""
  config = adaptation.prompt_tuning('mpt_ft_vitb16', 'vitb16', arg)
  config.init.clip = 'runs/ft_vitb16'
  config.needs = (adaptation.tuned('init.clip', 'ft_vitb16'), adaptation.mined())
  return adaptation.finish(config, 'mpt_ft', arg)
