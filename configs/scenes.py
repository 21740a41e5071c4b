"""Recipes of the embedded world: `--config=configs/scenes.py:STAGE` runs one of them.

Stages: clip (from scratch), backbone and proposer, mine, mpt (mask prompt tuning), ft
(fine-tuning), mpt_ft, evaluate; coseg_clip (a CLIP whose patches mean something, which
the next three read), clipseg, coseg_prefix, coseg_cross, evaluate_coseg. A stage reads
what the quickstart left in runs/quickstart, or, of mpt_ft and of the last ones,
runs/STAGE_scenes; `:STAGE:smoke` makes all of its inputs at the smallest size.
The numbers were chosen on `clip`, `train` and scenes of another seed; docs/results.md
says what was read on `val` before they were final.
Expected: see "Results" in README.md. Hardware: 2 CPU cores; about 1 to 4 minutes.
Command: launch/run.sh --config=configs/scenes.py:mpt
"""

from collections.abc import Callable, Mapping

import ml_collections

from configs import common, scenes_coseg
from ovs_jax.core.lookup import lookup

At = Callable[[str], str]  # from a stage to the directory of its results

coseg_training = scenes_coseg.coseg_training
better_coseg = scenes_coseg.better_coseg
on_patches = scenes_coseg.on_patches
patch_training = scenes_coseg.patch_training

PROMPT_DEPTH = 3
# The masks of a proposer that trained for minutes are blurred: where it is unsure
# belongs to no crop.
_THRESHOLD = 0.6
# The paper has 0.7. On scenes of another seed 0.2 is best, with mask prompts and
# without.
CLIP_WEIGHT = 0.2
# The parts of a proposer that name what is under a mask: all but queries and masks.
_NAMING = (
  r'^(backbone|query_decoder/(input_proj|layer_\d|norm)|class_embed|no_object)(/|$)'
)
# What must have run before a stage.
_NEEDS = {
  'data': (),
  'clip': ('data',),
  'backbone': ('clip',),
  'proposer': ('backbone',),
  'coseg_clip': ('clip',),
  'clipseg': ('coseg_clip',),
  'clipseg_finetune': ('clipseg',),
  'coseg_prefix': ('coseg_clip',),
  'coseg_cross': ('coseg_clip',),
  'no_training': ('clipseg',),
  'evaluate_coseg': ('clipseg', 'coseg_prefix'),  # one trained model is enough
  'ovseg_frozen': ('proposer',),
  'mine': ('ovseg_frozen',),
  'mpt': ('mine',),
  'ft': ('mine',),
  'mpt_ft': ('ft',),
  'classes': ('data',),
  'ft_classes': ('clip', 'classes'),
  'ovseg_mpt': ('mpt',),
  'ovseg_mpt_ft': ('proposer', 'mpt_ft'),
  'evaluate_frozen': ('ovseg_frozen',),
  'evaluate_mpt': ('ovseg_mpt',),
  'report': ('evaluate_frozen', 'evaluate_mpt'),
  'eval_ovseg': ('ovseg_frozen',),
}

# What can be run alone, and the stage of a pipeline that it is.
ALONE = {
  name: name
  for name in ('clip', 'backbone', 'proposer', 'mine', 'mpt', 'ft', 'mpt_ft')
  + ('coseg_clip', 'clipseg', 'coseg_prefix', 'coseg_cross', 'evaluate_coseg')
} | {'evaluate': 'evaluate_mpt'}
# No part of the quickstart: their own runs hold them.
_ELSEWHERE = ('ft', 'coseg_clip', 'clipseg', 'coseg_prefix', 'coseg_cross')


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """Returns a stage of `ALONE`; as `STAGE:smoke` the tiny pipeline that ends with it.

  Raises:
    ValueError: there is no such stage.
  """
  name, _, rest = arg.partition(':')
  stage = lookup(ALONE, name, 'stage')
  if rest == 'smoke':
    config = stages()[stage]
    if stage == 'evaluate_coseg':
      config.systems.coseg.cross = ''  # one trained model is enough
    return pipeline(f'{name}_scenes', stage, rest, own={stage: config})
  config = stages(_alone)[stage]
  config.name = f'{name}_scenes'
  return common.finish(config, rest)


def in_pipeline(stage: str) -> str:
  """Returns where a stage's results are; `{run}` is the directory of the run."""
  return f'{{run}}/{stage}'


def _alone(stage: str) -> str:
  if stage.split('/')[0] in _ELSEWHERE:
    return f'runs/{stage}_scenes'
  return f'runs/quickstart/{stage}'


def stages(at: At = in_pipeline) -> dict[str, ml_collections.ConfigDict]:
  """Returns every stage by name; `at` says where those before it left their results."""
  clip, proposer, pairs = at('clip'), at('proposer'), at('mine/pairs')
  patches = at('coseg_clip')
  return {
    'data': common.base('scenes', 'prepare'),
    'clip': clip_pretrain(),
    'backbone': backbone_training(clip),
    'proposer': proposer_training(clip, at('backbone')),
    'coseg_clip': patch_training(clip_pretrain(), clip),
    'clipseg': on_patches(clipseg_training(patches)),
    'clipseg_finetune': on_patches(clipseg_finetuning(at('clipseg'))),
    'coseg_prefix': on_patches(coseg_training(patches, 'prefix')),
    'coseg_cross': on_patches(coseg_training(patches, 'cross')),
    'no_training': evaluate_coseg(at, only_clipseg=True),
    'evaluate_coseg': evaluate_coseg(at),
    'ovseg_frozen': assemble(proposer, clip, prompt_depth=0),
    'mine': mine(at('ovseg_frozen/model')),
    'mpt': mask_prompt_tuning(clip, pairs),
    'ft': fine_tuning(clip, pairs),
    'mpt_ft': mask_prompt_tuning(at('ft'), pairs),
    'classes': true_classes(),
    'ft_classes': fine_tuning(clip, at('classes/pairs')),
    'ovseg_mpt': assemble(proposer, at('mpt'), prompt_depth=PROMPT_DEPTH),
    'ovseg_mpt_ft': assemble(proposer, at('mpt_ft'), prompt_depth=PROMPT_DEPTH),
    'evaluate_frozen': evaluate(at('ovseg_frozen/model')),
    'evaluate_mpt': evaluate(at('ovseg_mpt/model')),
    'report': report('{run}'),
    'eval_ovseg': benchmark(at('ovseg_mpt/model')),
  }


def pipeline(
  name: str,
  last: str,
  arg: str,
  *,
  own: Mapping[str, ml_collections.ConfigDict] | None = None,
  needs: tuple[str, ...] | None = None,
) -> ml_collections.ConfigDict:
  """Returns the pipeline that ends with the stage `last`, and what that needs.

  Args:
    name: of the pipeline.
    last: its last stage.
    arg: see `common.finish`.
    own: settings of stages, in place of those of this file or beside them.
    needs: what must have run before the last one, likewise.
  """
  config = common.base(name, 'pipeline')
  wanted: set[str] = set()
  queue = [last]
  while queue:
    need = queue.pop()
    wanted.add(need)
    queue += _NEEDS.get(need, ()) if needs is None or need != last else needs
  known = {**stages(), **(own or {})}
  chosen = {key: c for key, c in known.items() if key in wanted}
  return common.in_order(config, chosen, arg)


def clip_pretrain() -> ml_collections.ConfigDict:
  """A tiny CLIP from scratch on captioned close-ups."""
  config = common.base('clip_scenes', 'train')
  config.recipe = 'clip_pretrain'
  config.train.split = 'clip'
  config.train.steps = 1000
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


def backbone_training(clip: str) -> ml_collections.ConfigDict:
  """The proposer's backbone, from nothing: it names what is under the masks."""
  config = proposer_training(clip)
  config.name = 'backbone_scenes'
  config.train.steps = 1300
  config.train.save_every = 650
  config.train.set_weights = dict.fromkeys(config.train.set_weights, 0.0)
  config.optimizer.groups = ((_NAMING, 1.0), (r'.*', None))
  return config


def proposer_training(clip: str, backbone: str = '') -> ml_collections.ConfigDict:
  """A tiny MaskFormer on the masks of the seen classes.

  Args:
    clip: names the classes.
    backbone: a proposer whose backbone knows them (`backbone_training`) and stays as it
      is; without one the backbone starts from nothing, and trains.
  """
  config = common.base('proposer_scenes', 'train')
  config.recipe = 'proposer'
  config.init.clip = clip
  config.init.proposer = backbone
  # Many small batches: a query has to find things before it can name them.
  config.train.steps = 700
  config.train.batch_size = 8
  config.train.log_every = 50
  config.train.save_every = 500
  config.train.max_targets = 14  # three stuff regions and what is pasted
  config.train.paste_scenes = 2
  # Fewer steps than DETR's decoder likes: classes and masks get a larger say, queries
  # that are shown a target learn what to do with it, and the others where to look.
  config.train.set_weights.ce = 3.0
  config.train.set_weights.dice = 5.0
  config.train.pilot_weight = 3.0
  config.train.attention_weight = 1.0
  config.train.mask_stride = 2
  optimizer = config.optimizer
  optimizer.schedule = 'warmup_poly'
  optimizer.learning_rate = 3e-3
  optimizer.b2 = 0.95
  optimizer.warmup = 50
  optimizer.weight_decay = 1e-4
  # Twice as fast as Adam here: the steps are few, and the matrices small.
  optimizer.muon = ((r'/(q|k|v)/kernel$', 1), (r'/kernel$', -1))
  if backbone:
    optimizer.groups = ((r'^backbone/', None), (r'.*', 1.0))
  return config


def clipseg_training(clip: str) -> ml_collections.ConfigDict:
  """A small CLIPSeg on the phrases and masks of the seen classes."""
  config = common.base('clipseg_scenes', 'train')
  config.recipe = 'clipseg'
  config.init.clip = clip
  config.train.steps = 650
  config.train.batch_size = 16
  optimizer = config.optimizer
  optimizer.warmup = 0
  optimizer.end = 0.1
  optimizer.weight_decay = 0.01
  optimizer.groups = ((r'^clip/', None), (r'.*', 1.0))
  return config


def clipseg_finetuning(clipseg: str) -> ml_collections.ConfigDict:
  """The decoder of a CLIPSeg goes on with other data, with dice in its loss."""
  config = clipseg_training('')
  config.name = 'clipseg_finetune'
  config.init.clipseg = clipseg
  config.train.steps = 200
  config.optimizer.learning_rate = 1e-4
  config.phrases.weights.dice = 0.5
  return config


def evaluate_coseg(
  at: At = in_pipeline, *, only_clipseg: bool = False
) -> ml_collections.ConfigDict:
  """CoSeg without training, prefix and cross on the scenes of `val`."""
  config = common.base('evaluate_coseg_scenes', 'evaluate_systems')
  config.systems.clipseg = at('clipseg')
  # 6.2 classes in a picture, deviation 1.4: data.prepare --label_counts --split=val.
  config.systems.labels = 9
  config.systems.label_clip = at('clip')
  config.systems.side = 128
  if only_clipseg:
    config.systems.protocols = ('standard', 'paper')
    return config
  config.systems.all_names = True
  config.systems.coseg.prefix = at('coseg_prefix')
  config.systems.coseg.cross = at('coseg_cross')
  return config


def assemble(
  proposer: str, clip: str, *, prompt_depth: int
) -> ml_collections.ConfigDict:
  """An OVSeg for 128x128 scenes out of its two parts."""
  config = common.base('ovseg_scenes', 'assemble')
  config.init.proposer = proposer
  config.init.clip = clip
  config.region.threshold = _THRESHOLD
  config.test.prompt_depth = prompt_depth
  config.test.weight = CLIP_WEIGHT
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
  # A small proposer misses things; what then resembles a noun most does so little.
  config.mining.min_score = 0.6
  return config


def true_classes() -> ml_collections.ConfigDict:
  """Pairs of the true masks of the training scenes with their class names."""
  config = common.base('true_classes', 'mine')
  config.mining.masks = 'truth'
  config.mining.nouns = 'classes'
  config.mining.min_area = 40
  return config


def mask_prompt_tuning(clip: str, pairs: str) -> ml_collections.ConfigDict:
  """Mask prompts of depth 3; everything else frozen (OVSeg, section 3.4)."""
  config = _adaptation('mpt_scenes', clip, pairs)
  config.clip.prompt_depth = PROMPT_DEPTH
  config.optimizer.learning_rate = 1e-2
  config.optimizer.groups = ((r'visual/mask_prompt$', 1.0), (r'.*', None))
  return config


def fine_tuning(clip: str, pairs: str) -> ml_collections.ConfigDict:
  """The whole image tower, no mask prompts (OVSeg, section 3.3)."""
  config = _adaptation('ft_scenes', clip, pairs)
  config.optimizer.learning_rate = 5e-4
  config.optimizer.groups = ((r'^visual/', 1.0), (r'.*', None))
  return config


def _adaptation(name: str, clip: str, pairs: str) -> ml_collections.ConfigDict:
  config = common.base(name, 'train')
  config.recipe = 'clip_regions'
  config.init.clip = clip
  config.init.pairs = pairs
  config.train.steps = 300
  config.optimizer.warmup = 30
  config.optimizer.b2 = 0.98
  config.optimizer.eps = 1e-6
  return config


def evaluate(checkpoint: str) -> ml_collections.ConfigDict:
  """All classifiers and oracles on the scenes that nothing was chosen on."""
  config = common.base('evaluate_scenes', 'evaluate')
  config.eval.checkpoint = checkpoint
  config.eval.methods = tuple(
    ml_collections.ConfigDict({'classifier': name, 'weight': weight})
    for name, weight in (('proposer', 0.0), ('clip', 0.0), ('ensemble', CLIP_WEIGHT))
  )
  return config


def benchmark(checkpoint: str) -> ml_collections.ConfigDict:
  """The evaluation of the benchmarks, on scenes instead of them."""
  config = common.base('eval_ovseg', 'benchmark')
  config.eval.checkpoint = checkpoint
  config.suite.training = 'scenes'
  return config


def report(run: str) -> ml_collections.ConfigDict:
  """Tables and pictures of a pipeline that evaluated both CLIPs."""
  config = common.base('report_scenes', 'report')
  config.report.run = run
  config.report.method = f'ensemble_{CLIP_WEIGHT:.2f}'
  config.report.frozen = f'{run}/evaluate_frozen'
  config.report.adapted = f'{run}/evaluate_mpt'
  return config
