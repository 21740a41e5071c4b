"""A tiny MaskFormer on the 46 seen classes of `scenes`.

Needs runs/quickstart/clip and runs/quickstart/backbone (or --config.init.clip=DIR and
--config.init.proposer=DIR).
Expected: see "Results" in README.md. Hardware: 2 CPU cores; about 3 minutes.
Command: launch/run.sh --config=configs/proposer_scenes.py
"""

import ml_collections

from configs import scenes


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above."""
  return scenes.single('proposer_scenes', 'proposer', arg)
