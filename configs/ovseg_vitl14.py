"""An OVSeg of ViT-L/14 and Swin-B: a trained proposer and an adapted CLIP.

After a colon comes how CLIP was adapted: `:mpt_ft` (fine-tuning, then mask prompts; the
same without a colon), `:ft`, `:mpt` (mask prompts beside OpenAI's weights) or
`:frozen`. Says what it needs, and how to make it, if that is not there. The result,
runs/ovseg_vitl14/model, is what configs/eval_ovseg.py evaluates.
Expected: 9.0, 12.4, 29.6, 55.7 and 94.5 mIoU on A-847, PC-459, A-150, PC-59 and VOC-20
  (paper, Table 1); not measured.
Hardware: any; seconds. As smoke: 2 CPU cores.
Command: launch/run.sh --config=configs/ovseg_vitl14.py
"""

import ml_collections

from configs import adaptation


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above."""
  return adaptation.assembled('ovseg_vitl14', 'vitl14', arg)
