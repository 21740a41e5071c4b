"""The proposer of OVSeg's smaller (R101c) model on COCO-Stuff.

Needs COCO-Stuff (`python -m ovs_jax.data.prepare --dataset=coco_stuff_171`) and what
`init` names, converted with `python -m ovs_jax.convert`: OpenAI's ViT-B/16 and
detectron2's R-103; docs/checkpoints.md has the commands. What can be chosen besides is
said in configs/proposer_swin_b.py.
Expected: with its adapted CLIP 24.8 mIoU on ADE20K-150 (paper, Table 1); not measured.
Hardware: 8 GPUs of 32 GB in the reference; time not measured.
Command: launch/run.sh --config=configs/proposer_r101c.py
"""

import ml_collections

from configs import coco_stuff


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above."""
  config = coco_stuff.proposer_training('proposer_r101c', 'r101c_b16', 'vitb16')
  config.train.shortest = (800,)  # the reference's default: its configuration sets none
  config.train.longest = 1333
  config.train.crop = 512
  config.optimizer.learning_rate = 2e-4
  config.optimizer.weight_decay = 1e-4
  config.optimizer.groups = (
    (r'^backbone/(stem_conv\d|res2_\d+)/', None),  # frozen stages
    (r'^backbone/.*norm/', None),  # frozen batch norms
    (r'^backbone/', 0.1),
    (r'.*', 1.0),
  )
  return coco_stuff.finish(config, arg)
