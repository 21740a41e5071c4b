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
_WEIGHTS = {'vitl14': ('l14', 'ViT-L/14'), 'vitb16': ('b16', 'ViT-B/16')}
_FOLDERS = {'vitl14': 'clip_vit_l14', 'vitb16': 'clip_vit_b16'}
PAIRS = 'runs/mine_coco_captions/mine/pairs'
TRUE_PAIRS = 'runs/gt_classes_vitl14_pairs/pairs'
_PROPOSERS = {'vitl14': 'proposer_swin_b', 'vitb16': 'proposer_r101c'}
_BACKBONES = {'vitl14': 'Swin', 'vitb16': 'ResNet'}


def weights(size: str) -> tuple[str, str, str]:
  """What says that OpenAI's CLIP is needed, and how to get it."""
  published = _WEIGHTS[size][1]
  return (
    'init.clip',
    f"OpenAI's CLIP {published}",
    f'python -m ovs_jax.convert --download={published} '
    f'--output=checkpoints/{_FOLDERS[size]}',
  )


def proposer(size: str) -> tuple[str, str, str]:
  """What says that a proposer is needed, and how to get one."""
  name = _PROPOSERS[size]
  return (
    'init.proposer',
    "a proposer trained on COCO-Stuff, or OVSeg's own",
    f'launch/run.sh --config=configs/{name}.py\n'
    f'or: python -m ovs_jax.convert --input=OVSEG_FILE --output=runs/{name}',
  )


def mined() -> tuple[str, str, str]:
  """What says that mined pairs are needed, and how to make them."""
  return (
    'init.pairs',
    'mask-noun pairs of COCO Captions',
    'launch/run.sh --config=configs/mine_coco_captions.py',
  )


def adaptation(name: str, size: str) -> ml_collections.ConfigDict:
  """Returns what prompt tuning and fine-tuning have in common."""
  config = common.base(name, 'train')
  config.recipe = 'clip_regions'
  preset = clip.PRESETS[_WEIGHTS[size][0]]
  # Deep towers keep one block's activations at a time.
  preset = dataclasses.replace(preset, dtype='bfloat16', remat=True)
  config.clip = ml_collections.ConfigDict(dataclasses.asdict(preset))
  config.init.clip = f'checkpoints/{_FOLDERS[size]}'
  config.init.pairs = PAIRS
  config.needs = (weights(size), mined())
  config.train.update(steps=0, epochs=5.0, batch_size=256)
  config.train.text_length = 77
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


def fine_tuning(name: str, size: str, arg: str) -> ml_collections.ConfigDict:
  """The image tower and the temperature, without mask prompts (OVSeg, section 3.3)."""
  config = adaptation(name, size)
  config.optimizer.learning_rate = 5e-6
  config.optimizer.weight_decay = 0.2
  config.optimizer.groups = ((r'^(visual/|logit_scale$)', 1.0), (r'.*', None))
  if arg == SCRIPT:
    config.train.batch_size = {'vitl14': 128, 'vitb16': 512}[size]
  return config


def true_classes(name: str, size: str, arg: str) -> ml_collections.ConfigDict:
  """Fine-tuning on true masks and their class names (Table 2, case 1)."""
  config = fine_tuning(name, size, arg)
  config.init.pairs = TRUE_PAIRS
  command = (
    'launch/run.sh --config=configs/mine_coco_captions.py:classes '
    f'--workdir={TRUE_PAIRS.removesuffix("/pairs")}'
  )
  config.needs = (weights(size), ('init.pairs', 'true masks of COCO-Stuff', command))
  return config


def finish(
  config: ml_collections.ConfigDict, stage: str, arg: str
) -> ml_collections.ConfigDict:
  """Returns the training itself, or as `smoke` a pipeline on the embedded scenes.

  Raises:
    ValueError: `arg` is not '', 'script' or 'smoke'.
  """
  if arg != 'smoke':
    return common.finish(config, '' if arg == SCRIPT else arg)
  depth = config.clip.prompt_depth
  config.clip.update(dataclasses.asdict(clip.PRESETS['tiny']))
  config.clip.prompt_depth = depth
  config.needs = ()
  config.init.clip = '{run}/ft' if stage == 'mpt_ft' else '{run}/clip'
  pairs = 'classes' if stage == 'ft_classes' else 'mine'
  config.init.pairs = f'{{run}}/{pairs}/pairs'
  return scenes.pipeline(config.name, stage, arg, own={stage: config})


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
  config.init.clip = f'checkpoints/{_FOLDERS[size]}'
  config.init.proposer = f'runs/{_PROPOSERS[size]}'
  published = PUBLISHED[_BACKBONES[size]]
  config.region.threshold = published.threshold
  config.test.update(shortest=published.shortest, longest=published.longest)
  return config
