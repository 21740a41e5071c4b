"""OVSeg with SigLIP 2 L/16 and Swin-B: the paper's recipe with another pair of towers.

A pipeline: a proposer that is trained with SigLIP 2's names, then what adapts the
towers, then the OVSeg. After a colon comes how they are adapted: `:mpt_ft`
(fine-tuning, then mask prompts; the same without a colon), `:ft`, `:mpt` or `:frozen`.
Each training has a directory of its own in runs/, so that what was done for one counts
for all. The pairs are those that OpenAI's CLIP mines (configs/mine_coco_captions.py).
Expected: not in the paper; not measured.
Hardware: 8 GPUs of 32 GB for the proposer, one of 80 GB or more for the rest; time not
measured. As smoke: 2 CPU cores.
Command: launch/run.sh --config=configs/ovseg_siglip2_l16.py
"""

import dataclasses

import ml_collections

from configs import adaptation, coco_stuff, common, scenes
from ovs_jax.models import clip
from ovs_jax.models.ovseg import PUBLISHED

Config = ml_collections.ConfigDict
_SIZE = 'siglip2_l16'
# Trainings before the OVSeg, by the way to adapt.
_TRAININGS = {'frozen': (), 'mpt': ('mpt',), 'ft': ('ft',), 'mpt_ft': ('ft', 'mpt_ft')}


def get_config(arg: str = '') -> Config:
  """See above."""
  method = arg if arg in _TRAININGS else 'mpt_ft'
  stages = {name: _adaptation(name) for name in _TRAININGS[method]}
  stages['ovseg'] = _assembled(method)
  if arg == 'smoke':
    return _smoke(stages)
  stages = {'proposer': coco_stuff.swin_b(f'proposer_{_SIZE}', _SIZE), **stages}
  name = f'ovseg_{_SIZE}'
  config = common.base(name if arg in ('', 'mpt_ft') else f'{name}_{arg}', 'pipeline')
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
  return common.finish(config, arg, applied=tuple(_TRAININGS))


def _adaptation(name: str) -> Config:
  """Prompt tuning of the towers as they came or fine-tuned, or fine-tuning."""
  make = adaptation.fine_tuning if name == 'ft' else adaptation.prompt_tuning
  config = make(f'{name}_{_SIZE}', _SIZE, '')
  if name == 'mpt_ft':
    config.init.clip = f'runs/ft_{_SIZE}'
    config.needs = (adaptation.mined(),)
  return config


def _assembled(method: str) -> Config:
  """The OVSeg of what the other stages leave."""
  config = common.base('ovseg', 'assemble')
  tuned = method in ('ft', 'mpt_ft')
  config.init.clip = f'runs/ft_{_SIZE}' if tuned else adaptation.weights_at(_SIZE)
  config.init.prompts = f'runs/{method}_{_SIZE}' if 'mpt' in method else ''
  config.init.proposer = f'runs/proposer_{_SIZE}'
  published = PUBLISHED['Swin']
  config.region.threshold = published.threshold
  config.test.update(shortest=published.shortest, longest=published.longest)
  return config


def _smoke(stages: dict[str, Config]) -> Config:
  """The same with a small SigLIP, which is trained from scratch on drawn scenes."""
  tiny = dataclasses.asdict(clip.PRESETS['tiny_siglip'])
  pretraining = scenes.clip_pretrain()
  for stage in (pretraining, stages['ft'], stages['mpt_ft']):
    depth = stage.clip.prompt_depth
    stage.clip.update(tiny)
    stage.clip.prompt_depth = depth
    stage.needs = ()
  for name, before in (('ft', 'clip'), ('mpt_ft', 'ft')):
    stages[name].init.clip = scenes.in_pipeline(before)
    stages[name].init.pairs = scenes.in_pipeline('mine/pairs')
  ovseg = adaptation.of_scenes(stages['ovseg'])
  ovseg.init.clip = scenes.in_pipeline('ft')
  ovseg.init.prompts = scenes.in_pipeline('mpt_ft')
  own = {'clip': pretraining, 'ft': stages['ft'], 'mpt_ft': stages['mpt_ft']}
  name = f'ovseg_{_SIZE}'
  return scenes.pipeline(
    name, 'ovseg_mpt_ft', 'smoke', own=own | {'ovseg_mpt_ft': ovseg}
  )
