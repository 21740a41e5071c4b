"""CoSeg on the drawn world, and the CLIP that it reads; shared by configs/scenes.py."""

import ml_collections

from configs import common
from ovs_jax.models import coseg

# Of the CLIP that CoSeg reads, whose table of positions is that of whole scenes.
_PATCHES_SIDE = 128


def patch_training(
  pretraining: ml_collections.ConfigDict, clip: str
) -> ml_collections.ConfigDict:
  """A CLIP whose patches mean something, as those of OpenAI's do.

  The text tower is that of the other CLIP and stays; the image tower starts anew, sees
  mosaics of close-ups at the sizes that things have in scenes, and learns from the
  patches alone what their captions say. It has no masks.
  """
  config = on_patches(pretraining)
  config.name = 'coseg_clip_scenes'
  config.init.clip = clip
  config.train.image_weight = 0.0
  config.train.patch_weight = 1.0
  config.train.patch_sides = (24, 32, 48)
  config.train.batch_size = 96
  config.train.steps = 1200
  optimizer = config.optimizer
  optimizer.learning_rate = 3e-3
  optimizer.warmup = 40
  optimizer.b2 = 0.95
  optimizer.groups = ((r'^text/', None), (r'.*', 1.0))
  optimizer.muon = (
    (r'^visual/blocks/.*/(q|k|v)/kernel$', 1),
    (r'^visual/(blocks/.*|conv1)/kernel$', -1),
  )
  optimizer.stacked = (r'^visual/blocks/',)
  return config


def on_patches(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Makes the CLIP of a training one that `patch_training` trained."""
  config.clip.image_size = _PATCHES_SIDE
  return config


def coseg_training(clip: str, language: str) -> ml_collections.ConfigDict:
  """CoSeg's language model and decoder on the label maps of the seen classes."""
  config = common.base(f'coseg_{language}_scenes', 'train')
  config.recipe = 'coseg'
  config.init.clip = clip
  for part, value in coseg.tiny(language).to_dict().items():
    if part != 'clip':
      config.coseg[part] = value
  config.train.steps = 1500
  config.train.batch_size = 8
  config.train.paste_scenes = 1
  # One linear map from what the condition has acted on to 4 x 4 pixels of each patch.
  config.coseg.decoder.update(
    reduce_dim=64,
    mlp=256,
    extract=(1, 3),
    film_steps=(1,),
    head='simple',
    strides=(4,),
  )
  better_coseg(config)
  config.slots.tau = 0.03
  config.slots.weights.language = 0.3
  optimizer = config.optimizer
  optimizer.learning_rate = 3e-3
  optimizer.b2 = 0.95
  optimizer.end = 0.01
  optimizer.warmup = 30
  optimizer.groups = ((r'^clip/', None), (r'.*', 1.0))
  return config


def better_coseg(config: ml_collections.ConfigDict) -> None:
  """What helps CoSeg beyond the paper, of any size; docs/results.md has how much.

  The paper sorts slots by area and contrasts the labels of one image, for 369,700 steps
  of 32 at 1e-4 to 1e-6. Minutes get further with matched slots that know where patches
  are, all names as negatives, dice, texts whose masks are decoded beside the slots, a
  loss of where slots look and of what earlier blocks name, and steps by Muon.
  """
  config.coseg.language.image_position = 'sine'
  config.coseg.condition_norm = 'l2_scaled'
  config.coseg.condition_scale = 8.0
  config.coseg.pool = 0.5
  slots = config.slots
  slots.matching = 'hungarian'
  slots.language_loss = 'vocabulary'
  slots.flip = True
  slots.ignore_unlabeled = True
  slots.weights.update(bce=2.0, dice=1.0, text=1.0, attention=1.0, deep=0.3)
  config.optimizer.gradient_clip = 1.0
  config.optimizer.muon = (
    (r'/(q|k|v)/kernel$', 1),
    (r'^decoder/head/(up|out)/kernel$', 1),
    (r'/kernel$', -1),
  )
