"""Mask prompt tuning of ViT-L/14 on pairs from COCO Captions (OVSeg, section 3.4).

Says what it needs, and how to make it, if that is not there. Stores the prompts only;
use them with --prompts=DIR beside any CLIP of this size. To watch the training, add
--config.init.labelled=DIR (of mine_coco_captions.py:ade_crops) and
--config.adapt.evaluate_every=1727.
Expected: 8.4 / 26.5 / 55.4 mIoU on ADE20K-847, ADE20K-150 and PC-59 (paper, Table
  3a); not measured.
Hardware: one GPU of 80 GB or more, or several; time not measured.
Command: launch/run.sh --config=configs/mpt_vitl14.py
Numbers of the paper; `:script` after the name takes those of the released script.
"""

import ml_collections

from configs import adaptation


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above."""
  config = adaptation.prompt_tuning('mpt_vitl14', 'vitl14', arg)
  return adaptation.finish(config, 'mpt', arg)
