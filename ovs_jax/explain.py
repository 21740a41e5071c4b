"""Shows how an OVSeg came to its labels, as one figure.

    python -m ovs_jax.explain --checkpoint=DIR --image=photo.jpg \\
      --names="red ball, grass" --at=120,80

The picture with its labels, the proposals that decided at a pixel, their crops as CLIP
sees them (what mask prompts replace is hatched), the five most probable names of both
classifiers for each, and what they add up to.
"""

import argparse
import sys
from collections.abc import Sequence

from ovs_jax.console import complain
from ovs_jax.core.errors import UserError
from ovs_jax.core.files import atomic_path, local
from ovs_jax.core.images import read_image
from ovs_jax.core.programs import keep_programs
from ovs_jax.inference.named import located
from ovs_jax.inference.segmenter import Segmenter
from ovs_jax.ops.ensemble import CLASSIFIERS
from ovs_jax.text.classes import parse_classes, read_names


def parser() -> argparse.ArgumentParser:
  """Returns the parser of all flags."""
  flags = argparse.ArgumentParser(
    prog='python -m ovs_jax.explain',
    description='Shows how an OVSeg came to its labels.',
  )
  flags.add_argument(
    '--checkpoint', required=True, metavar='DIR|NAME', help='an OVSeg model'
  )
  flags.add_argument('--image', required=True, metavar='PATH', help='one photo')
  names = flags.add_mutually_exclusive_group(required=True)
  names.add_argument('--names', help='what to look for: "red ball, grass"')
  names.add_argument(
    '--names-file', metavar='FILE', help='one "name" or "name: synonym" per line'
  )
  flags.add_argument('--background', metavar='NAMES', help='names that compete too')
  flags.add_argument(
    '--at', metavar='X,Y', help='the pixel that is explained (default: the middle)'
  )
  flags.add_argument(
    '--proposals', type=int, default=5, metavar='N', help='(default: %(default)s)'
  )
  flags.add_argument(
    '--classifier', choices=CLASSIFIERS, help="(default: the checkpoint's)"
  )
  flags.add_argument(
    '--weight', type=float, help="of CLIP in the ensemble (default: the checkpoint's)"
  )
  flags.add_argument(
    '--prompts', metavar='DIR', help='mask prompts for its CLIP, stored separately'
  )
  flags.add_argument(
    '--output',
    metavar='FILE',
    help='a .png, .pdf or .svg file (default: PHOTO_explained.png)',
  )
  flags.add_argument(
    '--accept-licence', action='store_true', help='as in ovs_jax.predict'
  )
  return flags


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns 0, or 2 after a mistake, which it explains."""
  arguments = parser().parse_args(argv)
  keep_programs()
  try:
    return _explain(arguments)
  except (UserError, OSError) as error:
    complain(error)
    return 2


def _explain(arguments: argparse.Namespace) -> int:
  by_file = arguments.names_file is not None
  names = (
    read_names(arguments.names_file) if by_file else parse_classes(arguments.names)
  )
  at = None if arguments.at is None else _pixel(arguments.at)
  image = read_image(arguments.image)
  stem = local(arguments.image).stem
  output = local(arguments.output or f'{stem}_explained.png')
  if output.suffix not in ('.png', '.pdf', '.svg'):
    raise UserError(f'--output={output}: give a .png, .pdf or .svg file')
  checkpoint = located(arguments.checkpoint, accept_licence=arguments.accept_licence)
  prompts = {} if arguments.prompts is None else {'prompts': arguments.prompts}
  segmenter = Segmenter.load(checkpoint, **prompts)
  found = segmenter.explain(
    image,
    names,
    background=arguments.background,
    at=at,
    proposals=arguments.proposals,
    classifier=arguments.classifier,
    weight=arguments.weight,
  )
  figure = found.figure()
  with atomic_path(output) as path:
    figure.savefig(path, format=output.suffix[1:])
  print(found)
  print(f'written: {output}')
  return 0


def _pixel(text: str) -> tuple[int, int]:
  try:
    x, y = (int(part) for part in text.split(','))
  except ValueError as error:
    raise UserError(f'--at={text}: expected x,y in pixels, such as 120,80') from error
  return x, y


if __name__ == '__main__':
  sys.exit(main())
