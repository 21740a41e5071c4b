"""CoSeg with the cross-attention language model as in the paper, on COCO-Stuff.

As configs/coseg_prefix_vitb16.py, whose docstring names the options, with four blocks
of an encoder over the patches and four of a decoder over the slots; `:better` likewise.
Expected: 54.2 mIoU on Pascal Context 59 (paper, protocol unclear); not measured.
Hardware: not measured.
Command: launch/run.sh --config=configs/coseg_cross_vitb16.py
"""

import ml_collections

from configs import coseg_prefix_vitb16


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above."""
  return coseg_prefix_vitb16.training('coseg_cross_vitb16', 'cross', arg)
