"""Fine-tuning of the tiny CLIP's image tower on the mined pairs.

Needs runs/quickstart/clip and mine (or --config.init.clip= and --config.init.pairs=).
Expected: see "Results" in README.md. Hardware: 2 CPU cores; about 1 minute.
Command: launch/run.sh --config=configs/ft_scenes.py
"""

import ml_collections

from configs import scenes


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above."""
  return scenes.single('ft_scenes', 'ft', arg)
