"""The flags of `python -m ovs_jax.predict`, and which of them go together."""

import argparse

from ovs_jax import prompted_options
from ovs_jax.inference import prompted
from ovs_jax.inference.encode import MODES
from ovs_jax.inference.settings import check_asked, check_window
from ovs_jax.inference.weigh import RULES
from ovs_jax.models.ovseg import DTYPES
from ovs_jax.ops.ensemble import CLASSIFIERS
from ovs_jax.text.classes import SYNONYMS
from ovs_jax.text.templates import TEMPLATES


def parser() -> argparse.ArgumentParser:
  """Returns the parser of all flags."""
  flags = argparse.ArgumentParser(
    prog='python -m ovs_jax.predict',
    description='Segments photos by the names you give.',
  )
  flags.add_argument(
    '--checkpoint',
    required=True,
    metavar='DIR',
    help='directory of an OVSeg, CLIPSeg or CoSeg model; for --classify of a CLIP or '
    'OVSeg model',
  )
  flags.add_argument(
    '--image',
    required=True,
    nargs='+',
    action='extend',
    metavar='PATH',
    help='photos, such as JPEG or PNG files; folders; or quoted patterns: '
    '"photos/**/*.jpg"',
  )
  names = flags.add_mutually_exclusive_group(required=True)
  names.add_argument(
    '--names',
    help='what to look for, separated by commas: "red ball, grass"; everything else '
    'goes to the closest of them, so name the background as well',
  )
  names.add_argument(
    '--names-file',
    metavar='FILE',
    help='a text file with one "name" or "name: synonym, synonym" per line',
  )
  flags.add_argument(
    '--classify',
    action='store_true',
    help='print how probable each name is for the whole picture; no segmentation',
  )
  _add_text_options(flags)
  _add_segment_options(flags)
  _add_speed_options(flags)
  prompted_options.add_options(flags)
  return flags


def _add_text_options(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--templates',
    choices=TEMPLATES,
    help="sentences that names are put into (default: the checkpoint's; for --classify "
    'single)',
  )
  parser.add_argument(
    '--synonyms',
    choices=SYNONYMS,
    default='mean',
    help='of a names file: mean of their embeddings, best of them, or all as one '
    'string (default: %(default)s)',
  )
  parser.add_argument(
    '--text-cache',
    metavar='DIR',
    help='where embeddings of names are kept, or "off" (default: $OVS_JAX_TEXT_CACHE, '
    'or ~/.cache/ovs_jax/text)',
  )


def _add_segment_options(parser: argparse.ArgumentParser) -> None:
  """Those that --classify does not take; all are None or false by default."""
  group = parser.add_argument_group('segmentation')
  group.add_argument(
    '--background',
    metavar='NAMES',
    help='names that compete, but get no label: "wall, floor"',
  )
  group.add_argument(
    '--threshold', type=float, help='pixels with a lower score get no label'
  )
  group.add_argument(
    '--rule',
    choices=(*RULES, *prompted.RULES),
    help="pixels: all proposals add up; demo: the best one of each name (OVSeg's "
    'demo) (default: pixels). For CLIPSeg and CoSeg A, B, C or D, see '
    'ovs_jax.inference.prompted (default: A)',
  )
  group.add_argument(
    '--prompts', metavar='DIR', help='mask prompts for its CLIP, stored separately'
  )
  group.add_argument(
    '--classifier',
    choices=CLASSIFIERS,
    help="who names the proposals (default: the checkpoint's)",
  )
  group.add_argument(
    '--weight',
    type=float,
    help="of CLIP in the ensemble, 0..1 (default: the checkpoint's)",
  )
  group.add_argument(
    '--output',
    metavar='DIR',
    help='where results are written (default: predictions)',
  )
  group.add_argument(
    '--scores', action='store_true', help='write scores and proposals as .npz too'
  )
  group.add_argument(
    '--overwrite', action='store_true', help='make results again that are there'
  )


def _add_speed_options(parser: argparse.ArgumentParser) -> None:
  """Those that --classify does not take either."""
  group = parser.add_argument_group('segmentation: large photos, segments and time')
  group.add_argument(
    '--window',
    type=int,
    metavar='PIXELS',
    help='cut larger photos into overlapping windows of this side',
  )
  group.add_argument(
    '--overlap',
    type=float,
    help='share of a window that the next one repeats, 0..0.5 (default: 0.25)',
  )
  group.add_argument(
    '--panoptic', action='store_true', help='write segments with ids as PNG too'
  )
  group.add_argument(
    '--mode',
    choices=MODES,
    help='exact; certified: the same labels from fewer crops; filtered: without '
    'doubtful and repeated proposals; one_pass: CLIP sees the photo once (an '
    'approximation) (default: exact)',
  )
  group.add_argument(
    '--dtype', choices=DTYPES, help="of the networks (default: the checkpoint's)"
  )
  group.add_argument(
    '--agreement',
    action='store_true',
    help='run the exact mode too, and report the share of pixels it labels the same',
  )


def check_flags(arguments: argparse.Namespace) -> None:
  """Raises ValueError for flags that `Segmenter.segment` would refuse too late."""
  threshold = arguments.threshold
  if threshold is not None and not 0 <= threshold < float('inf'):
    raise ValueError(f'--threshold must be a score of at least 0, got {threshold}')
  if arguments.overlap is not None and arguments.window is None:
    raise ValueError('--overlap belongs to --window; give --window=PIXELS too')
  if arguments.agreement and arguments.window is not None:
    raise ValueError('--agreement compares whole photos; leave --window out')
  mode = arguments.mode or MODES[0]
  overlap = 0.0 if arguments.overlap is None else arguments.overlap
  check_window(arguments.window, overlap, mode)
  check_asked(
    arguments.window is not None,
    mode,
    arguments.rule if arguments.rule in RULES else RULES[0],
    threshold or 0.0,
    arguments.panoptic,
  )
  if arguments.rule == 'demo' and (
    arguments.classifier not in (None, 'clip') or arguments.weight is not None
  ):
    raise ValueError(
      "--rule=demo takes CLIP's probabilities alone; leave --classifier and --weight "
      'out, or take --rule=pixels'
    )
