"""A CLIPSeg decoder goes on with other images, masks and phrases; CLIP is frozen.

Needs runs/clipseg_scenes, or a converted CLIPSeg: --config.init.clipseg=DIR with the
sizes of its parts in --config.clip.* and --config.clipseg.*. The data are the label
maps of --config.dataset.name; a phrase is one of config.phrases.templates with the name
of a class.
Expected: not measured. Hardware: 2 CPU cores; time not measured.
Command: launch/run.sh --config=configs/clipseg_finetune.py
"""

import ml_collections

from configs import scenes


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above."""
  return scenes.single('clipseg_finetune', 'clipseg_finetune', arg)
