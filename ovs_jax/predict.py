"""Segments photos by the names you give, on the command line.

    python -m ovs_jax.predict --checkpoint=DIR --image=photo.jpg \\
      --names="red ball, grass"

For each photo it writes `<photo>_labels.png`, an index into the names for every pixel
(255 where there is none), and `<photo>_overlay.png`, the same to look at; and it prints
how much of the picture each name has.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from ovs_jax.core.files import atomic_path, check_writable
from ovs_jax.core.images import read_image
from ovs_jax.core.runlog import progress
from ovs_jax.core.types import UInt8
from ovs_jax.ops.ensemble import CLASSIFIERS
from ovs_jax.ops.overlay import palette, percent
from ovs_jax.segmenter import Segmentation, Segmenter
from ovs_jax.text.templates import TEMPLATES
from ovs_jax.text.vocabulary import parse_names

Outputs = tuple[pathlib.Path, pathlib.Path]


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns 0, or 2 after a mistake, which it explains."""
  arguments = _parser().parse_args(argv)
  sys.stdout.reconfigure(errors='backslashreplace')  # names in any script
  try:
    return _predict(arguments)
  except (ValueError, OSError) as error:
    _complain(error)
    return 2


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m ovs_jax.predict',
    description='Segments photos by the names you give.',
  )
  parser.add_argument(
    '--checkpoint', required=True, metavar='DIR', help='directory of an OVSeg model'
  )
  parser.add_argument(
    '--image',
    required=True,
    nargs='+',
    action='extend',
    metavar='FILE',
    help='photos, such as JPEG or PNG files',
  )
  parser.add_argument(
    '--names',
    required=True,
    help='what to look for, separated by commas: "red ball, grass"; everything else '
    'goes to the closest of them, so name the background as well',
  )
  parser.add_argument(
    '--output',
    default='predictions',
    metavar='DIR',
    help='where results are written (default: %(default)s)',
  )
  parser.add_argument(
    '--classifier',
    choices=CLASSIFIERS,
    help="who names the proposals (default: the checkpoint's)",
  )
  parser.add_argument(
    '--weight',
    type=float,
    help="of CLIP in the ensemble, 0..1 (default: the checkpoint's)",
  )
  parser.add_argument(
    '--templates',
    choices=TEMPLATES,
    help="sentences that names are put into (default: the checkpoint's)",
  )
  return parser


def _predict(arguments: argparse.Namespace) -> int:
  """Segments all images. One that cannot be read does not stop the others."""
  names = parse_names(arguments.names)
  jobs = _plan(arguments.image, pathlib.Path(arguments.output))
  try:
    check_writable(arguments.output, megabytes=10)
  except OSError as error:
    raise OSError(str(error).replace('--workdir=', '--output=')) from error
  segmenter = Segmenter.load(
    arguments.checkpoint,
    classifier=arguments.classifier,
    weight=arguments.weight,
    templates=arguments.templates,
  )
  segmenter.embed_names(names)  # complains of names that are too long before the work
  images = list(jobs)
  if len(images) > 1 and sys.stderr.isatty():  # a log has the reports instead
    images = progress(images, total=len(images), title='segment', unit='image')
  failures = 0
  for path in images:
    try:
      image = read_image(path)
    except (ValueError, FileNotFoundError) as error:
      _complain(error)
      failures += 1
      continue
    segmentation = segmenter.segment(segmenter.encode(image), names)
    _write(segmentation, image, jobs[path])
    tqdm.write(_report(path, segmentation, jobs[path]), file=sys.stdout)
  return 2 if failures else 0


def _plan(images: Sequence[str], output: pathlib.Path) -> dict[pathlib.Path, Outputs]:
  """Returns the files to write for each image.

  Raises:
    ValueError: two images would be written to the same file, or over an image.
  """
  jobs: dict[pathlib.Path, Outputs] = {}
  sources: dict[pathlib.Path, pathlib.Path] = {}
  for path in dict.fromkeys(pathlib.Path(image) for image in images):
    jobs[path] = (
      output / f'{path.stem}_labels.png',
      output / f'{path.stem}_overlay.png',
    )
    other = sources.setdefault(jobs[path][0], path)
    if other != path:
      raise ValueError(
        f'{other} and {path} would both be written to {jobs[path][0]}; rename one, or '
        'run them with different --output= directories'
      )
  inputs = {path.resolve() for path in jobs}
  for path, outputs in jobs.items():
    for target in outputs:
      if target.resolve() in inputs:
        raise ValueError(
          f'the result of {path} would replace the image {target}; choose another '
          '--output='
        )
  return jobs


def _write(
  segmentation: Segmentation, image: UInt8[np.ndarray, 'h w 3'], outputs: Outputs
) -> None:
  """Writes label map and overlay, both or none."""
  labels = label_image(segmentation)
  overlay = segmentation.overlay(image)
  try:
    with atomic_path(outputs[0]) as first, atomic_path(outputs[1]) as second:
      labels.save(first)
      overlay.save(second)
  except OSError as error:
    raise OSError(
      f'cannot write {outputs[0]} and {outputs[1].name} ({error.strerror or error}); '
      'free some space or choose another --output='
    ) from error


def label_image(segmentation: Segmentation) -> Image.Image:
  """Returns the labels as an image of 8 bits with colours, in which 255 is no name.

  For more than 255 names it has 16 bits and no colours, and 65535 is no name.
  """
  count = len(segmentation.names)
  if count > 255:
    labels = np.where(segmentation.labels < 0, 65535, segmentation.labels)
    return Image.fromarray(labels.astype(np.uint16))
  labels = np.where(segmentation.labels < 0, 255, segmentation.labels)
  image = Image.fromarray(labels.astype(np.uint8))
  colours = np.zeros((256, 3), np.uint8)
  colours[:count] = palette(count)
  image.putpalette(colours.tobytes())
  return image


def _report(path: pathlib.Path, segmentation: Segmentation, outputs: Outputs) -> str:
  """Lists label, name and share, largest first."""
  h, w = segmentation.labels.shape
  shares = segmentation.shares()
  rows = [(str(k), name, shares[name]) for k, name in enumerate(segmentation.names)]
  rows.sort(key=lambda row: -row[2])
  if (rest := 1 - sum(shares.values())) > 1e-9:
    rows.append(('-', '(no name)', rest))
  width = max(4, *(len(name) for _, name, _ in rows))
  lines = [f'{path} ({w} x {h} pixels)', f'  label  {"name":<{width}}    share']
  lines += [f'  {k:>5}  {name:<{width}}  {percent(x):>7}' for k, name, x in rows]
  lines += [f'  labels:  {outputs[0]}', f'  overlay: {outputs[1]}']
  return '\n'.join(lines)


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
