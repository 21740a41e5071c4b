"""OVSeg's adaptation of CLIP at full size, shared by its configurations.

The numbers are the paper's (section 4.1), or with `:script` those of the released
scripts, which differ: other batches, and for prompts another learning rate.
"""

import dataclasses

import ml_collections

from configs import common, scenes
from ovs_jax.models import clip
from ovs_jax.models.ovseg import PUBLISHED

PROMPT_DEPTH = 3
SCRIPT = 'script'
_WEIGHTS = {
  'vitl14': ('l14', 'ViT-L/14'),
  'vitb16': ('b16', 'ViT-B/16'),
  'siglip2_l16': ('siglip2_l16_256', 'siglip2-large-patch16-256'),
  'convnext_l': (
    'convnext_large_d_320',
    'CLIP-convnext_large_d_320.laion2B-s29B-b131K-ft-soup',
  ),
}
FOLDERS = {
  'vitl14': 'clip_vit_l14',
  'vitb16': 'clip_vit_b16',
  'siglip2_l16': 'siglip2_l16_256',
  'convnext_l': 'convnext_large_d_320',
}
# Of configs/mine_coco_captions.py, by what follows its name: the cases of Table 2.
PAIRS = {
  '': 'runs/mine_coco_captions/mine/pairs',
  'classes': 'runs/mine_coco_captions_classes/pairs',
  'truth': 'runs/mine_coco_captions_truth/pairs',
  'five_captions': 'runs/mine_coco_captions_five_captions/mine/pairs',
}
_MADE_OF = {
  '': 'mask-noun pairs of COCO Captions',
  'classes': 'true masks of COCO-Stuff and their classes',
  'truth': 'true masks of COCO-Stuff and nouns of COCO Captions',
  'five_captions': 'mask-noun pairs of five captions an image',
}
METHODS = ('frozen', 'mpt', 'ft', 'mpt_ft')  # ways to adapt the CLIP of an OVSeg
_PROPOSERS = {'vitl14': 'proposer_swin_b', 'vitb16': 'proposer_r101c'}
_BACKBONES = {'vitl14': 'Swin', 'vitb16': 'ResNet'}


def weights(size: str) -> tuple[str, str, str]:
  """What says that a published CLIP is needed, and how to get it."""
  published = _WEIGHTS[size][1]
  return (
    'init.clip',
    f"OpenAI's CLIP {published}" if size.startswith('vit') else published,
    f'python -m ovs_jax.convert --download={published} '
    f'--output=checkpoints/{FOLDERS[size]}',
  )


def embed_dim(size: str) -> int:
  """Of the joint space of a CLIP."""
  return clip.PRESETS[_WEIGHTS[size][0]].embed_dim


def weights_at(size: str) -> str:
  """Where that is."""
  return f'checkpoints/{FOLDERS[size]}'


def proposer(size: str) -> tuple[str, str, str]:
  """What says that a proposer is needed, and how to get one."""
  name = _PROPOSERS[size]
  return (
    'init.proposer',
    "a proposer trained on COCO-Stuff, or OVSeg's own",
    f'launch/run.sh --config=configs/{name}.py\n'
    f'or: python -m ovs_jax.convert --input=OVSEG_FILE --output=runs/{name}',
  )


def mined(case: str = '') -> tuple[str, str, str]:
  """What says that the pairs of a case are needed, and how to make them."""
  command = 'launch/run.sh --config=configs/mine_coco_captions.py'
  return 'init.pairs', _MADE_OF[case], f'{command}:{case}'.rstrip(':')


def tuned(key: str, name: str) -> tuple[str, str, str]:
  """What says that the training configs/<name>.py is needed."""
  what = 'mask prompts' if key == 'init.prompts' else 'the fine-tuned tower'
  return key, what, f'launch/run.sh --config=configs/{name}.py'


def adaptation(name: str, size: str) -> ml_collections.ConfigDict:
  """Returns what prompt tuning and fine-tuning have in common."""
  config = common.base(name, 'train')
  config.recipe = 'clip_regions'
  preset = clip.PRESETS[_WEIGHTS[size][0]]
  # Deep towers keep one block's activations at a time.
  preset = dataclasses.replace(preset, dtype='bfloat16', remat=True)
  config.clip = ml_collections.ConfigDict(dataclasses.asdict(preset))
  config.init.clip = f'checkpoints/{FOLDERS[size]}'
  config.init.pairs = PAIRS['']
  config.needs = (weights(size), mined())
  config.train.update(steps=0, epochs=5.0, batch_size=256)
  config.train.text_length = preset.context_length
  config.train.log_every = 50
  config.train.save_every = 500
  config.train.disk_megabytes = 20_000
  config.adapt.crop_area = (0.9, 1.0)
  config.adapt.uint8 = True
  config.adapt.cache_text = True
  optimizer = config.optimizer
  optimizer.warmup = 100
  optimizer.b2 = 0.98
  optimizer.eps = 1e-6
  return config


def prompt_tuning(name: str, size: str, arg: str) -> ml_collections.ConfigDict:
  """Mask prompts alone (OVSeg, section 3.4)."""
  config = adaptation(name, size)
  config.clip.prompt_depth = PROMPT_DEPTH
  config.optimizer.learning_rate = 2e-2
  config.optimizer.groups = ((r'visual/mask_prompt$', 1.0), (r'.*', None))
  config.adapt.store = 'prompts'
  config.train.disk_megabytes = 200
  if arg == SCRIPT:
    # The script trains the temperature with them, at the same rate.
    config.optimizer.learning_rate = 5e-2
    config.optimizer.groups = (
      (r'visual/mask_prompt$', 1.0),
      (r'^logit_scale$', 1.0),
      (r'.*', None),
    )
    config.train.batch_size = 128
  return config


def fine_tuning(
  name: str, size: str, arg: str, *, case: str = ''
) -> ml_collections.ConfigDict:
  """The image tower and the temperature, without mask prompts (OVSeg, section 3.3).

  Args:
    name: of the run.
    size: of the CLIP.
    arg: '', 'script', or a case of Table 2, a key of `PAIRS`.
    case: likewise, where `arg` is not one.
  """
  config = adaptation(name, size)
  config.optimizer.learning_rate = 5e-6
  config.optimizer.weight_decay = 0.2
  config.optimizer.groups = ((r'^(visual/|logit_scale$)', 1.0), (r'.*', None))
  if arg == SCRIPT:
    config.train.batch_size = {'vitl14': 128, 'vitb16': 512}[size]
  if arg in PAIRS and arg:
    case = arg
    config.name = f'{name}_{case}'
  config.init.pairs = PAIRS[case]
  config.needs = (weights(size), mined(case))
  return config


def finish(
  config: ml_collections.ConfigDict, stage: str, arg: str
) -> ml_collections.ConfigDict:
  """Returns the training itself, or as `smoke` a pipeline on the embedded scenes.

  Raises:
    ValueError: `arg` is not '', 'script', a case or 'smoke'.
  """
  if arg != 'smoke':
    return common.finish(config, arg, applied=(SCRIPT, *PAIRS))
  return scenes.pipeline(
    config.name, stage, arg, own={stage: _with_tiny_clip(config, stage)}
  )


def _with_tiny_clip(
  config: ml_collections.ConfigDict, stage: str
) -> ml_collections.ConfigDict:
  """Lets a training adapt the embedded world's CLIP."""
  depth = config.clip.prompt_depth
  config.clip.update(dataclasses.asdict(clip.PRESETS['tiny']))
  config.clip.prompt_depth = depth
  config.needs = ()
  config.init.clip = '{run}/ft' if stage == 'mpt_ft' else '{run}/clip'
  pairs = 'classes' if stage == 'ft_classes' else 'mine'
  config.init.pairs = f'{{run}}/{pairs}/pairs'
  return config


def baseline(name: str, size: str, arg: str) -> ml_collections.ConfigDict:
  """The two-stage baseline: a proposer beside a CLIP that nobody adapted."""
  ovseg, evaluation = frozen(size), common.base('evaluate', 'evaluate')
  evaluation.dataset.name = 'ade20k_150'
  if arg == 'smoke':
    evaluation.eval.checkpoint = scenes.in_pipeline('ovseg_frozen/model')
    own = {'ovseg_frozen': of_scenes(ovseg), 'evaluate_frozen': evaluation}
    return scenes.pipeline(name, 'evaluate_frozen', arg, own=own)
  evaluation.eval.checkpoint = '{run}/ovseg/model'
  config = common.base(name, 'pipeline')
  config.stages = ml_collections.ConfigDict({'ovseg': ovseg, 'evaluate': evaluation})
  config.order = ('ovseg', 'evaluate')
  share(config, config.stages.evaluate, 'dataset')
  share(config, config.stages.ovseg, 'init')
  config.needs = (weights(size), proposer(size), ('dataset', 'ADE20K', ''))
  return common.finish(config, arg)


def share(
  config: ml_collections.ConfigDict, stage: ml_collections.ConfigDict, section: str
) -> None:
  """Lets a section of a pipeline decide that of its stage."""
  for key, value in stage[section].items():
    config[section][key] = value
    stage[section][key] = config[section].get_ref(key)


def of_scenes(ovseg: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Lets an OVSeg be of the parts that the embedded world trains."""
  ovseg.init.clip = scenes.in_pipeline('clip')
  ovseg.init.proposer = scenes.in_pipeline('proposer')
  return ovseg


def frozen(size: str) -> ml_collections.ConfigDict:
  """An OVSeg of a proposer and OpenAI's CLIP, without mask prompts."""
  config = common.base('ovseg', 'assemble')
  config.init.clip = f'checkpoints/{FOLDERS[size]}'
  config.init.proposer = f'runs/{_PROPOSERS[size]}'
  published = PUBLISHED[_BACKBONES[size]]
  config.region.threshold = published.threshold
  config.test.update(shortest=published.shortest, longest=published.longest)
  return config


def assembled(name: str, size: str, arg: str) -> ml_collections.ConfigDict:
  """An OVSeg of a proposer and a CLIP, adapted by one of `METHODS`.

  Args:
    name: of the run.
    size: of the CLIP.
    arg: '' for the paper's best, fine-tuning and then prompts; a method; or 'smoke'.
  """
  method = arg if arg in METHODS else 'mpt_ft'
  config = frozen(size)
  config.name = name if arg in ('', 'smoke') else f'{name}_{arg}'
  needs = [weights(size) if method in ('frozen', 'mpt') else None, proposer(size)]
  if method in ('ft', 'mpt_ft'):
    config.init.clip = f'runs/ft_{size}'
    needs[0] = tuned('init.clip', f'ft_{size}')
  if method in ('mpt', 'mpt_ft'):
    config.init.prompts = f'runs/{method}_{size}'
    needs.append(tuned('init.prompts', f'{method}_{size}'))
  config.needs = tuple(needs)
  if arg != 'smoke':
    return common.finish(config, arg, applied=METHODS)
  config.needs = ()
  of_scenes(config)
  config.init.clip = scenes.in_pipeline('ft')
  config.init.prompts = scenes.in_pipeline('mpt_ft')
  prompts = prompt_tuning(f'mpt_ft_{size}', size, '')  # alone, as at full size
  own = {'mpt_ft': _with_tiny_clip(prompts, 'mpt_ft'), 'ovseg_mpt_ft': config}
  return scenes.pipeline(name, 'ovseg_mpt_ft', arg, own=own)
