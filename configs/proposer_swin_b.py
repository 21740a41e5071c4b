"""The proposer of OVSeg's larger (Swin-B) model on COCO-Stuff.

Needs COCO-Stuff (`python -m ovs_jax.data.prepare --dataset=coco_stuff_171`) and what
`init` names, converted with `python -m ovs_jax.convert`: OpenAI's ViT-L/14 and the
Swin-B of ImageNet-22k at 384 pixels; docs/checkpoints.md has the commands. An empty
init.backbone starts from nothing; --config.init.proposer=DIR --config.init.backbone=
goes on from a proposer, or from Hugging Face's MaskFormer with a Swin-B.
--config.dataset.name=coco_stuff_156_15 --config.train.classes=seen holds out 15
classes, whose pixels become void. --config.proposer.remat=True and
--config.proposer.dtype=bfloat16 need less memory: without both, four crops need 28 GB
of temporary values (docs/scaling.md), more than a TPU v5e has.
Expected: with OpenAI's CLIP 21.8 mIoU on ADE20K-150 (paper, Table 2); not measured.
Hardware: 8 GPUs of 32 GB in the reference; time not measured.
Command: launch/run.sh --config=configs/proposer_swin_b.py
"""

import ml_collections

from configs import coco_stuff


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above."""
  return coco_stuff.finish(coco_stuff.swin_b('proposer_swin_b', 'vitl14'), arg)
