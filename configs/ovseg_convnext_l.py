"""OVSeg with a CLIP whose image tower is a ConvNeXt-L, and Swin-B.

A pipeline: a proposer that is trained with this CLIP's names, then fine-tuning, then
the OVSeg. After a colon comes how the tower is adapted: `:ft` (the same without a
colon) or `:frozen`. Mask prompts (MPT) do not apply: a ConvNeXt has no tokens that they
could stand in for. Segmenter.load(..., mode='pooled') asks it in FC-CLIP's way: one
forward pass of the picture, and each mask pools its part of the map.
The pairs are those that OpenAI's CLIP mines (configs/mine_coco_captions.py).
Expected: not in the paper; not measured.
Hardware: 8 GPUs of 32 GB for the proposer, one of 80 GB or more for the rest; time not
measured. As smoke: 2 CPU cores.
Command: launch/run.sh --config=configs/ovseg_convnext_l.py
"""

import ml_collections

from configs import towers

# Trainings before the OVSeg, by the way to adapt.
_TRAININGS = {'frozen': (), 'ft': ('ft',)}


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above."""
  return towers.ovseg('convnext_l', arg, _TRAININGS, 'tiny_convnext')
