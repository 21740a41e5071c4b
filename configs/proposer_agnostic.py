"""A proposer that finds masks whatever they show: one class, "something".

What the paper calls a general mask generator (its next step). The recipe is that of
`proposer_swin_b`; classes say no more than where one mask ends. --config.train.also=
"('folder/DIR',)" adds masks of other data sets, as their class lists need not agree;
all have label maps of one type. An OVSeg of it is named by CLIP alone
(--config.test.classifier=clip).
  (nothing)  Swin-B on COCO-Stuff; needs what proposer_swin_b needs
  :scenes    the embedded world: this proposer beside the one that tells classes apart,
             from the same backbone in as many steps, on masks of classes that neither
             has seen; about 10 minutes
Expected: `:scenes` in docs/results.md; else not measured. Hardware: not measured.
Command: launch/run.sh --config=configs/proposer_agnostic.py:scenes
"""

import ml_collections

from configs import coco_stuff, common, scenes


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above."""
  if arg.partition(':')[0] == 'scenes':
    return compared(arg.partition(':')[2])
  config = coco_stuff.swin_b('proposer_agnostic', 'vitl14')
  config.train.agnostic = True
  return coco_stuff.finish(config, arg)


def compared(arg: str) -> ml_collections.ConfigDict:
  """Both proposers of the embedded world, and what they show of true masks."""
  at = scenes.in_pipeline
  agnostic = scenes.proposer_training(at('clip'), at('backbone'))
  agnostic.train.agnostic = True
  own = {'agnostic': agnostic}
  for name, proposer in (('aware', 'proposer'), ('agnostic', 'agnostic')):
    model = scenes.assemble(at(proposer), at('clip'), prompt_depth=0)
    model.test.classifier = 'clip'
    own[f'ovseg_{name}'] = model
    own[f'recall_{name}'] = _recall(at(f'ovseg_{name}/model'))
  last = 'recall_agnostic'
  needs = ('proposer', *(name for name in own if name != last))
  name = 'proposer_agnostic_scenes'
  return scenes.pipeline(name, last, arg, own=own, needs=needs)


def _recall(checkpoint: str) -> ml_collections.ConfigDict:
  config = common.base('recall', 'benchmark')
  config.eval.checkpoint = checkpoint
  config.suite.update(
    datasets=('scenes/default:val',),
    training='scenes',
    distractors=(),
    single_concepts=False,
    recall=True,
  )
  return config
