"""Configurations of the scenes recipes with models that compile in seconds."""

import ml_collections

from configs import scenes

NOUNS = ('red ball', 'grass', 'blue box', 'sky')
CLIP_SIZES = {
  'embed_dim': 16,
  'image_size': 16,
  'patch': 8,
  'vision_width': 16,
  'vision_layers': 2,
  'vision_heads': 2,
  'text_width': 16,
  'text_layers': 1,
  'text_heads': 2,
  'unroll': 1,
}
PROPOSER_SIZES = {
  'pixel_width': 8,
  'mask_dim': 8,
  'groups': 4,
  'num_queries': 14,
  'width': 16,
  'heads': 2,
  'feed_forward': 16,
  'layers': 1,
  'embed_hidden': 16,
  'embed_dim': 16,
}


def shrink(
  config: ml_collections.ConfigDict, data_dir: str, *, steps: int = 4
) -> ml_collections.ConfigDict:
  """Changes a configuration to a tiny model, data and length."""
  config.dataset.update(variant='smoke', data_dir=data_dir)
  config.clip.update(CLIP_SIZES)
  config.clip.prompt_depth = min(config.clip.prompt_depth, 2)
  config.test.prompt_depth = min(config.test.prompt_depth, 2)
  config.test.chunk = 8
  config.proposer.update(PROPOSER_SIZES)
  config.train.update(
    steps=steps, epochs=0.0, batch_size=8, log_every=1, save_every=2, text_length=16
  )
  config.optimizer.warmup = 1
  return config


def pretraining(data_dir: str) -> ml_collections.ConfigDict:
  """CLIP from scratch."""
  return shrink(scenes.clip_pretrain(), data_dir)


def proposer(data_dir: str, clip: str) -> ml_collections.ConfigDict:
  """The proposer on top of a CLIP."""
  return shrink(scenes.proposer_training(clip), data_dir)


def prompt_tuning(data_dir: str, clip: str, pairs: str) -> ml_collections.ConfigDict:
  """Mask prompt tuning, in two layers."""
  return shrink(scenes.mask_prompt_tuning(clip, pairs), data_dir)


def fine_tuning(data_dir: str, clip: str, pairs: str) -> ml_collections.ConfigDict:
  """Fine-tuning of the image tower."""
  return shrink(scenes.fine_tuning(clip, pairs), data_dir)


def of_recipe(
  name: str, data_dir: str, clip: str, pairs: str, *, heads: int
) -> ml_collections.ConfigDict:
  """Any recipe, by its name in `RECIPES`, with heads that can be split."""
  if name == 'clip_pretrain':
    config = pretraining(data_dir)
  elif name == 'proposer':
    config = proposer(data_dir, clip)
    config.proposer.heads = heads
  elif name == 'clip_regions':
    config = fine_tuning(data_dir, clip, pairs)
  elif name == 'coseg':
    config = shrink(scenes.coseg_training(clip, 'prefix'), data_dir)
    config.coseg.language.update(num_slots=4, encoder_layers=1, heads=heads, mlp=16)
    config.coseg.decoder.update(
      reduce_dim=16, heads=heads, mlp=16, extract=(0, 1), film_steps=(0,)
    )
    config.coseg.image_size = 16
  else:
    config = shrink(scenes.clipseg_training(clip), data_dir)
    config.clipseg.decoder.update(reduce_dim=16, heads=heads, mlp=16, extract=(0, 1))
    config.clipseg.decoder.film_steps = (0,)
    config.clipseg.image_size = 16
  config.clip.update(vision_heads=heads, text_heads=heads)
  return config
