"""CoSeg without training: CLIP chooses 20 labels, the released CLIPSeg segments each.

Reproduces section 3.3 with the refined CLIPSeg, whose CLIP also chooses the labels, on
Pascal Context 59 under both protocols: whole images at their size, and centre crops of
224 pixels. Others: --config.dataset.name=coco_80, voc_20 or pascal_context_459; trained
CoSegs beside it: --config.systems.coseg.prefix=DIR. Reports the recall of the labels,
all merging rules, both mIoU denominators, and the bounds by true labels and true masks.
Needs the data set and checkpoints/clipseg_rd64_refined; without them it says how to get
both.
Expected: 31.2 mIoU (paper, protocol unclear); not measured.
Hardware: not measured.
Command: launch/run.sh --config=configs/coseg_no_training.py
"""

import ml_collections

from configs import common, scenes


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above."""
  config = common.base('coseg_no_training', 'evaluate_systems')
  config.dataset.name = 'pascal_context_59'
  config.systems.clipseg = 'checkpoints/clipseg_rd64_refined'
  config.systems.protocols = ('standard', 'paper')
  if arg != 'smoke':
    return common.finish(config, arg)
  config.systems.clipseg = scenes.in_pipeline('clipseg')
  return scenes.pipeline(config.name, 'no_training', arg, own={'no_training': config})
