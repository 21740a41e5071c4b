"""The files that hold a segmentation, and when they need not be made again."""

import contextlib
import dataclasses
import errno
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import (
  Path,
  Place,
  atomic_path,
  fingerprint,
  place,
  read_json,
  real,
  strict_json,
)
from ovs_jax.core.types import VOID, VOID_16, UInt8
from ovs_jax.formats import Format, run
from ovs_jax.formats.found import Entry
from ovs_jax.inference import overlays
from ovs_jax.inference.heat_maps import heat_sheet
from ovs_jax.inference.result import Segmentation
from ovs_jax.inference.score_file import write_scores
from ovs_jax.inference.stems import record_of, stems
from ovs_jax.ops.colours import palette
from ovs_jax.ops.overlay import percent

_VERSION = 3  # of what the files hold; those of another one are made again
_MOST_ABSENT = 50  # names that are listed although they do not occur


@dataclasses.dataclass(frozen=True)
class Outputs:
  """Where the results of one photo go.

  Attributes:
    labels: PNG of 8 bits, an index into the names for every pixel; 255 is none.
    overlay: PNG to look at, or JPEG of a large photo.
    segments: JSON with names, shares, scores and boxes; written last, so it marks the
      others as whole.
    scores: npz of confidences, scores and proposals; None if it is not wanted.
    panoptic: PNG of 16 bits, the id of every pixel's segment; None if not wanted.
    panoptic_overlay: the same to look at.
    heat: npz, the names' heat maps; None if they are not wanted.
    heat_sheet: PNG to look at them.
    stem: by which all files are called.
    formats: the formats that are wanted too.
    parts: whether COCO is to have connected parts.
    more: the files of these formats.
  """

  labels: Place
  overlay: Place
  segments: Place
  scores: Place | None
  panoptic: Place | None = None
  panoptic_overlay: Place | None = None
  heat: Place | None = None
  heat_sheet: Place | None = None
  stem: str = ''
  formats: tuple[Format, ...] = ()
  parts: bool = False
  more: tuple[Place, ...] = ()

  def files(self) -> list[Place]:
    """Returns those that are wanted."""
    every = [self.labels, self.overlay, self.segments, self.scores, self.panoptic]
    every += [self.panoptic_overlay, self.heat, self.heat_sheet, *self.more]
    return [path for path in every if path is not None]


def plan(
  photos: Sequence[pathlib.Path],
  output: Path,
  *,
  scores: bool,
  panoptic: bool = False,
  heat: bool = False,
  formats: tuple[Format, ...] = (),
  parts: bool = False,
) -> dict[pathlib.Path, Outputs]:
  """Returns the files to write for each photo.

  Args:
    photos: to segment.
    output: directory of the results.
    scores: whether the scores are wanted.
    panoptic: whether segments with ids are.
    heat: whether heat maps are.
    formats: what else is wanted.
    parts: whether COCO is to have connected parts.

  Raises:
    ValueError: two photos would be written to the same file, or over a photo.
  """
  output = place(output)
  jobs = {}
  for photo, stem in stems(photos, output).items():
    path, view = output / stem, overlays.suffix_of(photo)
    more = [output / f.name / p for f in formats for p in f.paths(photo, stem)]
    jobs[photo] = Outputs(
      labels=_beside(path, 'labels.png'),
      overlay=_beside(path, f'overlay.{view}'),
      segments=record_of(output, stem),
      scores=_beside(path, 'scores.npz') if scores else None,
      panoptic=_beside(path, 'panoptic.png') if panoptic else None,
      panoptic_overlay=_beside(path, f'panoptic_overlay.{view}') if panoptic else None,
      heat=_beside(path, 'heat.npz') if heat else None,
      heat_sheet=_beside(path, 'heat.png') if heat else None,
      stem=stem,
      formats=formats,
      parts=parts,
      more=tuple(more),
    )
  inputs = {real(path) for path in jobs}
  for path, outputs in jobs.items():
    for target in outputs.files():
      if real(target) in inputs:
        raise UserError(
          f'the result of {path} would replace the image {target}; choose another '
          '--output='
        )
  return jobs


def _beside(path: Place, what: str) -> Place:
  return path.with_name(f'{path.name}_{what}')


def photo_key(path: pathlib.Path, settings: Mapping[str, Any]) -> str:
  """Returns what tells results apart: the settings, and the photo's size and date."""
  try:
    status = path.stat()
  except OSError:
    return 'unreadable'  # reading the photo says why
  return fingerprint(
    [_VERSION, settings, str(path), status.st_size, status.st_mtime_ns]
  )


def is_done(outputs: Outputs, key: str) -> bool:
  """Returns whether all files are there and were made from what `key` stands for."""
  if not all(path.is_file() for path in outputs.files()):
    return False
  try:
    stored = read_json(outputs.segments)
  except (ValueError, OSError):
    return False
  if not (isinstance(stored, dict) and stored.get('key') == key):
    return False
  kept = stored.get('formats', {})
  wanted = [f.name for f in outputs.formats if f.keeps]
  return all(f in kept for f in wanted) and (
    'coco' not in wanted or stored.get('parts') == outputs.parts
  )


def finish(
  jobs: Mapping[pathlib.Path, Outputs],
  output: Path,
  names: Sequence[str],
  *,
  among: Sequence[pathlib.Path],
) -> list[Place]:
  """Writes the files that formats have for a whole run; returns them.

  Args:
    jobs: photos whose results are there, those of earlier runs too.
    output: directory of the results.
    names: that were asked for.
    among: the photos by whose common folder all are called, those that failed too.
  """
  formats = next((outputs.formats for outputs in jobs.values()), ())
  called = run.file_names(among)
  made = []
  for one in formats:
    entries = []
    for photo, outputs in jobs.items():
      size = read_json(outputs.segments)
      load = functools.partial(_record, outputs.segments, one.name)
      shape = size['height'], size['width']
      entries.append(Entry(photo, called[photo], outputs.stem, shape, load))
    made += run.finish([one], place(output), entries, names)
  return made


def _record(path: Place, name: str) -> Any:
  return read_json(path)['formats'][name]


def describe(
  segmentation: Segmentation,
  path: pathlib.Path,
  settings: Mapping[str, Any],
  key: str,
  outputs: Outputs | None = None,
) -> dict[str, Any]:
  """Returns what the JSON file holds.

  `segments` has an entry per name that occurs, largest first: its label, name, share
  of the picture (0..1), mean score, confidence (0..1) and margin to the second name of
  its pixels, and box (x0, y0, x1, y1 in pixels, exclusive ends). `skipped` is the share
  of crops that CLIP did not have to see. With a panoptic result, `panoptic` says
  whether things and stuff were trained, and has an entry per segment: id, label, name,
  score, confidence, area in pixels, box. `formats` has what the files of the run are
  made of.
  """
  height, width = segmentation.labels.shape
  segments = [dataclasses.asdict(s) for s in segmentation.segments()]
  more = {}
  if outputs is not None and outputs.formats:
    found = segmentation.found(path, outputs.stem)
    more['formats'] = run.records(outputs.formats, found, parts=outputs.parts)
    more['parts'] = outputs.parts
  if segmentation.panoptic is not None:
    more['panoptic'] = {
      'trained': segmentation.panoptic.trained,
      'segments': [dataclasses.asdict(s) for s in segmentation.panoptic.segments],
    }
  return {
    'image': str(path),
    'height': height,
    'width': width,
    'names': list(segmentation.names),
    'no_name': float((segmentation.labels < 0).mean()),
    'segments': segments,
    'skipped': segmentation.skipped,
    **more,
    'settings': dict(settings),
    'key': key,
  }


def write(
  segmentation: Segmentation,
  image: UInt8[np.ndarray, 'h w 3'],
  outputs: Outputs,
  description: Mapping[str, Any],
) -> None:
  """Writes all files, each whole or not at all; none if one cannot be written.

  The npz is that of `score_file`. That of heat maps has `heat` (k, y, x) in half
  precision, at the network's resolution, and `names`.
  """
  labels = label_image(segmentation)
  overlay = segmentation.overlay(image)
  output = outputs.segments.parent
  found = segmentation.found(description['image'], outputs.stem, output)
  more = run.contents(outputs.formats, found, output)
  try:
    with contextlib.ExitStack() as stack:
      # The last to enter is renamed first: the description comes last.
      text = stack.enter_context(atomic_path(outputs.segments))
      text.write_text(strict_json(description, indent=2) + '\n', encoding='utf-8')
      if outputs.scores is not None:
        write_scores(stack.enter_context(atomic_path(outputs.scores)), segmentation)
      if outputs.panoptic is not None:
        ids = Image.fromarray(segmentation.panoptic.ids.astype(np.uint16))
        ids.save(stack.enter_context(atomic_path(outputs.panoptic)))
        view = overlays.draw_panoptic(image, segmentation.panoptic, segmentation.names)
        path = stack.enter_context(atomic_path(outputs.panoptic_overlay))
        overlays.save(view, path)
      if outputs.heat is not None:
        arrays = {'heat': segmentation.heat, 'names': np.array(segmentation.names)}
        np.savez_compressed(stack.enter_context(atomic_path(outputs.heat)), **arrays)
        sheet = heat_sheet(segmentation, image)
        sheet.save(stack.enter_context(atomic_path(outputs.heat_sheet)))
      run.write_into(stack, more)
      overlays.save(overlay, stack.enter_context(atomic_path(outputs.overlay)))
      labels.save(stack.enter_context(atomic_path(outputs.labels)))
    run.mark(outputs.formats, output)
  except OSError as error:
    if error.errno == errno.ENAMETOOLONG:  # of this photo alone
      raise UserError(
        'its name is too long for those of its results; give it a shorter one'
      ) from error
    files = ', '.join(path.name for path in outputs.files())
    raise OSError(
      f'cannot write {files} to {outputs.labels.parent} ({error.strerror or error}); '
      'free some space or choose another --output='
    ) from error


def label_image(segmentation: Segmentation) -> Image.Image:
  """Returns the labels as an image of 8 bits with colours, in which 255 is no name.

  For more than 255 names it has 16 bits and no colours, and 65535 is no name.
  """
  count = len(segmentation.names)
  if count > VOID:
    labels = np.where(segmentation.labels < 0, VOID_16, segmentation.labels)
    return Image.fromarray(labels.astype(np.uint16))
  labels = np.where(segmentation.labels < 0, VOID, segmentation.labels)
  image = Image.fromarray(labels.astype(np.uint8))
  colours = np.zeros((256, 3), np.uint8)
  colours[:count] = palette(count)
  image.putpalette(colours.tobytes())
  return image


def report(
  path: pathlib.Path,
  segmentation: Segmentation,
  outputs: Outputs,
  description: Mapping[str, Any],
) -> str:
  """Lists label, name and share, largest first, and the files.

  Names that do not occur are counted if there are many.
  """
  h, w = segmentation.labels.shape
  shares = segmentation.shares()
  rows = [(str(k), name, shares[name]) for k, name in enumerate(segmentation.names)]
  rows.sort(key=lambda row: -row[2])
  absent = sum(row[2] == 0 for row in rows)
  if absent > _MOST_ABSENT:
    rows = [row for row in rows if row[2] > 0]
  if (rest := 1 - sum(shares.values())) > 1e-9:
    rows.append(('-', '(no name)', rest))
  width = max([4, *(len(name) for _, name, _ in rows)])
  lines = [f'{path} ({w} x {h} pixels)', f'  label  {"name":<{width}}    share']
  lines += [f'  {k:>5}  {name:<{width}}  {percent(x):>7}' for k, name, x in rows]
  if absent > _MOST_ABSENT:
    lines.append(f'  ... and {absent} names that were not found')
  if segmentation.skipped:
    lines.append(f'  crops that CLIP did not see: {percent(segmentation.skipped)}')
  if 'agreement' in description:
    lines.append(f'  agreement with exact labels: {percent(description["agreement"])}')
  lines += [f'  {"labels:":<9} {outputs.labels}', f'  overlay:  {outputs.overlay}']
  lines += [f'  segments: {outputs.segments}']
  if outputs.scores is not None:
    lines += [f'  scores:   {outputs.scores}']
  if outputs.panoptic is not None:
    lines += [f'  panoptic: {outputs.panoptic}']
    lines += [f'  to look at: {outputs.panoptic_overlay}']
  if outputs.heat is not None:
    lines += [f'  heat:     {outputs.heat}']
  for made in outputs.more:
    what = made.relative_to(outputs.segments.parent).parts[0] + ':'
    lines.append(f'  {what:<9} {made}')
  return '\n'.join(lines)
