"""OVSeg from nothing to a segmented picture, on a laptop.

Reproduces: the pipeline of the paper on the embedded world `scenes`: CLIP, proposer,
mined pairs, mask prompt tuning, evaluation on classes whose masks were never seen.
Expected: see "Results" in README.md. Hardware: 2 CPU cores, 4 GB; about 12 minutes.
Command: launch/run.sh
"""

import ml_collections

from configs import scenes


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """Stages from the drawing of the data to the report."""
  return scenes.pipeline('quickstart', 'report', arg)
