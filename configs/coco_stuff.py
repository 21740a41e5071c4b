"""OVSeg's training of proposers on COCO-Stuff, shared by its two configurations.

Numbers are those of the reference's configuration files (stage A).
"""

import dataclasses

import ml_collections

from configs import adaptation, common, scenes
from ovs_jax.models import maskformer

# In the reference norms, embeddings and tables of positions are not decayed, but the
# biases of convolutions and linear layers, and "no object", are.
DECAY = (
  (r'norm[^/]*/(scale|bias)$', 0.0),
  (r'(query_embed|relative_position_bias)$', 0.0),
  (r'.*', 1.0),
)


_BACKBONES = {  # by the size of the CLIP: published files, and where they become ours
  'vitl14': ('swin_base_patch4_window12_384_22k.pth', 'checkpoints/swin_base'),
  'vitb16': ('R-103.pkl', 'checkpoints/r101c'),
}
_BACKBONES |= dict.fromkeys(('siglip2_l16', 'convnext_l'), _BACKBONES['vitl14'])


def proposer_training(name: str, preset: str, size: str) -> ml_collections.ConfigDict:
  """Returns what both have in common.

  Args:
    name: of the run.
    preset: of the MaskFormer.
    size: of the CLIP that names the classes.
  """
  config = common.base(name, 'train')
  file, config.init.backbone = _BACKBONES[size]
  config.init.clip = f'checkpoints/{adaptation.FOLDERS[size]}'
  convert = 'python -m ovs_jax.convert'
  command = f'{convert} --input={file} --output={config.init.backbone} --check'
  config.needs = (
    adaptation.weights(size),
    ('init.backbone', f'its backbone as published, {file}', command),
    ('dataset', 'COCO-Stuff', ''),
  )
  config.recipe = 'proposer'
  config.dataset.name = 'coco_stuff_171'
  config.proposer = ml_collections.ConfigDict(
    dataclasses.asdict(maskformer.PRESETS[preset])
  )
  config.train.steps = 120_000
  config.train.batch_size = 32
  config.train.max_targets = 40
  config.train.classes = 'all'
  config.train.colour = True
  config.train.log_every = 50
  config.train.save_every = 5000
  config.train.disk_megabytes = 4500
  optimizer = config.optimizer
  optimizer.schedule = 'warmup_poly'
  optimizer.warmup = 1500
  optimizer.power = 0.9
  optimizer.gradient_clip = 0.01
  optimizer.decay = DECAY
  return config


def swin_b(name: str, size: str) -> ml_collections.ConfigDict:
  """The proposer of OVSeg's larger model, with the names of a CLIP of this size."""
  config = proposer_training(name, 'swin_b_l14', size)
  config.proposer.embed_dim = adaptation.embed_dim(size)
  config.train.shortest = tuple(range(320, 1281, 64))
  config.train.longest = 2560
  config.train.crop = 640
  config.optimizer.learning_rate = 6e-5
  config.optimizer.weight_decay = 0.01
  return config


def finish(config: ml_collections.ConfigDict, arg: str) -> ml_collections.ConfigDict:
  """Returns the training itself, or as `smoke` a pipeline on the embedded scenes."""
  if arg != 'smoke':
    return common.finish(config, arg)
  config.needs = ()
  config.init.clip = '{run}/clip'
  config.init.backbone = ''
  own = {'proposer': config}
  return scenes.pipeline(config.name, 'proposer', arg, own=own, needs=('clip',))
