"""Which flags of `python -m ovs_jax.predict` go together, and with which models."""

import argparse

from ovs_jax.core.errors import UserError
from ovs_jax.inference.encode import MODES
from ovs_jax.inference.evidence import check_threshold
from ovs_jax.inference.given_masks import clip_alone
from ovs_jax.inference.load import SYSTEMS
from ovs_jax.inference.settings import check_asked, check_window
from ovs_jax.inference.system import check_options, options_of
from ovs_jax.inference.weigh import EACH, RULES
from ovs_jax.models.stored import kind_of
from ovs_jax.predict_options import CALLED, given


def check_kind(arguments: argparse.Namespace) -> None:
  """Finds flags that do not go with the checkpoint.

  Raises:
    FileNotFoundError: there is no checkpoint.
    ValueError: it holds no model that segments, or one that takes no such flag.
  """
  kind = kind_of(arguments.checkpoint, kinds=tuple(SYSTEMS))
  system, make = SYSTEMS[kind].system, SYSTEMS[kind].make
  known = (*options_of(make), *options_of(system.segment), *system.abilities)
  spelt = {name: '--' + flag.replace('_', '-') for flag, name in CALLED.items()}
  asked = {spelt[name]: x for name, x in given(arguments, CALLED).items()}
  check_options(kind, [spelt[name] for name in known if name in spelt], asked)
  if arguments.rule is not None and arguments.rule not in system.rules:
    raise UserError(
      f'--rule={arguments.rule} is not for a {kind!r} checkpoint; take one of '
      f'{", ".join(system.rules)}'
    )


def check_flags(arguments: argparse.Namespace) -> None:
  """Raises ValueError for flags that `Segmenter.segment` would refuse too late."""
  threshold = arguments.threshold
  if threshold is not None:
    check_threshold(threshold, '--threshold')
  if arguments.overlap is not None and arguments.window is None:
    raise UserError('--overlap belongs to --window; give --window=PIXELS too')
  if arguments.agreement and arguments.window is not None:
    raise UserError('--agreement compares whole photos; leave --window out')
  if arguments.refine is not None:
    _check_refine(arguments)
  mode = arguments.mode or MODES[0]
  if arguments.rule == EACH:
    if arguments.masks is None:
      raise UserError('--rule=each names masks that are given; give --masks=PATH too')
    if arguments.scores or arguments.format or arguments.parts or arguments.review:
      raise UserError(
        '--rule=each paints nothing; leave --scores, --format, --parts and --review out'
      )
  if arguments.masks is not None:
    if arguments.window is not None or arguments.agreement:
      raise UserError(
        '--masks belong to whole photos, and have one mode only; leave --window and '
        '--agreement out'
      )
  if arguments.masks is not None or arguments.propose == 'grid':
    clip_alone(arguments.classifier, arguments.weight, arguments.panoptic, mode)
  if arguments.propose == 'grid' and arguments.window is not None:
    raise UserError('--propose=grid makes masks of whole photos; leave --window out')
  overlap = 0.0 if arguments.overlap is None else arguments.overlap
  check_window(arguments.window, overlap)
  check_asked(
    arguments.window is not None,
    mode,
    arguments.rule if arguments.rule in RULES else RULES[0],
    arguments.panoptic,
  )
  if arguments.rule == 'demo' and (
    arguments.classifier not in (None, 'clip') or arguments.weight is not None
  ):
    raise UserError(
      "--rule=demo takes CLIP's probabilities alone; leave --classifier and --weight "
      'out, or take --rule=pixels'
    )


def _check_refine(arguments: argparse.Namespace) -> None:
  if arguments.refine < 1:
    raise UserError(f'--refine={arguments.refine}: expected at least 1 pixel')
  others = ('panoptic', 'scores', 'agreement')
  others = [f'--{flag}' for flag in others if getattr(arguments, flag)]
  others += ['--rule=each'] if arguments.rule == EACH else []
  if others:
    raise UserError(
      f'--refine cleans label maps alone; leave {", ".join(others)} or --refine out'
    )
