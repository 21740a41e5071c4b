"""The flags of `python -m ovs_jax.predict`, and which of them go together."""

import argparse
from typing import Any

from ovs_jax.arguments import listed, numbers
from ovs_jax.core.errors import UserError
from ovs_jax.core.images import read_image
from ovs_jax.core.masks import read_mask
from ovs_jax.formats import FORMATS, Format, parse_formats
from ovs_jax.inference.encode import MODES
from ovs_jax.inference.evidence import check_threshold
from ovs_jax.inference.given_masks import clip_alone
from ovs_jax.inference.load import SYSTEMS
from ovs_jax.inference.settings import check_asked, check_window
from ovs_jax.inference.system import check_options, options_of
from ovs_jax.inference.weigh import EACH, RULES
from ovs_jax.models.ovseg import DTYPES
from ovs_jax.models.stored import kind_of
from ovs_jax.ops.ensemble import CLASSIFIERS
from ovs_jax.ops.merging import RULES as MASK_RULES
from ovs_jax.text.classes import SYNONYMS, Classes
from ovs_jax.text.templates import TEMPLATES

# Flags that some checkpoints do not take, and what `Segmenter` calls them.
_LOADING = {
  flag: flag
  for flag in ('templates', 'text_cache', 'classifier', 'weight', 'mode', 'dtype')
}
_LOADING |= {flag: flag for flag in ('prompts', 'clips', 'clip_weights', 'labels')}
_LOADING |= {flag: flag for flag in ('label_clip', 'keep_aspect')}
_ASKING = {'threshold': 'threshold', 'rule': 'rule', 'panoptic': 'panoptic'}
_ASKING |= {'heat_maps': 'heat', 'example': 'examples', 'scores': 'maps'}
_OTHER = {flag: flag for flag in ('window', 'overlap', 'agreement', 'masks')}


def parser() -> argparse.ArgumentParser:
  """Returns the parser of all flags."""
  flags = argparse.ArgumentParser(
    prog='python -m ovs_jax.predict',
    usage='%(prog)s --checkpoint=DIR|NAME --image=PHOTO... --names="A, B" [OPTIONS]',
    description='Segments photos by the names you give.',
    epilog='Example: %(prog)s --checkpoint=clipseg-rd64-refined --image=photo.jpg '
    '--names="a dog, grass, sky"',
  )
  first = flags.add_argument_group('what to segment, and by which names')
  first.add_argument(
    '--checkpoint',
    required=True,
    metavar='DIR|NAME',
    help='an OVSeg, CLIPSeg or CoSeg model; for --classify a CLIP or OVSeg: its '
    'directory, or a name such as clipseg-rd64-refined or hf://ORG/NAME, which is '
    'fetched once',
  )
  first.add_argument(
    '--image',
    required=True,
    nargs='+',
    action='extend',
    metavar='PATH',
    help='photos, such as JPEG or PNG files; folders; or quoted patterns: '
    '"photos/**/*.jpg"',
  )
  names = first.add_mutually_exclusive_group(required=True)
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
  _add_output_options(flags.add_argument_group('results'))
  _add_text_options(flags)
  _add_segment_options(flags)
  _add_speed_options(flags)
  _add_mask_options(flags)
  _add_other_options(flags.add_argument_group('other'))
  return flags


def _add_other_options(group: Any) -> None:
  group.add_argument(
    '--classify',
    action='store_true',
    help='print how probable each name is for the whole picture; no segmentation',
  )
  group.add_argument(
    '--accept-licence',
    action='store_true',
    help='fetch a model by name although its licence restricts what it may be used for',
  )


def _add_text_options(parser: argparse.ArgumentParser) -> None:
  group = parser.add_argument_group('names')
  group.add_argument(
    '--templates',
    choices=TEMPLATES,
    help="sentences that names are put into (default: the checkpoint's; for --classify "
    'single)',
  )
  group.add_argument(
    '--synonyms',
    choices=SYNONYMS,
    default='mean',
    help='of a names file: mean of their embeddings, best of them, or all as one '
    'string (default: %(default)s)',
  )
  group.add_argument(
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
    '--threshold',
    type=float,
    help='0..1: pixels of less confidence get no label. Confidence is the share that '
    'the label has of the evidence of all names, of the background and of "nothing" '
    '(default: 0, all pixels that anything speaks for; of CLIPSeg and CoSeg those that '
    'a mask has with a probability of 0.3, whatever the confidence)',
  )
  group.add_argument(
    '--rule',
    choices=(*RULES, EACH, *MASK_RULES),
    help="pixels: all proposals add up; demo: the best one of each name (OVSeg's "
    'demo); each: every one of --masks has its name, in PHOTO_masks.json alone '
    '(default: pixels). For CLIPSeg and CoSeg A, B, C or D, see '
    'ovs_jax.inference.prompted (default: A)',
  )
  group.add_argument(
    '--masks',
    metavar='PATH',
    help='OVSeg: masks in place of its own, which CLIP alone names. A folder with '
    'PHOTO/*.png (a mask each), PHOTO.png (every value but 0 is a mask) or PHOTO.json '
    '(as SAM writes it) for each photo; or a JSON file of COCO: RLE, polygons or boxes',
  )
  group.add_argument(
    '--prompts', metavar='DIR', help='mask prompts for its CLIP, stored separately'
  )
  group.add_argument(
    '--clips',
    type=listed,
    metavar='DIR,DIR',
    help='OVSeg: further CLIPs that see the same regions; the mean of the '
    'probabilities by all CLIPs, its own first, takes the place of one',
  )
  group.add_argument(
    '--clip-weights',
    type=numbers,
    metavar='W,W',
    help='OVSeg: of all CLIPs in that mean, its own first: 2,1 (default: all the same)',
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


def _add_output_options(group: Any) -> None:
  """What is written, and where."""
  group.add_argument(
    '--output',
    metavar='DIR',
    help='where results are written (default: predictions)',
  )
  group.add_argument(
    '--scores',
    action='store_true',
    help='write as .npz too how sure every name is at every pixel (float16), the '
    'scores and the proposals',
  )
  group.add_argument(
    '--format',
    metavar='NAMES',
    help='write the results for other tools too, into a folder of each, separated by '
    f'commas: {", ".join(FORMATS)}',
  )
  group.add_argument(
    '--parts',
    action='store_true',
    help='--format=coco: an annotation per connected part, not per segment',
  )
  group.add_argument(
    '--review',
    action='store_true',
    help='write review.html, a page with all photos of the run, those with the least '
    'sure segments first',
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
    help='exact; filtered: without doubtful and repeated proposals; one_pass: CLIP '
    "sees the photo once (an approximation); pooled: the same at the proposer's size, "
    'of a CLIP without a class token as its embedding, such as a ConvNeXt (default: '
    'exact)',
  )
  group.add_argument(
    '--dtype', choices=DTYPES, help="of the networks (default: the checkpoint's)"
  )
  group.add_argument(
    '--refine',
    type=int,
    metavar='PIXELS',
    help='move borders by up to as many pixels to those of the photo (default: not)',
  )
  group.add_argument(
    '--agreement',
    action='store_true',
    help='run the exact mode too, and report the share of pixels it labels the same',
  )


def _add_mask_options(parser: argparse.ArgumentParser) -> None:
  """Those of CLIPSeg and CoSeg; all are None or false by default."""
  group = parser.add_argument_group('checkpoints of CLIPSeg and CoSeg')
  group.add_argument(
    '--heat-maps',
    action='store_true',
    help='write the probabilities of all names, as .npz and as a picture',
  )
  group.add_argument(
    '--labels',
    type=int,
    metavar='K',
    help='CLIPSeg: segment the K names only that CLIP finds in the photo (CoSeg '
    'without training; the paper: 20)',
  )
  group.add_argument(
    '--label-clip',
    metavar='DIR',
    help="checkpoint of that CLIP (default: the CLIPSeg's own)",
  )
  group.add_argument(
    '--keep-aspect',
    action='store_true',
    help='do not squash photos to a square; CoSeg: pad them',
  )
  group.add_argument(
    '--example',
    nargs=3,
    action='append',
    metavar=('NAME', 'IMAGE', 'MASK'),
    help='CLIPSeg: an image and a mask (not 0 where the thing is) that say what NAME '
    'is, in place of its text; may be repeated',
  )


def given(arguments: argparse.Namespace, flags: dict[str, str]) -> dict[str, Any]:
  """Returns the values of those flags that were given, by what they are called."""
  values = {name: getattr(arguments, flag) for flag, name in flags.items()}
  return {name: x for name, x in values.items() if x is not None and x is not False}


def loading(arguments: argparse.Namespace) -> dict[str, Any]:
  """Returns the options of `Segmenter.load`."""
  return given(arguments, _LOADING)


def asking(arguments: argparse.Namespace, background: Classes) -> dict[str, Any]:
  """Returns the options of `Segmenter.segment`; reads the example pictures."""
  options = given(arguments, _ASKING)
  if arguments.example:
    examples: dict[str, list[Any]] = {}
    for name, image, mask in arguments.example:
      examples.setdefault(name, []).append((read_image(image), read_mask(mask)))
    options['examples'] = examples
  return {'synonyms': arguments.synonyms, 'background': background, **options}


def formats(arguments: argparse.Namespace, classes: Classes) -> tuple[Format, ...]:
  """Returns the formats that are asked for.

  Raises:
    ValueError: one is unknown, or cannot hold the names.
  """
  asked = parse_formats(arguments.format)
  if arguments.parts and 'coco' not in [one.name for one in asked]:
    raise UserError('--parts belongs to --format=coco; give it too, or leave it out')
  for one in asked:
    one.check(classes.names, overlapping=arguments.rule == 'D')
  return asked


def check_kind(arguments: argparse.Namespace) -> None:
  """Finds flags that do not go with the checkpoint.

  Raises:
    FileNotFoundError: there is no checkpoint.
    ValueError: it holds no model that segments, or one that takes no such flag.
  """
  kind = kind_of(arguments.checkpoint, kinds=tuple(SYSTEMS))
  system, make = SYSTEMS[kind].system, SYSTEMS[kind].make
  known = (*options_of(make), *options_of(system.segment), *system.abilities)
  flags = {**_LOADING, **_ASKING, **_OTHER}
  spelt = {name: '--' + flag.replace('_', '-') for flag, name in flags.items()}
  asked = {spelt[name]: x for name, x in given(arguments, flags).items()}
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
    clip_alone(arguments.classifier, arguments.weight, arguments.panoptic, mode)
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
