"""Mask-noun pairs from the captions of the training scenes.

Needs runs/quickstart/ovseg_frozen (or --config.mining.checkpoint=DIR).
Expected: see "Results" in README.md. Hardware: 2 CPU cores; about 1 minute.
Command: launch/run.sh --config=configs/mine_scenes.py
"""

import ml_collections

from configs import scenes


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above."""
  return scenes.single('mine_scenes', 'mine', arg)
