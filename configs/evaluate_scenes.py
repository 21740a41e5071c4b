"""All classifiers and both oracles of an OVSeg on the scenes of `val`.

Needs runs/quickstart/ovseg_mpt (or --config.eval.checkpoint=DIR).
Expected: see "Results" in README.md. Hardware: 2 CPU cores; about 1 minute.
Command: launch/run.sh --config=configs/evaluate_scenes.py
"""

import ml_collections

from configs import scenes


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above."""
  return scenes.single('evaluate_scenes', 'evaluate_mpt', arg)
