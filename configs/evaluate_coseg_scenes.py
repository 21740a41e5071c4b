"""CoSeg without training, prefix and cross-attention on the scenes of `val`.

Needs runs/quickstart/clip, runs/clipseg_scenes, runs/coseg_prefix_scenes and
runs/coseg_cross_scenes; an empty --config.systems.coseg.cross= leaves one out.
Expected: see docs/results.md. Hardware: 2 CPU cores; about 2 minutes.
Command: launch/run.sh --config=configs/evaluate_coseg_scenes.py
"""

import ml_collections

from configs import scenes


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above; `smoke` has no cross-attention."""
  if arg == 'smoke':
    config = scenes.evaluate_coseg('{run}')
    config.systems.coseg.cross = ''
    return scenes.pipeline('evaluate_coseg_scenes', 'evaluate_coseg', arg, stage=config)
  return scenes.single('evaluate_coseg_scenes', 'evaluate_coseg', arg)
