"""An OVSeg of ViT-B/16 and R101c: a trained proposer and an adapted CLIP.

After a colon comes how CLIP was adapted: `:mpt_ft` (fine-tuning, then mask prompts; the
same without a colon), `:ft`, `:mpt` (mask prompts beside OpenAI's weights) or
`:frozen`. Says what it needs, and how to make it, if that is not there. The result,
runs/ovseg_vitb16/model, is what configs/eval_ovseg.py evaluates.
Expected: 7.1, 11.0, 24.8, 53.3 and 92.6 mIoU on A-847, PC-459, A-150, PC-59 and VOC-20
  (paper, Table 1); not measured.
Hardware: any; seconds. As smoke: 2 CPU cores.
Command: launch/run.sh --config=configs/ovseg_vitb16.py
"""

import ml_collections

from configs import adaptation


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above."""
  return adaptation.assembled('ovseg_vitb16', 'vitb16', arg)
