"""A small CLIPSeg decoder on the phrases and masks of `scenes`.

Needs runs/quickstart/clip (or --config.init.clip=DIR).
Expected: not measured. Hardware: 2 CPU cores; time not measured.
Command: launch/run.sh --config=configs/clipseg_scenes.py
"""

import ml_collections

from configs import scenes


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above."""
  return scenes.single('clipseg_scenes', 'clipseg', arg)
