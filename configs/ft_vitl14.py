"""Fine-tuning of the image tower of ViT-L/14 on pairs from COCO Captions.

Says what it needs, and how to make it, if that is not there.
Expected: 8.8 / 28.8 / 55.7 mIoU on ADE20K-847, ADE20K-150 and PC-59 (paper, Table
  3b); not measured.
Hardware: one GPU of 80 GB or more, or several; time not measured.
Command: launch/run.sh --config=configs/ft_vitl14.py
Numbers of the paper; `:script` after the name takes those of the released script.
Other cases of Table 2: `:truth` (case 2), `:five_captions` (case 4), `:classes` (case
1, which is configs/gt_classes_vitl14.py, too).
"""

import ml_collections

from configs import adaptation


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above."""
  config = adaptation.fine_tuning('ft_vitl14', 'vitl14', arg)
  return adaptation.finish(config, 'ft', arg)
