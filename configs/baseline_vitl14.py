"""The two-stage baseline of Tables 2 and 3: ViT-L/14 as it came, on ADE20K-150.

Evaluation only. Says what it needs, and how to make it, if that is not there.
Expected: 7.3 / 21.8 / 51.4 mIoU on ADE20K-847, ADE20K-150 and PC-59 (paper, Table
  2); not measured.
Hardware: one GPU; time not measured.
Command: launch/run.sh --config=configs/baseline_vitl14.py
"""

import ml_collections

from configs import adaptation


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above."""
  return adaptation.baseline('baseline_vitl14', 'vitl14', arg)
