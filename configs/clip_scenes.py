"""A tiny CLIP from scratch on the captioned close-ups of `scenes`.

The first training stage of the quickstart.
Expected: see "Results" in README.md. Hardware: 2 CPU cores; about 3 minutes.
Command: launch/run.sh --config=configs/clip_scenes.py
"""

import ml_collections

from configs import scenes


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above."""
  return scenes.single('clip_scenes', 'clip', arg)
