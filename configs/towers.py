"""OVSegs whose CLIP is not OpenAI's, as pipelines; shared by their configurations."""

import dataclasses
from collections.abc import Mapping

import ml_collections

from configs import adaptation, coco_stuff, common, scenes
from ovs_jax.models import clip
from ovs_jax.models.ovseg import PUBLISHED

Config = ml_collections.ConfigDict
Trainings = Mapping[str, tuple[str, ...]]


def ovseg(size: str, arg: str, trainings: Trainings, tiny: str) -> Config:
  """Returns the pipeline of `configs/ovseg_<size>.py`.

  Args:
    size: of the CLIP, a key of `adaptation.FOLDERS`.
    arg: '', a way to adapt, or 'smoke'.
    trainings: before the OVSeg ('ft', 'mpt', 'mpt_ft'), by the way to adapt; the last
      way is that of '' and of 'smoke'.
    tiny: preset of a CLIP of the kind, for 'smoke'.
  """
  usual = list(trainings)[-1]
  method = arg if arg in trainings else usual
  stages = {name: _adaptation(size, name) for name in trainings[method]}
  stages['ovseg'] = _assembled(size, method)
  name = f'ovseg_{size}'
  if arg == 'smoke':
    return _smoke(name, method, stages, tiny)
  stages = {'proposer': coco_stuff.swin_b(f'proposer_{size}', size), **stages}
  config = common.base(name if arg in ('', usual) else f'{name}_{arg}', 'pipeline')
  needs = {}
  for key, stage in stages.items():
    if key != 'ovseg':
      stage.place = f'runs/{stage.name}'
    for wanted, what, command in stage.needs:
      needs.setdefault((what, command), (f'stages.{key}.{wanted}', what, command))
    stage.seed = config.get_ref('seed')
    for field in config.mesh:
      stage.mesh[field] = config.mesh.get_ref(field)
  config.needs = tuple(needs.values())
  config.stages = Config(stages)
  config.order = tuple(stages)
  return common.finish(config, arg, applied=tuple(trainings))


def _adaptation(size: str, name: str) -> Config:
  """Prompt tuning of the towers as they came or fine-tuned, or fine-tuning."""
  make = adaptation.fine_tuning if name == 'ft' else adaptation.prompt_tuning
  config = make(f'{name}_{size}', size, '')
  if name == 'mpt_ft':
    config.init.clip = f'runs/ft_{size}'
    config.needs = (adaptation.mined(),)
  return config


def _assembled(size: str, method: str) -> Config:
  """The OVSeg of what the other stages leave."""
  config = common.base('ovseg', 'assemble')
  tuned = method in ('ft', 'mpt_ft')
  config.init.clip = f'runs/ft_{size}' if tuned else adaptation.weights_at(size)
  config.init.prompts = f'runs/{method}_{size}' if 'mpt' in method else ''
  config.init.proposer = f'runs/proposer_{size}'
  published = PUBLISHED['Swin']
  config.region.threshold = published.threshold
  config.test.update(shortest=published.shortest, longest=published.longest)
  return config


def _smoke(name: str, method: str, stages: dict[str, Config], tiny: str) -> Config:
  """The same with a small CLIP, which is trained from scratch on drawn scenes."""
  sizes = dataclasses.asdict(clip.PRESETS[tiny])
  trained = {key: stage for key, stage in stages.items() if key != 'ovseg'}
  own = {'clip': scenes.clip_pretrain(), **trained}
  for stage in own.values():
    depth = stage.clip.prompt_depth
    stage.clip.update(sizes)
    stage.clip.prompt_depth = depth
    stage.needs = ()
  before = 'clip'
  for key, stage in trained.items():
    stage.init.clip = scenes.in_pipeline(before)
    stage.init.pairs = scenes.in_pipeline('mine/pairs')
    before = key
  last = adaptation.of_scenes(stages['ovseg'])
  prompts = before if 'mpt' in before else ''
  last.init.clip = scenes.in_pipeline('ft')
  last.init.prompts = scenes.in_pipeline(prompts) if prompts else ''
  own[f'ovseg_{method}'] = last
  needs = ('proposer', before)
  return scenes.pipeline(name, f'ovseg_{method}', 'smoke', own=own, needs=needs)
