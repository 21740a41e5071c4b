"""Segments photos by the names you give, on the command line.

    python -m ovs_jax.predict --checkpoint=DIR --image=photo.jpg \\
      --names="red ball, grass"

For each photo it writes `<photo>_labels.png`, an index into the names for every pixel
(255 where there is none); `<photo>_overlay.png`, the same to look at;
`<photo>_segments.json`, where each name is; and with --scores `<photo>_scores.npz`. It
prints how much of the picture each name has. A photo whose results are there, made with
the same settings from the same photo, is skipped.

With --classify it prints how probable each name is for the picture as a whole.
"""

import argparse
import pathlib
import sys
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from tqdm import tqdm

from ovs_jax import prompted, prompted_options
from ovs_jax.classifier import Classifier
from ovs_jax.core.checkpoint import resolve
from ovs_jax.core.files import check_writable
from ovs_jax.core.images import read_image
from ovs_jax.core.runlog import progress
from ovs_jax.ops.ensemble import CLASSIFIERS
from ovs_jax.ops.overlay import percent
from ovs_jax.photos import find_photos
from ovs_jax.results import describe, is_done, photo_key, plan, report, write
from ovs_jax.segmenter import Segmenter
from ovs_jax.text.classes import (
  SYNONYMS,
  Classes,
  parse_background,
  parse_classes,
  read_names,
)
from ovs_jax.text.templates import TEMPLATES
from ovs_jax.weighing import RULES

_TOP = 20  # names that --classify prints


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns 0, or 2 after a mistake, which it explains."""
  arguments = _parser().parse_args(argv)
  sys.stdout.reconfigure(errors='backslashreplace')  # names in any script
  with warnings.catch_warnings():
    warnings.showwarning = _show_warning
    try:
      return _classify(arguments) if arguments.classify else _predict(arguments)
    except (ValueError, OSError) as error:
      _complain(error)
      return 2


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m ovs_jax.predict',
    description='Segments photos by the names you give.',
  )
  parser.add_argument(
    '--checkpoint',
    required=True,
    metavar='DIR',
    help='directory of an OVSeg, CLIPSeg or CoSeg model; for --classify of a CLIP or '
    'OVSeg model',
  )
  parser.add_argument(
    '--image',
    required=True,
    nargs='+',
    action='extend',
    metavar='PATH',
    help='photos, such as JPEG or PNG files; folders; or quoted patterns: '
    '"photos/**/*.jpg"',
  )
  names = parser.add_mutually_exclusive_group(required=True)
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
  parser.add_argument(
    '--classify',
    action='store_true',
    help='print how probable each name is for the whole picture; no segmentation',
  )
  _add_text_options(parser)
  _add_segment_options(parser)
  prompted_options.add_options(parser)
  return parser


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
    'ovs_jax.prompted (default: A)',
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


def _names(arguments: argparse.Namespace) -> Classes:
  if arguments.names_file is not None:
    return read_names(arguments.names_file)
  return parse_classes(arguments.names)


def _predict(arguments: argparse.Namespace) -> int:
  """Segments all images. One that cannot be read does not stop the others."""
  _check_rule(arguments)
  classes = _names(arguments)
  background = parse_background(arguments.background, classes)
  output = 'predictions' if arguments.output is None else arguments.output
  jobs = plan(find_photos(arguments.image), output, scores=arguments.scores)
  try:
    check_writable(output, megabytes=10)
  except OSError as error:
    raise OSError(str(error).replace('--workdir=', '--output=')) from error
  settings = _settings(arguments, classes, background)
  keys = {path: photo_key(path, settings) for path in jobs}
  done = [path for path in jobs if is_done(jobs[path], keys[path])]
  for path in [] if arguments.overwrite else done:
    print(
      f'{path}: skipped, its results are in {output} (--overwrite makes them again)'
    )
    del jobs[path]
  if not jobs:
    return 0
  segmenter = _load(arguments)
  # Complains of names that are too long before the work.
  segmenter.embed_names(classes + background, synonyms=arguments.synonyms)
  asked = _asked(arguments, background)
  failures = 0
  for path in _progress(list(jobs), 'segment'):
    try:
      image = read_image(path)
    except (ValueError, FileNotFoundError) as error:
      _complain(error)
      failures += 1
      continue
    result = segmenter.segment(segmenter.encode(image), classes, **asked)
    description = describe(result, path, settings, keys[path])
    prompted_options.write_more(arguments, result, image, path)
    write(result, image, jobs[path], description)
    tqdm.write(report(path, result, jobs[path]), file=sys.stdout)
  return 2 if failures else 0


def _asked(arguments: argparse.Namespace, background: Classes) -> dict[str, Any]:
  """Returns the options of `segment`."""
  if prompted_options.is_prompted(arguments):
    return prompted_options.asked(arguments, background)
  return {
    'synonyms': arguments.synonyms,
    'background': background,
    'threshold': arguments.threshold or 0.0,
    'rule': arguments.rule or RULES[0],
  }


def _load(arguments: argparse.Namespace) -> Any:
  if prompted_options.is_prompted(arguments):
    return prompted_options.load(arguments)
  return Segmenter.load(
    arguments.checkpoint,
    classifier=arguments.classifier,
    weight=arguments.weight,
    templates=arguments.templates,
    text_cache=arguments.text_cache,
    prompts=arguments.prompts,
  )


def _check_rule(arguments: argparse.Namespace) -> None:
  """Raises ValueError for flags that `Segmenter.segment` would refuse too late."""
  threshold = arguments.threshold
  if threshold is not None and not 0 <= threshold < float('inf'):
    raise ValueError(f'--threshold must be a score of at least 0, got {threshold}')
  if arguments.rule == 'demo' and (
    arguments.classifier not in (None, 'clip') or arguments.weight is not None
  ):
    raise ValueError(
      "--rule=demo takes CLIP's probabilities alone; leave --classifier and --weight "
      'out, or take --rule=pixels'
    )


def _settings(
  arguments: argparse.Namespace, classes: Classes, background: Classes
) -> dict[str, Any]:
  """Returns all that a result depends on but the photo; None is the checkpoint's."""
  checkpoint = resolve(arguments.checkpoint)
  prompts = {}
  if arguments.prompts is not None:
    path = resolve(arguments.prompts, what='prompts')
    prompts = {'prompts': str(path), 'prompts_time': path.stat().st_mtime_ns}
  flags = ('templates', 'synonyms', 'threshold', 'rule', 'classifier', 'weight')
  return {
    'checkpoint': str(checkpoint),
    'checkpoint_time': checkpoint.stat().st_mtime_ns,
    **prompts,
    'classes': dict(zip(classes.names, map(list, classes.words), strict=True)),
    'background': dict(zip(background.names, map(list, background.words), strict=True)),
    **{flag: getattr(arguments, flag) for flag in flags},
    **prompted_options.settings(arguments),
  }


def _classify(arguments: argparse.Namespace) -> int:
  """Prints the probabilities for all images, as `_predict` goes on after a bad one."""
  given = vars(arguments)
  flags = ('background', 'threshold', 'rule', 'classifier', 'weight', 'prompts')
  flags = [f for f in (*flags, 'output') if given[f] is not None]
  flags += [f for f in ('scores', 'overwrite') if given[f]]
  if flags:
    raise ValueError(
      f'--{" --".join(flags)} belong to segmentation and not to --classify; leave them '
      'out'
    )
  classes = _names(arguments)
  photos = find_photos(arguments.image)
  classifier = Classifier.load(
    arguments.checkpoint,
    templates=arguments.templates,
    text_cache=arguments.text_cache,
  )
  failures = 0
  for path in _progress(list(photos), 'classify'):
    try:
      image = read_image(path)
    except (ValueError, FileNotFoundError) as error:
      _complain(error)
      failures += 1
      continue
    shares = classifier.classify(image, classes, synonyms=arguments.synonyms)
    lines = [str(path)]
    lines += [f'  {percent(p):>7}  {name}' for name, p in list(shares.items())[:_TOP]]
    if len(shares) > _TOP:
      lines += [f'  ... and {len(shares) - _TOP} less probable names']
    tqdm.write('\n'.join(lines), file=sys.stdout)
  return 2 if failures else 0


def _progress(photos: list[pathlib.Path], title: str) -> Iterable[pathlib.Path]:
  """Shows a bar on a terminal; a log has the reports instead."""
  if len(photos) > 1 and sys.stderr.isatty():
    return progress(photos, total=len(photos), title=title, unit='image')
  return photos


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
  tqdm.write(f'warning: {" ".join(str(message).split())}', file=sys.stderr)


def _complain(error: Exception) -> None:
  """Says on one line what was wrong."""
  tqdm.write(f'error: {" ".join(str(error).split())}', file=sys.stderr)


def _report_unraisable(problem: Any) -> None:
  """Skips what Orbax's threads say after a checkpoint could not be read."""
  if 'Event loop is closed' not in str(problem.exc_value):
    sys.__unraisablehook__(problem)


if __name__ == '__main__':
  sys.unraisablehook = _report_unraisable
  sys.exit(main())
