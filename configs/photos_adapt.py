"""The best OVSeg that can be made of your own photographs and a checkpoint.

`ovs-jax adapt` looks at the photographs, chooses the settings, and writes a file that
calls `pipeline` with them, which this command runs again:

    ovs-jax train --config=RUN/adapt.py --workdir=ELSEWHERE

Stages: before (the checkpoint on val), pairs and labelled (crops of true masks, to
train with and to choose by), masks (the proposer), prompts (mask prompts), candidate
and chosen (weights of CLIP, tried on photos of train), ovseg (the result), after.
Expected: depends on the photographs; docs/your_own_data.md has an example.
Hardware: any; as long as `ovs-jax adapt --minutes` says.
Command: launch/run.sh --config=configs/photos_adapt.py:smoke
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import ml_collections

from configs import common, scenes

BASE = 'runs/quickstart/ovseg_mpt/model'
WEIGHTS = (0.1, 0.2, 0.35, 0.5, 0.7)  # shares of CLIP that are tried
_MANY_QUERIES = 50  # from which on a proposer is one of the paper's
_SMALL = 32  # pixels of a mask in photos that are worth a crop


@dataclasses.dataclass(frozen=True)
class Photos:
  """What is adapted, to what, and how; `ovs-jax adapt` fills it in.

  Attributes:
    data: a folder of photographs.
    checkpoint: of an OVSeg.
    proposer: sizes of its proposer, as the checkpoint has them; None: the tiny one's.
    clip: of its CLIP, likewise.
    region: of its crops, likewise; None: the defaults.
    templates: of its names.
    training: the class list that it was trained with.
    shortest: side of photos for the networks.
    longest: and what the other one is at most.
    train: photos to train with.
    choose: photos of train to choose by; '': there are none.
    val: photos to report on; '': there are none.
    labelled: whether crops of `choose` have two classes or more.
    masks: steps of the proposer; 0: it stays as it is.
    prompts: steps of the mask prompts; 0: they stay as they are.
    batch: photos in a batch.
    crops: in a batch.
    mined: whether crops come from captions and proposals, for want of masks.
    targets: classes of a photo at most.
    adapted: whether the result has what was trained, and not the checkpoint's parts.
    own: shortest and longest side that the checkpoint has; (0, 0): as above.
    weight: share of CLIP in the result.
    classifier: of the result.
  """

  data: str = 'photos'
  checkpoint: str = BASE
  proposer: Mapping[str, Any] | None = None
  clip: Mapping[str, Any] | None = None
  region: Mapping[str, Any] | None = None
  templates: str = 'vild'
  training: str = 'coco_stuff_171'
  shortest: int = 192
  longest: int = 768
  train: str = 'train[20%:]'
  choose: str = 'train[:20%]'
  val: str = 'val'
  labelled: bool = True
  masks: int = 300
  prompts: int = 100
  batch: int = 8
  crops: int = 32
  mined: bool = False
  targets: int = 12
  adapted: bool = True
  own: tuple[int, int] = (0, 0)
  weight: float = scenes.CLIP_WEIGHT
  classifier: str = 'ensemble'


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above; `:smoke` adapts a tiny model to drawn scenes."""
  return pipeline('photos_adapt', arg=arg)


def pipeline(
  name: str, *, arg: str = '', seed: int = 0, data_dir: str = '', **given: Any
) -> ml_collections.ConfigDict:
  """Returns the stages that make an OVSeg of photographs.

  Args:
    name: of the run.
    arg: see `common.finish`.
    seed: of what is drawn.
    data_dir: where data sets are prepared; '': where they are by default.
    **given: fields of `Photos`.
  """
  photos = Photos(**given)
  config = common.base(name, 'pipeline')
  config.seed = seed
  if data_dir:
    config.dataset.data_dir = data_dir
  before: dict[str, ml_collections.ConfigDict] = {}
  if arg == 'smoke':
    at = scenes.in_pipeline
    photos = dataclasses.replace(photos, checkpoint=at('ovseg_frozen/model'), batch=4)
    wanted = ('data', 'clip', 'backbone', 'proposer', 'ovseg_frozen')
    before = {key: scenes.stages()[key] for key in wanted}
  else:
    config.dataset.update(name='folder', variant=photos.data)
  chosen = {**before, **_stages(photos, smoke=arg == 'smoke')}
  return common.in_order(config, chosen, arg)


def _stages(photos: Photos, *, smoke: bool) -> dict[str, ml_collections.ConfigDict]:
  where = 'scenes/smoke' if smoke else f'folder/{photos.data}'
  proposer = clip = photos.checkpoint
  stages = {}
  if photos.val:
    stages['before'] = _evaluation(photos, photos.checkpoint, f'{where}:{photos.val}')
  if photos.choose:
    target = f'{where}:{photos.choose}'
    stages['chosen_before'] = _evaluation(
      photos, photos.checkpoint, target, search=True
    )
  if photos.masks:
    stages['masks'] = _masks(photos)
    proposer = f'{{run}}/masks{"/best" if photos.choose else ""}'
  if photos.prompts:
    stages['pairs'] = _pairs(photos, photos.train)
    if photos.labelled:
      stages['labelled'] = _pairs(photos, photos.choose)
    stages['prompts'] = _prompts(photos)
    clip = f'{{run}}/prompts{"/best" if photos.labelled else ""}'
  if photos.choose:
    stages['candidate'] = _ovseg(photos, proposer, clip)
    stages['chosen'] = _evaluation(
      photos, '{run}/candidate/model', f'{where}:{photos.choose}', search=True
    )
  if not photos.adapted:
    proposer = clip = photos.checkpoint
    if any(photos.own):
      shortest, longest = photos.own
      photos = dataclasses.replace(photos, shortest=shortest, longest=longest)
  stages['ovseg'] = _ovseg(photos, proposer, clip)
  stages['ovseg'].test.update(weight=photos.weight, classifier=photos.classifier)
  if photos.val:
    result = '{run}/ovseg/model'
    stages['after'] = _evaluation(photos, result, f'{where}:{photos.val}')
  return stages


def _evaluation(
  photos: Photos, checkpoint: str, target: str, *, search: bool = False
) -> ml_collections.ConfigDict:
  config = common.base('evaluation', 'benchmark')
  config.eval.checkpoint = checkpoint
  config.eval.methods = tuple(
    ml_collections.ConfigDict({'classifier': name, 'weight': 0.0})
    for name in ('proposer', 'clip')
  )
  config.suite.update(
    datasets=(target,),
    training='scenes' if target.startswith('scenes') else photos.training,
    distractors=(),
    single_concepts=False,
    search=WEIGHTS if search else (),
    i_know=search and target.startswith('scenes'),
    bootstrap=0 if search else 1000,
    sheet=0 if search else 2,
  )
  return config


def _masks(photos: Photos) -> ml_collections.ConfigDict:
  """The proposer goes on with the masks of the photographs."""
  config = common.base('masks', 'train')
  config.recipe = 'proposer'
  config.init.clip = config.init.proposer = photos.checkpoint
  _set_sizes(config, photos)
  config.text.templates = photos.templates
  small = config.proposer.num_queries < _MANY_QUERIES
  side = max(photos.shortest // 32 * 32, 32)
  train = config.train
  train.update(steps=photos.masks, batch_size=photos.batch, split=photos.train)
  train.update(classes='all', colour=True, max_targets=photos.targets)
  train.update(shortest=_jitter(side), longest=photos.longest * 3 // 2, crop=side)
  train.update(log_every=10, save_every=max(photos.masks // 4, 1), ema=0.98)
  if photos.choose:
    train.update(choose=photos.choose, choose_every=max(photos.masks // 10, 1))
    train.patience = 5
  config.test.update(shortest=photos.shortest, longest=photos.longest)
  optimizer = config.optimizer
  optimizer.schedule = 'warmup_poly'
  optimizer.warmup = min(20, photos.masks // 5)
  optimizer.learning_rate = 1e-3 if small else 1e-4
  optimizer.weight_decay = 1e-4 if small else 0.01
  optimizer.gradient_clip = 1.0
  if small:  # as in scenes.proposer_training: few steps
    train.set_weights.update(ce=3.0, dice=5.0)
    train.update(pilot_weight=3.0, attention_weight=1.0, mask_stride=2)
  return config


def _jitter(side: int) -> tuple[int, ...]:
  """Sides from 0.8 to 1.6 times that of an evaluation."""
  return tuple(round(side * scale / 10) for scale in range(8, 17, 2))


def _set_sizes(config: ml_collections.ConfigDict, photos: Photos) -> None:
  for section, sizes in (('proposer', photos.proposer), ('clip', photos.clip)):
    if sizes is not None:
      config[section] = ml_collections.ConfigDict(dict(sizes))
  if photos.region is not None:
    config.region.update({k: v for k, v in photos.region.items() if k != 'size'})


def _pairs(photos: Photos, split: str) -> ml_collections.ConfigDict:
  """Crops with names: of true masks, or of captions and proposals."""
  config = common.base('pairs', 'mine')
  config.mining.update(split=split, min_area=_SMALL, crop_shortest=336)
  if photos.mined:
    config.mining.update(checkpoint=photos.checkpoint, shortest=photos.shortest)
    config.mining.update(longest=photos.longest, captions=5)
  else:
    config.mining.update(masks='truth', nouns='classes')
  _set_sizes(config, photos)
  return config


def _prompts(photos: Photos) -> ml_collections.ConfigDict:
  """Mask prompts, new or those of the checkpoint, go on with these crops."""
  config = common.base('prompts', 'train')
  config.recipe = 'clip_regions'
  config.init.clip = photos.checkpoint
  config.init.pairs = '{run}/pairs/pairs'
  _set_sizes(config, photos)
  config.clip.prompt_depth = config.clip.prompt_depth or scenes.PROMPT_DEPTH
  train = config.train
  train.update(steps=photos.prompts, batch_size=photos.crops, log_every=10)
  train.save_every = max(photos.prompts // 4, 1)
  config.adapt.update(cache_text=True, balance=0.5, duplicates='ignored')
  if photos.labelled:
    config.init.labelled = '{run}/labelled/pairs'
    config.adapt.evaluate_every = max(photos.prompts // 10, 1)
    train.patience = 5
  optimizer = config.optimizer
  optimizer.learning_rate = 1e-2
  optimizer.update(warmup=min(20, photos.prompts // 5), b2=0.98, eps=1e-6)
  optimizer.groups = ((r'visual/mask_prompt$', 1.0), (r'.*', None))
  return config


def _ovseg(photos: Photos, proposer: str, clip: str) -> ml_collections.ConfigDict:
  config = common.base('ovseg', 'assemble')
  config.init.update(proposer=proposer, clip=clip)
  _set_sizes(config, photos)
  config.text.templates = photos.templates
  config.test.update(shortest=photos.shortest, longest=photos.longest)
  config.test.update(weight=scenes.CLIP_WEIGHT)
  return config
