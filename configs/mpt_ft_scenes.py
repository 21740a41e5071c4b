"""Mask prompt tuning on top of the fine-tuned tower.

Needs runs/ft_scenes (--config.init.clip=DIR) and runs/quickstart/mine.
Expected: see "Results" in README.md. Hardware: 2 CPU cores; about 1 minute.
Command: launch/run.sh --config=configs/mpt_ft_scenes.py
"""

import ml_collections

from configs import scenes


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above."""
  return scenes.single('mpt_ft_scenes', 'mpt_ft', arg)
