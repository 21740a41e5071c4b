"""The two-stage baseline of Tables 2 and 3: ViT-B/16 as it came, on ADE20K-150.

Evaluation only. Says what it needs, and how to make it, if that is not there.
Expected: not in the paper; not measured.
Hardware: one GPU; time not measured.
Command: launch/run.sh --config=configs/baseline_vitb16.py
"""

import ml_collections

from configs import adaptation


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above."""
  return adaptation.baseline('baseline_vitb16', 'vitb16', arg)
