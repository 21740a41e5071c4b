"""The findings of both papers, derived again on the embedded world.

Trains one CLIP and one proposer, mines pairs in four ways, adapts CLIP in nine,
trains CoSeg in six, and evaluates all of it on pictures that nothing was chosen on.
`configs/replicate.py:three` does so with three seeds (config.seed and the next two).
The difficulty of the world was chosen on `clip`, settings on `train` and on scenes of
another seed; see docs/results.md.
Expected: see docs/results.md. Hardware: 2 CPU cores, 5 GB; 40 to 60 minutes a seed.
Command: launch/run.sh --config=configs/replicate.py
"""

import re

import ml_collections

from configs import common, scenes

_WEIGHTS = (0.2, 0.5, 0.8)
_CHOSEN = ('clip', 'ensemble_0.20')
_TUNING = 'train[:300]'
_COSEG_STEPS = 1000


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above; `smoke` takes only the stages of claim b's first half."""
  config = common.base('replicate', 'pipeline')
  seeds = (0, 1, 2) if arg == 'three' else (0,)
  config.name = 'replicate_three' if arg == 'three' else 'replicate'
  chosen = {'data': scenes.stages()['data']}
  for number in seeds:
    for name, stage in _stages(smoke=arg == 'smoke').items():
      chosen[f'seed_{number}/{name}'] = _placed(stage, number)
  chosen['report'] = _report(seeds)
  for key, stage in chosen.items():
    stage.name = key.split('/')[-1]
    number = int(key[5]) if key.startswith('seed_') else 0
    stage.seed = config.get_ref('seed') + number
    common.follow(stage, config)
  config.order = tuple(chosen)
  config.stages = ml_collections.ConfigDict(chosen)
  return common.finish(config, arg, applied=('three',))


def _stages(*, smoke: bool) -> dict[str, ml_collections.ConfigDict]:
  """The stages of one seed, in order."""
  known = scenes.stages()
  shared = ('clip', 'backbone', 'proposer', 'ovseg_frozen', 'mine')
  found = {name: known[name] for name in shared}
  clips = {'mpt': known['mpt']}
  if not smoke:
    found |= _pairs()
    clips |= {name: known[name] for name in ('ft', 'mpt_ft')} | _adaptations()
  found |= clips
  clips = {'frozen': found['clip']} | clips
  for name in clips:
    found[f'ovseg_{name}'] = _assembled(name)
    found[f'evaluate_{name}'] = _evaluated(name)
  if not smoke:
    found |= _variants()
    found['evaluate_mpt'].eval.distractors = (10, 100, 1000)
    for name in ('frozen', 'mpt'):
      found[f'evaluate_{name}'].eval.methods = _methods(_WEIGHTS)
    found |= _coseg()
  return found


def _pairs() -> dict[str, ml_collections.ConfigDict]:
  """The cases of Table 2 beside `mine`, which is the fourth."""
  one = scenes.mine('{run}/ovseg_frozen/model')
  one.mining.captions = 1
  truth = scenes.mine('{run}/clip')
  truth.mining.captions = 1
  truth.mining.masks = 'truth'
  return {'mine_one': one, 'mine_truth': truth, 'classes': scenes.true_classes()}


def _adaptations() -> dict[str, ml_collections.ConfigDict]:
  """Other data, other priors and other depths than those of `ft` and `mpt`."""
  clip, mined = '{run}/clip', '{run}/mine/pairs'
  found = {
    'ft_one': scenes.fine_tuning(clip, '{run}/mine_one/pairs'),
    'ft_truth': scenes.fine_tuning(clip, '{run}/mine_truth/pairs'),
    'ft_classes': scenes.fine_tuning(clip, '{run}/classes/pairs'),
    'ft_box': scenes.fine_tuning(clip, mined),
  }
  found['ft_box'].adapt.prior = 'box'
  for depth in (1, 4):
    found[f'mpt_{depth}'] = scenes.mask_prompt_tuning(clip, mined)
    found[f'mpt_{depth}'].clip.prompt_depth = depth
  return found


def _assembled(name: str) -> ml_collections.ConfigDict:
  """The proposer with the CLIP of a stage, and the mask prompts that it has."""
  depths = {'mpt': scenes.PROMPT_DEPTH, 'mpt_ft': scenes.PROMPT_DEPTH}
  depths |= {'mpt_1': 1, 'mpt_4': 4}
  clip = '{run}/clip' if name == 'frozen' else f'{{run}}/{name}'
  return scenes.assemble('{run}/proposer', clip, prompt_depth=depths.get(name, 0))


def _evaluated(name: str, split: str = 'val') -> ml_collections.ConfigDict:
  config = scenes.evaluate(f'{{run}}/ovseg_{name}/model')
  config.eval.split = split
  return config


def _methods(weights: tuple[float, ...]) -> tuple[ml_collections.ConfigDict, ...]:
  """Both classifiers alone and their ensembles; the frozen setting comes last."""
  last = scenes.CLIP_WEIGHT
  order = [w for w in weights if w != last] + [last]
  pairs = [('proposer', 0.0), ('clip', 0.0), *(('ensemble', w) for w in order)]
  return tuple(
    ml_collections.ConfigDict({'classifier': name, 'weight': weight})
    for name, weight in pairs
  )


def _variants() -> dict[str, ml_collections.ConfigDict]:
  """Crops as they are, other input sizes, other thresholds."""
  found: dict[str, ml_collections.ConfigDict] = {}

  def add(name: str, clip: str) -> ml_collections.ConfigDict:
    found[f'ovseg_{name}'] = _assembled(clip)
    found[f'evaluate_{name}'] = _evaluated(name)
    return found[f'ovseg_{name}']

  add('natural', 'frozen').region.fill = 'none'
  add('ft_box_natural', 'ft_box').region.fill = 'none'
  for side in (32, 64):
    add(f'clip_{side}', 'ft').test.clip_side = side
  for side in (96, 192):
    found[f'evaluate_side_{side}'] = _evaluated('ft')
    found[f'evaluate_side_{side}'].eval.proposer_side = side
  for percent in (40, 50, 70):
    add(str(percent), 'mpt').region.threshold = percent / 100
    found[f'tune_{percent}'] = _evaluated(str(percent), _TUNING)
  found['tune_mpt'] = _evaluated('mpt', _TUNING)
  found['tune_mpt'].eval.methods = _methods(_WEIGHTS)
  return found


def _coseg() -> dict[str, ml_collections.ConfigDict]:
  """CLIPSeg, CoSeg's models and their ablations, and the evaluation of all."""
  known, patches = scenes.stages(), '{run}/coseg_clip'
  models = {
    f'coseg_{name}': scenes.on_patches(
      scenes.coseg_training(patches, name.split('_')[0])
    )
    for name in ('prefix', 'cross', 'prefix_alone', 'prefix_area_sort')
    + ('prefix_no_dice', 'prefix_size')
  }
  for model in models.values():
    model.train.steps = _COSEG_STEPS
  models['coseg_prefix_alone'].coseg.language.context = False
  models['coseg_prefix_area_sort'].slots.update(matching='area', padded=0.1)
  models['coseg_prefix_no_dice'].slots.weights.dice = 0.0
  models['coseg_prefix_size'].coseg.size_embedding = 'area'
  models['coseg_prefix_size'].slots.weights.area = 0.1
  systems = {'evaluate_coseg': ('prefix', 'cross')}
  others = [name.removeprefix('coseg_') for name in models]
  systems['evaluate_ablations'] = tuple(others[2:])
  evaluations = {stage: _systems(names) for stage, names in systems.items()}
  evaluations['evaluate_coseg'].systems.distractors = (10, 100, 1000)
  evaluations['evaluate_ablations'].systems.clipseg = ''
  evaluations['evaluate_ablations'].systems.label_clip = ''
  shared = {name: known[name] for name in ('coseg_clip', 'clipseg')}
  return shared | models | evaluations


def _systems(names: tuple[str, ...]) -> ml_collections.ConfigDict:
  config = scenes.evaluate_coseg()
  config.systems.all_names = False
  config.systems.bounds = False
  config.systems.rules = ('A',)
  for name in config.systems.coseg:
    config.systems.coseg[name] = f'{{run}}/coseg_{name}' if name in names else ''
  return config


def _report(seeds: tuple[int, ...]) -> ml_collections.ConfigDict:
  config = common.base('report', 'replicate')
  config.report.run = '{run}'
  config.report.seeds = tuple(f'seed_{number}' for number in seeds)
  return config


def _placed(
  config: ml_collections.ConfigDict, number: int
) -> ml_collections.ConfigDict:
  """Lets a stage read what its own seed made."""
  for key, value in config.items():
    if isinstance(value, ml_collections.ConfigDict):
      _placed(value, number)
    elif isinstance(value, str):
      # Some keys share one value, which must not be changed twice.
      config[key] = re.sub(r'\{run\}(?!/seed_)', f'{{run}}/seed_{number}', value)
  return config
