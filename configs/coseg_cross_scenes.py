"""CoSeg with the cross-attention language model, tiny, on the label maps of `scenes`.

Needs runs/quickstart/clip (or --config.init.clip=DIR).
Expected: not measured. Hardware: 2 CPU cores; time not measured.
Command: launch/run.sh --config=configs/coseg_cross_scenes.py
"""

import ml_collections

from configs import scenes


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above."""
  return scenes.single('coseg_cross_scenes', 'coseg_cross', arg)
