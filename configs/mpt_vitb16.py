"""Mask prompt tuning of ViT-B/16 on pairs from COCO Captions (OVSeg, section 3.4).

Says what it needs, and how to make it, if that is not there. Stores the prompts only;
use them with --prompts=DIR beside any CLIP of this size. To watch the training, add
--config.init.labelled=DIR (of mine_coco_captions.py:ade_crops) and
--config.adapt.evaluate_every=1727.
Expected: not in the paper; not measured.
Hardware: one GPU of 80 GB or more, or several; time not measured.
Command: launch/run.sh --config=configs/mpt_vitb16.py
Numbers of the paper; `:script` after the name takes those of the released script.
"""

import ml_collections

from configs import adaptation


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above."""
  config = adaptation.prompt_tuning('mpt_vitb16', 'vitb16', arg)
  return adaptation.finish(config, 'mpt', arg)
