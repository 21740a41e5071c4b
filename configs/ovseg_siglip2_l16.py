"""OVSeg with SigLIP 2 L/16 and Swin-B: the paper's recipe with another pair of towers.

A pipeline: a proposer that is trained with SigLIP 2's names, then what adapts the
towers, then the OVSeg. After a colon comes how they are adapted: `:mpt_ft`
(fine-tuning, then mask prompts; the same without a colon), `:ft`, `:mpt` or `:frozen`.
Each training has a directory of its own in runs/, so that what was done for one counts
for all. The pairs are those that OpenAI's CLIP mines (configs/mine_coco_captions.py).
Expected: not in the paper; not measured.
Hardware: 8 GPUs of 32 GB for the proposer, one of 80 GB or more for the rest; time not
measured. As smoke: 2 CPU cores.
Command: launch/run.sh --config=configs/ovseg_siglip2_l16.py
"""

import ml_collections

from configs import towers

# Trainings before the OVSeg, by the way to adapt.
_TRAININGS = {'frozen': (), 'mpt': ('mpt',), 'ft': ('ft',), 'mpt_ft': ('ft', 'mpt_ft')}


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above."""
  return towers.ovseg('siglip2_l16', arg, _TRAININGS, 'tiny_siglip')
