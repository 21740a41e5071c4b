"""The flags of `python -m ovs_jax.predict`, and which of them go together."""

import argparse
from typing import Any

from ovs_jax.arguments import listed, numbers
from ovs_jax.core.errors import UserError
from ovs_jax.core.images import read_image
from ovs_jax.core.masks import read_mask
from ovs_jax.formats import FORMATS, Format, parse_formats
from ovs_jax.inference.encode import MODES
from ovs_jax.inference.grid import PROPOSE
from ovs_jax.inference.weigh import EACH, RULES
from ovs_jax.models.ovseg import DTYPES
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
_LOADING |= {flag: flag for flag in ('label_clip', 'keep_aspect', 'propose')}
_ASKING = {'threshold': 'threshold', 'rule': 'rule', 'panoptic': 'panoptic'}
_ASKING |= {'heat_maps': 'heat', 'example': 'examples', 'scores': 'maps'}
_OTHER = {flag: flag for flag in ('window', 'overlap', 'agreement', 'masks')}
CALLED = {**_LOADING, **_ASKING, **_OTHER}


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
    help='an OVSeg, CLIPSeg, CoSeg or CLIP; for --classify a CLIP or OVSeg: its '
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
    '--propose',
    choices=PROPOSE,
    help='OVSeg: what makes the masks; grid: superpixels, which a CLIP has always',
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
