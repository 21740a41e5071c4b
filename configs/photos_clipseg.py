"""The best CLIPSeg that can be made of your own photographs and a checkpoint.

`ovs-jax adapt` with a CLIPSeg looks at the photographs, chooses the settings, and
writes a file that calls `pipeline` with them, which this command runs again:

    ovs-jax train --config=RUN/adapt.py --workdir=ELSEWHERE

Stages: before (the checkpoint on val), chosen_before (on photos of train that choose),
phrases (the decoder goes on with the names and masks of the photographs), chosen (its
best step on the same photos), after (the result on val).
Expected: depends on the photographs. Hardware: any; as long as
`ovs-jax adapt --minutes` says.
Command: launch/run.sh --config=configs/photos_clipseg.py:smoke
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import ml_collections

from configs import common, scenes

BASE = 'checkpoints/clipseg_rd64_refined'


@dataclasses.dataclass(frozen=True)
class Phrases:
  """What is adapted, to what, and how; `ovs-jax adapt` fills it in.

  Attributes:
    data: a folder of photographs with masks.
    checkpoint: of a CLIPSeg.
    clip: sizes of its CLIP, as the checkpoint has them; None: the tiny one's.
    clipseg: of its decoder and its pictures, likewise.
    training: the class list that it was trained with.
    train: photos to train with.
    choose: photos of train to choose by; '': there are none.
    val: photos to report on; '': there are none.
    phrases: steps of the decoder.
    batch: photos in a batch.
    adapted: whether the result is what was trained, and not the checkpoint.
  """

  data: str = 'photos'
  checkpoint: str = BASE
  clip: Mapping[str, Any] | None = None
  clipseg: Mapping[str, Any] | None = None
  training: str = 'coco_stuff_171'
  train: str = 'train[20%:]'
  choose: str = 'train[:20%]'
  val: str = 'val'
  phrases: int = 300
  batch: int = 8
  adapted: bool = True


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above; `:smoke` adapts a tiny model to drawn scenes."""
  return pipeline('photos_clipseg', arg=arg)


def pipeline(
  name: str, *, arg: str = '', seed: int = 0, data_dir: str = '', **given: Any
) -> ml_collections.ConfigDict:
  """Returns the stages that make a CLIPSeg of photographs.

  Args:
    name: of the run.
    arg: see `common.finish`.
    seed: of what is drawn.
    data_dir: where data sets are prepared; '': where they are by default.
    **given: fields of `Phrases`.
  """
  photos = Phrases(**given)
  config = common.base(name, 'pipeline')
  config.seed = seed
  if data_dir:
    config.dataset.data_dir = data_dir
  before: dict[str, ml_collections.ConfigDict] = {}
  if arg == 'smoke':
    known = scenes.stages()
    tiny = known['clipseg_finetune']
    sizes = {'clip': tiny.clip, 'clipseg': tiny.clipseg}
    photos = dataclasses.replace(photos, checkpoint=tiny.init.clipseg, **sizes)
    before = {key: known[key] for key in ('data', 'clip', 'coseg_clip', 'clipseg')}
  else:
    config.dataset.update(name='folder', variant=photos.data)
  chosen = {**before, **_stages(photos, smoke=arg == 'smoke')}
  return common.in_order(config, chosen, arg)


def result(photos: Phrases) -> str:
  """Returns the directory of the model that comes out."""
  trained = f'{{run}}/phrases{"/best" if photos.choose else ""}'
  return trained if photos.adapted else photos.checkpoint


def _stages(photos: Phrases, *, smoke: bool) -> dict[str, ml_collections.ConfigDict]:
  where = 'scenes/smoke' if smoke else f'folder/{photos.data}'
  trained = result(dataclasses.replace(photos, adapted=True))
  stages = {}
  if photos.val:
    target = f'{where}:{photos.val}'
    stages['before'] = _evaluation(photos, photos.checkpoint, target)
  if photos.choose:
    target = f'{where}:{photos.choose}'
    stages['chosen_before'] = _evaluation(photos, photos.checkpoint, target)
  stages['phrases'] = _phrases(photos)
  if photos.choose:
    stages['chosen'] = _evaluation(photos, trained, f'{where}:{photos.choose}')
  if photos.val:
    target = f'{where}:{photos.val}'
    stages['after'] = _evaluation(photos, result(photos), target)
  return stages


def _evaluation(
  photos: Phrases, checkpoint: str, target: str
) -> ml_collections.ConfigDict:
  config = common.base('evaluation', 'benchmark')
  config.eval.checkpoint = checkpoint
  config.systems.update(labels=0, rules=('A',))
  chooses = target.endswith(f':{photos.choose}')
  config.suite.update(
    datasets=(target,),
    training='scenes' if target.startswith('scenes') else photos.training,
    distractors=(),
    single_concepts=False,
    bootstrap=0 if chooses else 1000,
    sheet=0 if chooses else 2,
  )
  return config


def _phrases(photos: Phrases) -> ml_collections.ConfigDict:
  """The decoder goes on with the names and masks of the photographs."""
  config = scenes.clipseg_finetuning(photos.checkpoint)
  for section, sizes in (('clip', photos.clip), ('clipseg', photos.clipseg)):
    if sizes is not None:
      config[section] = ml_collections.ConfigDict(dict(sizes))
  train = config.train
  train.update(steps=photos.phrases, batch_size=photos.batch, split=photos.train)
  train.update(log_every=10, save_every=max(photos.phrases // 4, 1), ema=0.98)
  if photos.choose:
    train.update(choose=photos.choose, choose_every=max(photos.phrases // 10, 1))
    train.patience = 5
  config.optimizer.warmup = min(20, photos.phrases // 5)
  return config
