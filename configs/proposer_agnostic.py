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
  :parts     likewise in a world whose things have parts: with classes, without, with
             parts as masks of their own, and with rare sizes counting more
Expected: `:scenes` and `:parts` in docs/results.md; else not measured. Hardware: not
measured.
Command: launch/run.sh --config=configs/proposer_agnostic.py:scenes
"""

import ml_collections

from configs import coco_stuff, common, scenes


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """See above."""
  word, _, rest = arg.partition(':')
  if word in ('scenes', 'parts'):
    return (compared if word == 'scenes' else with_parts)(rest)
  config = coco_stuff.swin_b('proposer_agnostic', 'vitl14')
  config.train.agnostic = True
  return coco_stuff.finish(config, arg)


def compared(arg: str) -> ml_collections.ConfigDict:
  """Both proposers of the embedded world, and what they show of true masks."""
  at = scenes.in_pipeline
  agnostic = scenes.proposer_training(at('clip'), at('backbone'))
  agnostic.train.agnostic = True
  proposers = {'aware': 'proposer', 'agnostic': 'agnostic'}
  own = {'agnostic': agnostic} | _shown(proposers, ('scenes/default:val',))
  *before, last = own
  needs = ('proposer', *before)
  return scenes.pipeline('proposer_agnostic_scenes', last, arg, own=own, needs=needs)


def with_parts(arg: str) -> ml_collections.ConfigDict:
  """Proposers of a world with parts, and what they show of wholes and of parts."""
  at = scenes.in_pipeline
  own = {}
  for name in ('aware', 'agnostic', 'parts', 'balanced'):
    own[name] = scenes.proposer_training(at('clip'), at('backbone'))
    own[name].dataset.variant = 'parted'
    train = own[name].train
    train.paste_scenes = 0  # as where several data sets are read
    train.agnostic = name != 'aware'
    if name in ('parts', 'balanced'):
      train.also, train.classes = ('scenes/parts',), 'all'
    train.size_balance = 1.0 * (name == 'balanced')
  own |= _shown({name: name for name in own}, ('scenes/parted:val', 'scenes/parts:val'))
  *before, last = own
  needs = ('backbone', *before)
  return scenes.pipeline('proposer_agnostic_parts', last, arg, own=own, needs=needs)


def _shown(
  proposers: dict[str, str], datasets: tuple[str, ...]
) -> dict[str, ml_collections.ConfigDict]:
  """Evaluations, by the name of each, of the proposers that stages of them trained."""
  own = {}
  for name, stage in proposers.items():
    at = scenes.in_pipeline
    model = scenes.assemble(at(stage), at('clip'), prompt_depth=0)
    model.test.classifier = 'clip'
    own[f'ovseg_{name}'] = model
    own[f'recall_{name}'] = _recall(at(f'ovseg_{name}/model'), datasets)
  return own


def _recall(checkpoint: str, datasets: tuple[str, ...]) -> ml_collections.ConfigDict:
  config = common.base('recall', 'benchmark')
  config.eval.checkpoint = checkpoint
  config.suite.update(
    datasets=datasets,
    training='scenes',
    distractors=(),
    single_concepts=False,
    recall=True,
  )
  return config
