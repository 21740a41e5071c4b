"""Recipes of the embedded world, shared by the configurations that use it.

The numbers were chosen on the splits `clip` and `train`; `val` is only ever reported.
"""

import ml_collections

from configs import common


def clip_pretrain() -> ml_collections.ConfigDict:
  """A tiny CLIP from scratch on captioned close-ups."""
  config = common.base('clip_scenes', 'train')
  config.recipe = 'clip_pretrain'
  config.train.split = 'clip'
  config.train.steps = 2000
  config.train.log_every = 50
  config.train.save_every = 500
  optimizer = config.optimizer
  optimizer.learning_rate = 2e-3
  optimizer.warmup = 60
  optimizer.end = 0.02
  optimizer.b2 = 0.98
  optimizer.eps = 1e-6
  optimizer.weight_decay = 0.05
  optimizer.gradient_clip = 1.0
  return config


def proposer(clip: str) -> ml_collections.ConfigDict:
  """A tiny MaskFormer on the masks of the seen classes."""
  config = common.base('proposer_scenes', 'train')
  config.recipe = 'proposer'
  config.init.clip = clip
  config.train.steps = 1000
  config.train.batch_size = 16
  optimizer = config.optimizer
  optimizer.schedule = 'warmup_poly'
  optimizer.learning_rate = 1e-3
  optimizer.warmup = 50
  optimizer.weight_decay = 1e-4
  optimizer.gradient_clip = 1.0
  return config


def assemble(proposer: str, clip: str, *, prompt_depth: int) -> ml_collections.ConfigDict:
  """An OVSeg for 128x128 scenes out of its two parts."""
  config = common.base('ovseg_scenes', 'assemble')
  config.init.proposer = proposer
  config.init.clip = clip
  config.test.prompt_depth = prompt_depth
  config.test.shortest = 128
  config.test.longest = 512
  return config


def mine(checkpoint: str) -> ml_collections.ConfigDict:
  """Pairs of masks and nouns from the captions of the training scenes."""
  config = common.base('mine_scenes', 'mine')
  config.mining.checkpoint = checkpoint
  config.mining.captions = 5
  config.mining.adjectives = 'colour'
  config.mining.min_area = 40
  return config


def mask_prompt_tuning(clip: str, pairs: str) -> ml_collections.ConfigDict:
  """Mask prompts of depth 3; everything else frozen."""
  config = common.base('mpt_scenes', 'train')
  config.recipe = 'clip_regions'
  config.clip.prompt_depth = 3
  config.init.clip = clip
  config.init.pairs = pairs
  config.train.steps = 300
  config.train.merge_duplicates = True
  optimizer = config.optimizer
  optimizer.learning_rate = 1e-2
  optimizer.warmup = 30
  optimizer.b2 = 0.98
  optimizer.eps = 1e-6
  optimizer.groups = ((r'visual/mask_prompt$', 1.0), (r'.*', None))
  return config


def evaluate(checkpoint: str) -> ml_collections.ConfigDict:
  """All classifiers and oracles on the scenes that nothing was chosen on."""
  config = common.base('evaluate_scenes', 'evaluate')
  config.eval.checkpoint = checkpoint
  return config


def report(run: str) -> ml_collections.ConfigDict:
  """Tables and pictures of a pipeline that evaluated both CLIPs."""
  config = common.base('report_scenes', 'report')
  config.report.run = run
  config.report.frozen = f'{run}/evaluate_frozen'
  config.report.adapted = f'{run}/evaluate_mpt'
  return config
