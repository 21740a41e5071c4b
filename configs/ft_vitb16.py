"""Fine-tuning of the image tower of ViT-B/16 on pairs from COCO Captions.

Says what it needs, and how to make it, if that is not there.
Expected: 24.8 mIoU on ADE20K-150 with R101c (paper, Table 1, after prompts, too); not
  measured.
Hardware: one GPU of 80 GB or more, or several; time not measured.
Command: launch/run.sh --config=configs/ft_vitb16.py
Numbers of the paper; `:script` after the name takes those of the released script.
"""

import ml_collections

from configs import adaptation


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above."""
  config = adaptation.fine_tuning('ft_vitb16', 'vitb16', arg)
  return adaptation.finish(config, 'ft', arg)
