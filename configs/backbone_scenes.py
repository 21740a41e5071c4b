"""The backbone of the proposer of `scenes`: it names what is under the masks.

Stands for the ImageNet weights that the paper's backbones start from.
Needs runs/quickstart/clip (or --config.init.clip=DIR).
Expected: see "Results" in README.md. Hardware: 2 CPU cores; about 4 minutes.
Command: launch/run.sh --config=configs/backbone_scenes.py
"""

import ml_collections

from configs import scenes


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above."""
  return scenes.single('backbone_scenes', 'backbone', arg)
