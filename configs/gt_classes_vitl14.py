"""Fine-tuning of ViT-L/14 on true masks and class names (Table 2, case 1).

Says what it needs, and how to make it, if that is not there.
Expected: 5.3 / 23.0 / 57.3 mIoU on ADE20K-847, ADE20K-150 and PC-59 (paper, Table
  2); not measured.
Hardware: one GPU of 80 GB or more, or several; time not measured.
Command: launch/run.sh --config=configs/gt_classes_vitl14.py
Numbers of the paper; `:script` after the name takes those of the released script.
"""

import ml_collections

from configs import adaptation


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above."""
  config = adaptation.fine_tuning('gt_classes_vitl14', 'vitl14', arg, case='classes')
  return adaptation.finish(config, 'ft_classes', arg)
