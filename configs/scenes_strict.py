"""The quickstart's threshold and lambda, chosen without a label of an unseen class.

Twice a half of the seen classes plays unseen: backbone, proposer, pairs and mask
prompts are made on four fifths of the training scenes without them, and every
threshold of masks and lambda is tried on the rest. `choose/choice.md` has the rule,
what it chose, and what that and the quickstart's own choice give on `val`. (The toy
CLIP has seen close-ups of all classes, as the real one has seen the web.)
Expected: "A strict protocol" in docs/results.md. Hardware: 2 CPU cores; 30 minutes.
Command: launch/run.sh --config=configs/scenes_strict.py
"""

import ml_collections

from configs import common, scenes

FOLDS = 2
FIT, REST = 'train[:80%]', 'train[80%:]'
WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
THRESHOLDS = (0.4, 0.5, 0.6, 0.7)
_USUAL = 0.6  # the threshold that pairs are cut with

Config = ml_collections.ConfigDict


def get_config(arg: str = '') -> Config:
  """Returns the pipeline."""
  at, own = scenes.in_pipeline, {}
  for fold in range(FOLDS):
    own |= _fold(fold)
  for threshold in THRESHOLDS:
    own[f'evaluate_{_name(threshold)}'] = _tried(at('ovseg_mpt/model'), threshold)
  choice = common.base('choose', 'choose')
  choice.choose.settings = tuple(
    (
      f'threshold {threshold}',
      tuple(at(f'evaluate_{_name(threshold)}_{i}') for i in range(FOLDS)),
      at(f'evaluate_{_name(threshold)}'),
    )
    for threshold in THRESHOLDS
  )
  choice.choose.usual = (f'threshold {_USUAL}', f'ensemble_{scenes.CLIP_WEIGHT:.2f}')
  needs = ('ovseg_mpt', *own)
  return scenes.pipeline(
    'scenes_strict', 'choose', arg, own={**own, 'choose': choice}, needs=needs
  )


def _fold(fold: int) -> dict[str, Config]:
  """The stages in which a part of the seen classes is unseen."""

  def at(stage: str) -> str:
    return scenes.in_pipeline(f'{stage}_{fold}')

  clip = scenes.in_pipeline('clip')
  stages = {
    'backbone': scenes.backbone_training(clip),
    'proposer': scenes.proposer_training(clip, at('backbone')),
    'frozen': scenes.assemble(at('proposer'), clip, prompt_depth=0),
    'mine': scenes.mine(f'{at("frozen")}/model'),
    'mpt': scenes.mask_prompt_tuning(clip, f'{at("mine")}/pairs'),
    'adapted': scenes.assemble(
      at('proposer'), at('mpt'), prompt_depth=scenes.PROMPT_DEPTH
    ),
  }
  for name in ('backbone', 'proposer'):
    stages[name].train.split = FIT
  stages['mine'].mining.split = FIT
  for threshold in THRESHOLDS:
    tried = _tried(f'{at("adapted")}/model', threshold)
    tried.eval.split = REST
    stages[f'evaluate_{_name(threshold)}'] = tried
  for stage in stages.values():
    stage.dataset.fold = f'{fold}/{FOLDS}'
  return {f'{name}_{fold}': stage for name, stage in stages.items()}


def _name(threshold: float) -> int:
  """Of stages, in whose names a point would end."""
  return round(100 * threshold)


def _tried(model: str, threshold: float) -> Config:
  """An evaluation of every lambda."""
  config = scenes.evaluate(model)
  config.eval.threshold = threshold
  config.eval.methods = tuple(
    ml_collections.ConfigDict({'classifier': 'ensemble', 'weight': weight})
    for weight in WEIGHTS
  )
  return config
