"""The released CLIPSeg's decoder goes on with your own images, masks and phrases.

phrases.csv, with paths relative to it; a mask is not 0 where the phrase applies:

    image,mask,phrase
    photos/1.jpg,masks/1_cup.png,a red cup

CLIP is frozen, its embeddings of the phrases are computed once. Options: another table
(--config.phrases.table=FILE, or '' for the classes of --config.dataset.name), random
squares as in its own training (--config.phrases.crop=square), other weights of the
losses (--config.phrases.weights.dice=1.0), templates and the share of negatives.
Needs checkpoints/clipseg_rd64_refined and the table; without them it says how to get
both. `:rd64` and `:rd16` after the path take the other published models,
checkpoints/clipseg_rd64 and clipseg_rd16. Of any other CLIPSeg the keys of
config.clipseg and config.clip must be set to its sizes; what differs is named.
Expected: depends on the data; not measured. Hardware: not measured.
Command: launch/run.sh --config=configs/clipseg_finetune.py
"""

import dataclasses

import ml_collections

from configs import common, scenes
from ovs_jax.models import clipseg


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above."""
  model = arg if arg in clipseg.PRESETS else 'rd64_refined'
  config = scenes.clipseg_finetuning(f'checkpoints/clipseg_{model}')
  sizes = clipseg.PRESETS[model]
  config.clip = ml_collections.ConfigDict(dataclasses.asdict(sizes.clip))
  config.clipseg.decoder = dataclasses.asdict(sizes.decoder)
  config.clipseg.image_size = sizes.image_size
  config.phrases.table = 'phrases.csv'
  config.train.batch_size = 16
  config.train.steps = 1000
  config.train.disk_megabytes = 2500
  if arg != 'smoke':
    config.name += f'_{arg}' if arg == model else ''
    return common.finish(config, arg, applied=clipseg.PRESETS)
  tiny = scenes.stages()['clipseg_finetune']  # its sizes, checkpoint and phrases
  for section in ('clip', 'clipseg'):
    config[section] = tiny[section]
  config.init.clipseg = tiny.init.clipseg
  config.phrases.table = ''
  return scenes.pipeline(config.name, config.name, arg, own={config.name: config})
