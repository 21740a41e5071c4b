"""Reading images and label files as published, and naming what is wrong.

Nothing here stops at the first bad file: problems are returned beside the result, so
that one run can list them all.
"""

import collections
import dataclasses
import functools
import io
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageOps

from ovs_jax.core.errors import UserError
from ovs_jax.core.images import UNREADABLE, nearest, to_rgb
from ovs_jax.core.types import Num, UInt8
from ovs_jax.data import encoded
from ovs_jax.data.class_table import Applied, ClassTable, Labels, count_values

T, R = TypeVar('T'), TypeVar('R')

_ORIENTATION = 0x0112  # EXIF: how the camera was held
_LYING = (5, 6, 7, 8)  # of its values, on one of its sides
_ANTIALIASED = Image.Resampling.BILINEAR  # Pillow's, which is
_QUALITY = 95  # of JPEGs that are made smaller
_SHOWN = 8  # problems per kind in a message


@dataclasses.dataclass(frozen=True, order=True)
class Problem:
  """Something wrong with a source directory.

  Attributes:
    kind: 'missing', 'unreadable', 'wrong size', 'unknown label value', 'wrong count' or
      'wrong text'.
    what: the file, relative to the source, and what was found in it.
  """

  kind: str
  what: str


class SourceError(UserError):
  """A source directory that cannot be used, with everything that is wrong with it."""

  def __init__(self, title: str, problems: Iterable[Problem]) -> None:
    """Takes what was being done and all problems, in any order."""
    self.problems = tuple(sorted(set(problems)))
    super().__init__(f'{title}: {_summary(self.problems)}')

  def listing(self) -> str:
    """Returns all problems, a line each, uncut."""
    return ''.join(f'{p.kind}: {p.what}\n' for p in self.problems)


def _summary(problems: Sequence[Problem]) -> str:
  counts = collections.Counter(problem.kind for problem in problems)
  plural = '' if len(problems) == 1 else 's'
  lines = [
    f'{len(problems)} problem{plural} '
    f'({", ".join(f"{n} {kind}" for kind, n in counts.items())})'
  ]
  for kind, number in counts.items():
    found = [problem.what for problem in problems if problem.kind == kind]
    lines += [f'{kind}: {what}' for what in found[:_SHOWN]]
    if number > _SHOWN:
      lines.append(f'{kind}: ... and {number - _SHOWN} more, {number} in total')
  return '\n  '.join(lines)


@dataclasses.dataclass(frozen=True)
class Pair:
  """The files of one example.

  Attributes:
    image_id: name of the example, unique in its split.
    image: the photograph.
    label: its label map, or None if the data set has none.
    captions: sentences about the image.
  """

  image_id: str
  image: pathlib.Path
  label: pathlib.Path | None = None
  captions: tuple[str, ...] = ()

  def missing(self) -> list[pathlib.Path]:
    """Returns the files that are not there."""
    files = [self.image] if self.label is None else [self.image, self.label]
    return [path for path in files if not path.is_file()]


def name_below(directory: pathlib.Path, path: pathlib.Path) -> str:
  """Returns a path from a directory on, all of it where it lies elsewhere."""
  inside = path.is_relative_to(directory)
  return (path.relative_to(directory) if inside else path).as_posix()


def read_image(
  path: pathlib.Path, *, turn: bool = False, longest: int = 0
) -> tuple[bytes, int, int]:
  """Reads and checks an image: its bytes as they are to be stored, height and width.

  Whole 8-bit RGB and grey JPEGs and PNGs are stored as they are, and JPEGs that have to
  be turned as JPEGs of the same quality; others become PNGs of what
  `core.images.read_image` makes of them. What is made smaller becomes a JPEG.

  Args:
    path: the file.
    turn: apply the orientation that a camera noted. The benchmarks' label maps lie on
      the pixels as they are stored.
    longest: that the longer side is made, if it is longer; 0: as it is.

  Returns:
    The bytes; and the size of the image as it was, after turning.
  """
  content = path.read_bytes()
  with Image.open(io.BytesIO(content)) as image:
    orientation = image.getexif().get(_ORIENTATION, 1) if turn else 1
    turned, sides = orientation != 1, image.size
    small = smaller(*sides, longest)
    plain = image.mode in ('RGB', 'L') and 'transparency' not in image.info
    if image.format in encoded.KEPT and plain and not turned and small == sides:
      encoded.load(image, content)  # a file that is cut off must not pass
      return content, sides[1], sides[0]
    if small != sides:
      image.draft('RGB', small)  # a JPEG is decoded to little more than that
    image.load()
    array = to_rgb(ImageOps.exif_transpose(image) if turned else image)
    again = None
    if turned and small == sides:
      again = encoded.turned_jpeg(image, array, lying=orientation in _LYING)
  w, h = sides[::-1] if orientation in _LYING else sides
  if small == sides:
    return again or encode_png(array), h, w
  photo = Image.fromarray(array).resize(smaller(w, h, longest), _ANTIALIASED)
  return encode_jpeg(np.asarray(photo), quality=_QUALITY), h, w


def smaller(width: int, height: int, longest: int) -> tuple[int, int]:
  """Returns a size whose longer side is at most `longest`, if that is not 0."""
  longer = max(width, height)
  if not longest or longer <= longest:
    return width, height
  scale = longest / longer
  return max(round(width * scale), 1), max(round(height * scale), 1)


def read_values(path: pathlib.Path) -> Labels:
  """Reads pixel values of a grey, palette or 1-bit PNG (or other lossless image)."""
  with Image.open(path) as image:
    if image.format == 'JPEG':
      raise UserError('is a JPEG, which blurs labels; expected a PNG')
    if image.mode not in ('1', 'L', 'P', 'I;16', 'I'):
      raise UserError(f'has mode {image.mode}; expected one grey or palette channel')
    values = np.asarray(image.convert('L') if image.mode == '1' else image)
  if image.mode == '1':
    values = (values > 0).astype(np.uint8)
  if values.dtype != np.uint8 and (values.min() < 0 or values.max() >= 2**16):
    raise UserError(f'holds {values.min()}..{values.max()}; expected 8 or 16 bits')
  return values


def read_ade_full(path: pathlib.Path) -> Labels:
  """Reads object ids from red and green of an ADE20K `_seg.png`."""
  with Image.open(path) as image:
    if image.mode != 'RGB':
      raise UserError(f'has mode {image.mode}; expected RGB')
    colours = np.asarray(image)
  return colours[..., 0].astype(np.uint16) // 10 * 256 + colours[..., 1]


def read_context(path: pathlib.Path) -> Labels:
  """Reads `LabelMap` of a Pascal Context .mat file."""
  import scipy.io  # slow to import; comes with JAX

  content = scipy.io.loadmat(path, variable_names=['LabelMap'])
  if 'LabelMap' not in content:
    raise UserError('has no variable LabelMap')
  values = np.asarray(content['LabelMap'])
  if values.ndim != 2 or values.dtype.kind not in 'ui':
    raise UserError(f'has a LabelMap of shape {values.shape} and type {values.dtype}')
  return values


def encode_png(array: Num[np.ndarray, 'h w ...']) -> bytes:
  """Returns a PNG of RGB (uint8) or labels (uint8 or uint16)."""
  buffer = io.BytesIO()
  Image.fromarray(array).save(buffer, 'png')
  return buffer.getvalue()


def label_png(example: Mapping[str, Any]) -> bytes:
  """Returns the PNG of a reader's labels: the file, if that says the same."""
  if 'as_it_came' in example:
    content = example['as_it_came'].read_bytes()
    if encoded.is_whole_grey_png(content):
      return content
  return encode_png(example['label'])


def encode_jpeg(array: UInt8[np.ndarray, 'h w 3'], *, quality: int = 75) -> bytes:
  """Returns a JPEG; the reference preparation writes Pillow's default quality."""
  buffer = io.BytesIO()
  Image.fromarray(array).save(buffer, 'jpeg', quality=quality)
  return buffer.getvalue()


@dataclasses.dataclass(frozen=True)
class Reader:
  """Reads pairs into examples.

  `label` of an example has train ids and `counts` the pixels of each; `as_it_came` is
  the file that has the same labels, if one does.

  Attributes:
    source: directory that problems are named relative to.
    read_label: from a label file to its values.
    table: from values to train ids.
    turn: whether the orientation that a camera noted is applied to images.
    shrink: from encoded image and labels to smaller ones, or None to leave them.
    longest: that the longer side of both is made, if it is longer; 0: as it is.
  """

  source: pathlib.Path
  read_label: Callable[[pathlib.Path], Labels] | None
  table: ClassTable | None
  turn: bool = False
  shrink: Callable[[bytes, Labels], tuple[bytes, Labels]] | None = None
  longest: int = 0

  def __call__(self, pair: Pair) -> tuple[dict[str, Any] | None, list[Problem]]:
    """Returns the example, or None and what is wrong with its files."""
    problems: list[Problem] = []
    read = functools.partial(read_image, turn=self.turn, longest=self.longest)
    image = self._attempt(read, pair.image, problems)
    example = {'image_id': pair.image_id, 'captions': list(pair.captions)}
    if image is not None:
      example['image'] = image[0]
    if pair.label is not None and self.read_label and self.table:
      values = self._attempt(self.read_label, pair.label, problems)
      if values is not None:
        size = image[1:] if image else None
        found = self._train_ids(self.name(pair.label), values, size, problems)
        label = found.train_ids
        if self.shrink and image is not None and not problems:
          example['image'], label = self.shrink(image[0], label)
        width, height = smaller(*label.shape[::-1], self.longest)
        if (height, width) != label.shape:
          label = nearest(label, (height, width))
        example['label'], example['counts'] = label, found.counts
        if label is not found.train_ids:
          example['counts'] = count_values(label, len(found.counts))
        if label is values and self.read_label is read_values:
          example['as_it_came'] = pair.label
    return (None if problems else example), problems

  def _train_ids(
    self,
    name: str,
    values: Labels,
    size: tuple[int, int] | None,
    problems: list[Problem],
  ) -> Applied:
    if size is not None and values.shape != size:
      (h, w), (height, width) = values.shape, size
      what = f'{name} is {w}x{h}, its image {width}x{height}'
      problems.append(Problem('wrong size', what))
    found = self.table.apply(values)
    if unknown := found.unknown:
      shown = ', '.join(str(v) for v in unknown[:_SHOWN])
      more = f' and {len(unknown) - _SHOWN} more' if len(unknown) > _SHOWN else ''
      problems.append(Problem('unknown label value', f'{name} holds {shown}{more}'))
    return found

  def _attempt(
    self,
    read: Callable[[pathlib.Path], R],
    path: pathlib.Path,
    problems: list[Problem],
  ) -> R | None:
    try:
      return read(path)
    except FileNotFoundError:
      problems.append(Problem('missing', self.name(path)))
    except (*UNREADABLE, Image.DecompressionBombError) as error:
      reason = (str(error).splitlines() or [type(error).__name__])[0]
      if isinstance(error, Image.UnidentifiedImageError):
        reason = 'no known image format'
      if not path.stat().st_size:
        reason = 'the file is empty'
      problems.append(Problem('unreadable', f'{self.name(path)} ({reason})'))
    return None

  def name(self, path: pathlib.Path) -> str:
    """Returns a path as messages show it."""
    return name_below(self.source, path)


def ordered_map(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
  """Maps in threads (Pillow and zlib run in parallel), results in order."""
  workers = os.cpu_count() or 1
  waiting: collections.deque[futures.Future[R]] = collections.deque()
  with futures.ThreadPoolExecutor(workers) as pool:
    for item in items:
      waiting.append(pool.submit(function, item))
      if len(waiting) > 4 * workers:
        yield waiting.popleft().result()
    while waiting:
      yield waiting.popleft().result()
