"""Segments photos by the names you give, on the command line.

    python -m ovs_jax.predict --checkpoint=DIR --image=photo.jpg \\
      --names="red ball, grass"

For each photo it writes `<photo>_labels.png`, an index into the names for every pixel
(255 where there is none); `<photo>_overlay.png`, the same to look at;
`<photo>_segments.json`, where each name is; with --scores `<photo>_scores.npz`; and
with --format=coco,yolo a folder for each of these, and with --review one page with all
photos, the doubtful ones first. It prints how much of the picture
each name has. A photo whose results are there, made with the same settings from the
same photo, is skipped, and results among the photos are.

Photos larger than --window are cut into windows that overlap. --panoptic adds
`<photo>_panoptic.png`, an id for every pixel (0 where there is none), and the segments
with these ids to the JSON. --mode and --dtype trade exactness for time, and
--agreement tells at what price.

With --masks=PATH it names masks that you bring, by CLIP alone; and with --rule=each
too, each of them in `<photo>_masks.json`, which is all that is written.

With --classify it prints how probable each name is for the picture as a whole.
"""

import argparse
import pathlib
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from ovs_jax.console import complain, progressing, read_photo, show_warning, tell
from ovs_jax.core.checkpoint import version
from ovs_jax.core.errors import UserError
from ovs_jax.core.files import check_writable
from ovs_jax.core.programs import keep_programs
from ovs_jax.formats.given import MaskFiles, open_masks
from ovs_jax.inference.classifier import Classifier
from ovs_jax.inference.encode import PICTURES_AT_ONCE, Picture
from ovs_jax.inference.files import (
  Outputs,
  describe,
  finish,
  is_done,
  photo_key,
  plan,
  report,
  write,
)
from ovs_jax.inference.given_masks import EncodedMasks
from ovs_jax.inference.mask_names import is_named, plan_masks, write_names
from ovs_jax.inference.named import located
from ovs_jax.inference.review import write_review
from ovs_jax.inference.segmenter import Segmenter
from ovs_jax.inference.weigh import EACH
from ovs_jax.ops.fonts import undrawn
from ovs_jax.ops.overlay import percent
from ovs_jax.photos import find_photos
from ovs_jax.predict_checks import check_flags, check_kind
from ovs_jax.predict_options import asking, formats, loading, parser
from ovs_jax.text.classes import (
  Classes,
  hints,
  parse_background,
  parse_classes,
  read_names,
)

_TOP = 20  # names that --classify prints
# Flags beyond those of the method that change what is written.
_SPEED = ('mode', 'dtype', 'window', 'overlap', 'panoptic', 'agreement')
# The same, told only where they are given; most are for CLIPSeg and CoSeg alone.
_GIVEN = ('refine', 'labels', 'label_clip', 'keep_aspect', 'heat_maps', 'example')
_GIVEN = (*_GIVEN, 'clip_weights', 'propose')


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns 0, or 2 after a mistake, which it explains."""
  arguments = parser().parse_args(argv)
  sys.stdout.reconfigure(errors='backslashreplace')  # names in any script
  keep_programs()
  with warnings.catch_warnings():
    warnings.showwarning = show_warning
    try:
      return _classify(arguments) if arguments.classify else _predict(arguments)
    except (ValueError, OSError) as error:
      complain(error)
      return 2


def _names(arguments: argparse.Namespace) -> Classes:
  from_file = arguments.names_file is not None
  found = (
    read_names(arguments.names_file) if from_file else parse_classes(arguments.names)
  )
  for hint in hints(found.names):
    print(f'note: {hint}', file=sys.stderr)
  return found


def _locate(arguments: argparse.Namespace) -> None:
  """Fetches a model that is given by its name, once all else has been looked at."""
  accepted = arguments.accept_licence
  arguments.checkpoint = located(arguments.checkpoint, accept_licence=accepted)


def _predict(arguments: argparse.Namespace) -> int:
  """Segments all images. One that cannot be read does not stop the others."""
  check_flags(arguments)
  if arguments.rule == EACH:
    return _each(arguments)
  classes = _names(arguments)
  background = parse_background(arguments.background, classes)
  output = 'predictions' if arguments.output is None else arguments.output
  jobs = plan(
    _photos(arguments),
    output,
    scores=arguments.scores,
    panoptic=arguments.panoptic,
    heat=arguments.heat_maps,
    formats=formats(arguments, classes),
    parts=arguments.parts,
  )
  every = dict(jobs)
  masks = None if arguments.masks is None else open_masks(arguments.masks)
  _locate(arguments)
  check_writable(output, megabytes=10, option='--output=')
  settings = _settings(arguments, classes, background)
  check_kind(arguments)
  own = {} if masks is None else {path: {'masks': masks.version(path)} for path in jobs}
  keys = {path: photo_key(path, {**settings, **own.get(path, {})}) for path in jobs}
  done = [path for path in jobs if is_done(jobs[path], keys[path])]
  for path in [] if arguments.overwrite else done:
    print(
      f'{path}: skipped, its results are in {output} (--overwrite makes them again)'
    )
    del jobs[path]
  asked = classes, background
  failed = _segment(arguments, asked, jobs, keys, settings, masks) if jobs else set()
  whole = {path: outputs for path, outputs in every.items() if path not in failed}
  for path in finish(whole, output, classes.names, among=list(every)):
    print(f'written for all photos: {path}')
  if arguments.review:
    print(f'to look through: {write_review(whole, output)}')
  return 2 if failed else 0


def _each(arguments: argparse.Namespace) -> int:
  """Names every mask of all photos, and paints nothing."""
  classes = _names(arguments)
  background = parse_background(arguments.background, classes)
  output = 'predictions' if arguments.output is None else arguments.output
  jobs = plan_masks(_photos(arguments), output)
  masks = open_masks(arguments.masks)
  _locate(arguments)
  check_writable(output, megabytes=10, option='--output=')
  settings = _settings(arguments, classes, background)
  check_kind(arguments)
  keys = {p: photo_key(p, {**settings, 'masks': masks.version(p)}) for p in jobs}
  if not arguments.overwrite:
    for path in [path for path in jobs if is_named(jobs[path], keys[path])]:
      print(f'{path}: skipped, named in {jobs.pop(path)} (--overwrite does it again)')
  if not jobs:
    return 0
  segmenter = _load(arguments)
  segmenter.embed_names(classes + background, synonyms=arguments.synonyms)
  asked, failed = asking(arguments, background), False
  found = _with_masks(segmenter, list(jobs), masks)
  for path, _, picture in progressing(found, len(jobs), 'name'):
    if picture is None:
      failed = True
      continue
    result = segmenter.segment(picture, classes, **asked)
    more = {'settings': settings, 'key': keys[path]}
    tqdm.write(write_names(jobs[path], result, path, more), file=sys.stdout)
  return 2 if failed else 0


def _segment(
  arguments: argparse.Namespace,
  names: tuple[Classes, Classes],
  jobs: dict[pathlib.Path, Outputs],
  keys: dict[pathlib.Path, str],
  settings: dict[str, Any],
  masks: MaskFiles | None,
) -> set[pathlib.Path]:
  """Writes the results of photos; returns those that have none.

  Args:
    arguments: of the command.
    names: those that get labels, and those of the background.
    jobs: the files to write for each photo.
    keys: what tells the photos' results apart.
    settings: all that results depend on but the photo.
    masks: in place of proposals.
  """
  classes, background = names
  if without := undrawn(classes.names):
    print(
      f'note: no font of this machine has all letters of {without[0]!r}; pictures have '
      'boxes in their place (on Debian: apt install fonts-noto)',
      file=sys.stderr,
    )
  segmenter = _load(arguments)
  # Complains of names that are too long before the work.
  segmenter.embed_names(classes + background, synonyms=arguments.synonyms)
  asked = asking(arguments, background)
  failed = set()
  found = _encoded(segmenter, list(jobs), arguments)
  if masks is not None:
    found = _with_masks(segmenter, list(jobs), masks)
  for path, image, picture in progressing(found, len(jobs), 'segment'):
    if picture is None:
      failed.add(path)
      continue
    try:
      result = segmenter.segment(picture, classes, **asked)
      if arguments.refine is not None:
        result = result.refine(image, radius=arguments.refine)
      description = describe(result, path, settings, keys[path], jobs[path])
      if arguments.agreement:
        description['agreement'] = segmenter.agreement(image, classes, **asked)
      write(result, image, jobs[path], description)
    except UserError as error:
      complain(UserError(f'{path}: {error}'))
      failed.add(path)
      continue
    tqdm.write(report(path, result, jobs[path], description), file=sys.stdout)
  return failed


def _load(arguments: argparse.Namespace) -> Segmenter:
  tell(f'loading {arguments.checkpoint}')
  segmenter = Segmenter.load(arguments.checkpoint, **loading(arguments))
  if knows := segmenter.knows:
    print(f'note: this model knows {knows}', file=sys.stderr)
  tell('compiling for the first photo of each size, unless that was done before')
  return segmenter


def _photos(arguments: argparse.Namespace) -> list[pathlib.Path]:
  """Lists the photos, and says how many results lie among them."""
  left_out: list[pathlib.Path] = []
  photos = list(find_photos(arguments.image, left_out))
  if left_out:
    print(f'{left_out[0]} and {len(left_out) - 1} more are results, and left out')
  return photos


def _encoded(
  segmenter: Segmenter, paths: list[pathlib.Path], arguments: argparse.Namespace
) -> Iterator[tuple[pathlib.Path, np.ndarray | None, Picture | None]]:
  """Reads and encodes photos, several at once; None for those that cannot be read."""
  at_once = 1 if arguments.window else PICTURES_AT_ONCE
  overlap = {} if arguments.overlap is None else {'overlap': arguments.overlap}
  for start in range(0, len(paths), at_once):
    images = {path: read_photo(path) for path in paths[start : start + at_once]}
    good = {path: image for path, image in images.items() if image is not None}
    cut = {'window': arguments.window, **overlap}
    encoded = _encode(segmenter, good, cut)
    for path, image in images.items():
      yield path, image, encoded.get(path)


def _encode(
  segmenter: Segmenter, images: dict[pathlib.Path, np.ndarray], cut: dict[str, Any]
) -> dict[pathlib.Path, Any]:
  """Encodes photos together; says which of them cannot be, and leaves it out."""
  try:
    pictures = segmenter.encode([*images.values()], **cut) if images else []
    return dict(zip(images, pictures, strict=True))
  except UserError as error:
    if len(images) == 1:
      (path,) = images
      complain(UserError(f'{path}: {error}'))
      return {}
  alone = [_encode(segmenter, {path: image}, cut) for path, image in images.items()]
  return {path: picture for found in alone for path, picture in found.items()}


def _with_masks(
  segmenter: Segmenter, paths: list[pathlib.Path], masks: MaskFiles
) -> Iterator[tuple[pathlib.Path, np.ndarray | None, EncodedMasks | None]]:
  """Reads and encodes photos with their masks; None for what cannot be read."""
  print('note: CLIP alone names masks that are given', file=sys.stderr)
  for path in paths:
    picture = None
    if (image := read_photo(path)) is not None:
      try:
        found = masks.read(path, image.shape[:2])
        picture = segmenter.encode(image, masks=found)
      except (ValueError, FileNotFoundError) as error:
        complain(error)
    if picture is not None and (empty := int((~picture.valid).sum())):
      tqdm.write(
        f'note: {path}: {empty} of {len(picture.valid)} masks cover nothing, and get '
        'no name',
        file=sys.stderr,
      )
    yield path, image, picture


def _settings(
  arguments: argparse.Namespace, classes: Classes, background: Classes
) -> dict[str, Any]:
  """Returns all that a result depends on but the photo; None is the checkpoint's."""
  checkpoint, written = version(arguments.checkpoint)
  prompts = {}
  if arguments.prompts is not None:
    path, time = version(arguments.prompts, what='prompts')
    prompts = {'prompts': path, 'prompts_time': time}
  further = [version(located(one), what='CLIP') for one in arguments.clips or ()]
  prompts |= {'clips': further} if further else {}
  flags = ('templates', 'synonyms', 'threshold', 'rule', 'classifier', 'weight')
  return {
    'checkpoint': checkpoint,
    'checkpoint_time': written,
    **prompts,
    'classes': dict(zip(classes.names, map(list, classes.words), strict=True)),
    'background': dict(zip(background.names, map(list, background.words), strict=True)),
    **{flag: getattr(arguments, flag) for flag in flags + _SPEED},
    **{flag: x for flag in _GIVEN if (x := getattr(arguments, flag))},
  }


def _classify(arguments: argparse.Namespace) -> int:
  """Prints the probabilities for all images, as `_predict` goes on after a bad one."""
  given = vars(arguments)
  flags = ('background', 'threshold', 'rule', 'classifier', 'weight', 'output')
  flags += ('window', 'overlap', 'mode', 'dtype', 'prompts', 'masks', 'refine')
  flags += ('clips', 'clip_weights', 'propose')
  flags = [f for f in flags if given[f] is not None]
  flags += ['format'] if given['format'] is not None else []
  switches = ('scores', 'overwrite', 'panoptic', 'agreement', 'parts', 'review')
  flags += [f for f in switches if given[f]]
  if flags:
    raise UserError(
      f'--{" --".join(flags)} belong to segmentation and not to --classify; leave them '
      'out'
    )
  classes = _names(arguments)
  photos = _photos(arguments)
  _locate(arguments)
  classifier = Classifier.load(
    arguments.checkpoint,
    templates=arguments.templates,
    text_cache=arguments.text_cache,
  )
  failures = 0
  for path in progressing(photos, len(photos), 'classify'):
    if (image := read_photo(path)) is None:
      failures += 1
      continue
    shares = classifier.classify(image, classes, synonyms=arguments.synonyms)
    lines = [str(path)]
    lines += [f'  {percent(p):>7}  {name}' for name, p in list(shares.items())[:_TOP]]
    if len(shares) > _TOP:
      lines += [f'  ... and {len(shares) - _TOP} less probable names']
    tqdm.write('\n'.join(lines), file=sys.stdout)
  return 2 if failures else 0


def _report_unraisable(problem: Any) -> None:
  """Skips what Orbax's threads say after a checkpoint could not be read."""
  if 'Event loop is closed' not in str(problem.exc_value):
    sys.__unraisablehook__(problem)


if __name__ == '__main__':
  sys.unraisablehook = _report_unraisable
  sys.exit(main())
