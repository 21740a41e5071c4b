"""Mask prompts of the embedded world from true masks, mined ones, and both.

True masks are right but show the seen classes alone; pairs of captions show all there
is, some of it wrongly. The paper's appendix wishes for a balance of the two. The
quickstart's stages, then mask prompts from each source in as many steps:
  mined     as the quickstart has them
  true      the training scenes' masks with the names of their classes
  both      as many of the one as of the other in a batch
  balanced  the same, and every noun as often as any other
Expected: docs/results.md, "True masks beside mined ones". Hardware: 2 CPU cores; three
minutes more than the quickstart.
Command: launch/run.sh --config=configs/scenes_pairs.py
"""

import ml_collections

from configs import scenes

SOURCES = ('true', 'both', 'balanced')


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """Returns the pipeline."""
  at = scenes.in_pipeline
  mined, true = at('mine/pairs'), at('classes/pairs')
  own = {}
  for source in SOURCES:
    mpt = scenes.mask_prompt_tuning(at('clip'), true if source == 'true' else mined)
    if source != 'true':
      mpt.init.more_pairs = ((true, 1.0),)
    if source == 'balanced':
      mpt.adapt.balance = 1.0
    model = scenes.assemble(
      at('proposer'), at(f'mpt_{source}'), prompt_depth=scenes.PROMPT_DEPTH
    )
    own[f'mpt_{source}'], own[f'ovseg_{source}'] = mpt, model
    own[f'evaluate_{source}'] = scenes.evaluate(at(f'ovseg_{source}/model'))
  last = f'evaluate_{SOURCES[-1]}'
  needs = ('classes', 'evaluate_mpt', *(name for name in own if name != last))
  return scenes.pipeline('scenes_pairs', last, arg, own=own, needs=needs)
