"""Puts a proposer, a CLIP and mask prompts together into one OVSeg.

ovs-jax assemble --proposer=DIR --clip=DIR --prompts=DIR --output=DIR

The proposer may be one by itself, a converted MaskFormer whose queries have embeddings,
or that of an OVSeg; the CLIP likewise. A setting that is not asked for is that of the
OVSeg which one of them comes from, or else the default; the command says which. With
--clips=DIR,DIR several CLIPs name the masks, and their probabilities are averaged.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ovs_jax.arguments import listed, numbers
from ovs_jax.core.checkpoint import load_config
from ovs_jax.core.errors import UserError
from ovs_jax.core.files import place
from ovs_jax.inference import assemble
from ovs_jax.inference.assemble import put_together
from ovs_jax.models.stored import kind_of
from ovs_jax.settings import Settings

# Of a setting its section and key in a configuration, and its place in an OVSeg.
SETTINGS = {
  'weight': ('test', 'weight', ('weight',)),
  'classifier': ('test', 'classifier', ('classifier',)),
  'shortest': ('test', 'shortest', ('test', 'shortest')),
  'longest': ('test', 'longest', ('test', 'longest')),
  'templates': ('text', 'templates', ('templates',)),
  'threshold': ('region', 'threshold', ('region', 'threshold')),
  'fill': ('region', 'fill', ('region', 'fill')),
  'expand': ('region', 'expand', ('region', 'expand')),
  'matting': ('region', 'matting', ('region', 'matting')),
}
_ASKED = ('weight', 'shortest', 'longest', 'threshold', 'classifier', 'templates')


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='ovs-jax assemble',
    description='Puts a proposer, a CLIP and mask prompts together into one OVSeg.',
    allow_abbrev=False,
  )
  add = parser.add_argument
  add('--proposer', required=True, metavar='DIR', help='a proposer, or an OVSeg')
  add('--clip', required=True, metavar='DIR', help='a CLIP, or an OVSeg')
  add('--prompts', default='', metavar='DIR', help='mask prompts for that CLIP')
  add('--clips', type=listed, default=(), metavar='DIR,DIR', help='further CLIPs')
  add('--clip_weights', type=numbers, default=(), metavar='W,W', help='of all CLIPs')
  add('--output', required=True, metavar='DIR', help='the new checkpoint')
  add('--weight', type=float, help='share of CLIP in the ensemble')
  add('--classifier', help='ensemble, clip or proposer')
  add('--threshold', type=float, help="of a mask's pixel that CLIP is shown")
  add('--shortest', type=int, help='side of photos')
  add('--longest', type=int, help='that their other side has at most')
  add('--templates', help='sentences around names')
  return parser


def settings_of(
  asked: Mapping[str, Any], proposer: str, clip: str
) -> dict[str, tuple[Any, str]]:
  """Returns the value of every setting, and where it is from.

  Args:
    asked: what the user asks for; None is nothing.
    proposer: directory of the proposer, or of an OVSeg.
    clip: of the CLIP, or of an OVSeg.
  """
  defaults = Settings('any', 'assemble')
  sources = [(d, load_config(d)) for d in (proposer, clip)]
  sources = [(d, stored) for d, stored in sources if stored.get('model') == 'ovseg']
  found = {}
  for name, (section, key, path) in SETTINGS.items():
    value, where = getattr(getattr(defaults, section), key), 'the default'
    for directory, stored in sources[:1]:
      value, where = stored, directory
      for part in path:
        value = value[part]
    if asked.get(name) is not None:
      value, where = asked[name], 'asked for'
    found[name] = (value, where)
  return found


def run(given: argparse.Namespace) -> None:
  """Writes the checkpoint and says where its settings are from.

  Raises:
    FileNotFoundError, ValueError: a part is missing, or does not fit the other.
  """
  kind_of(given.proposer, kinds=('proposer', 'ovseg'), what='proposer checkpoint')
  kind_of(given.clip, kinds=('clip', 'ovseg'), what='CLIP checkpoint')
  asked = {name: getattr(given, name) for name in _ASKED}
  found = settings_of(asked, given.proposer, given.clip)
  config = Settings('ovseg', 'assemble').to_config()
  config.init.update(proposer=given.proposer, clip=given.clip, prompts=given.prompts)
  config.test.update(clips=given.clips, clip_weights=given.clip_weights)
  for name, (value, where) in found.items():
    section, key, _ = SETTINGS[name]
    config[section][key] = value
    print(f'{name:<10} {value!s:<12} from {where}')
  assemble.save(put_together(Settings.of(config)), place(given.output))
  print(f'done: {given.output}')


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns 0, or 2 after an explained mistake."""
  given = _parser().parse_args(argv)
  try:
    run(given)
  except (UserError, OSError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  return 0


if __name__ == '__main__':
  sys.exit(main())
