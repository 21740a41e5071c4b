"""Masks of photos, read from the files that other tools write."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Path, local, read_json
from ovs_jax.core.images import read_image
from ovs_jax.core.mask_set import Cut, MaskSet, check_size, cut_mask, of_cuts
from ovs_jax.core.masks import read_mask
from ovs_jax.core.types import Bool
from ovs_jax.formats.polygons import filled
from ovs_jax.formats.rle import coco_mask

_FARTHEST = 1e9  # of a photo's corner, in pixels
_LAYOUTS = '{0}/*.png, {0}.png or {0}.json'


@dataclasses.dataclass(frozen=True)
class MaskFiles:
  """Where the masks of photos are.

  Attributes:
    path: a folder, or a file of COCO.
    coco: what the file holds; None of a folder. In it, there is for a photo called
      STEM.jpg a folder STEM of masks as PNG; or STEM.png, in which every value but 0 is
      a mask; or STEM.json, a list as SAM writes it.
  """

  path: pathlib.Path
  coco: 'Coco | None'

  def version(self, photo: pathlib.Path) -> list[Any]:
    """Returns what tells a photo's masks from others: files, sizes and dates."""
    paths = [self.path]
    if self.coco is None:
      folder = self.path / photo.stem
      names = (f'{photo.stem}.png', f'{photo.stem}.json')
      paths = [*map(self.path.joinpath, names), *sorted(folder.glob('*.png'))]
    found = [(path, path.stat()) for path in paths if path.exists()]
    return [[str(path), at.st_size, at.st_mtime_ns] for path, at in found]

  def read(self, photo: pathlib.Path, size: tuple[int, int]) -> MaskSet:
    """Returns the masks of a photo of some height and width.

    Raises:
      FileNotFoundError: there are none for the photo.
      UserError: they are damaged, or of another size.
    """
    if self.coco is not None:
      return self.coco.read(photo, size)
    stem = photo.stem
    folder = self.path / stem
    names = (f'{stem}.png', f'{stem}.json')
    found = [
      path for path in (folder, *map(self.path.joinpath, names)) if path.exists()
    ]
    if not found:
      raise FileNotFoundError(
        f'{self.path} has no masks of {photo}: expected {_LAYOUTS.format(stem)}'
      )
    if len(found) > 1:
      raise UserError(
        f'{found[0]} and {found[1]} both are masks of {photo}; remove one'
      )
    with _telling(found[0]):
      if found[0].is_dir():
        return of_cuts(_folder(folder, size), size)
      if found[0].suffix == '.png':
        return of_cuts(_index(found[0], size), size)
      return _photo_json(found[0], photo, size)


def open_masks(path: Path) -> MaskFiles:
  """Looks at where masks are.

  Args:
    path: a folder, or a JSON file of COCO.

  Raises:
    FileNotFoundError: there is nothing.
    UserError: a file that is no COCO.
  """
  path = local(path)
  if not path.exists():
    raise FileNotFoundError(
      f'masks {path} not found; give a folder with {_LAYOUTS.format("PHOTO")}, or a '
      'JSON file of COCO'
    )
  if path.is_dir():
    return MaskFiles(path, None)
  if path.suffix.lower() != '.json':
    raise UserError(
      f'{path} is no folder and no JSON file; give the folder that has '
      f'{_LAYOUTS.format("PHOTO")}, or a JSON file of COCO'
    )
  return MaskFiles(path, Coco(path, _json(path)))


class Coco:
  """Annotations by photo: RLE, polygons, or boxes where there is neither."""

  def __init__(self, path: pathlib.Path, stored: Any) -> None:
    """Sorts the annotations; raises UserError if these are none."""
    if not isinstance(stored, dict) or not all(
      isinstance(stored.get(key), list)
      and all(isinstance(entry, dict) for entry in stored[key])
      for key in ('images', 'annotations')
    ):
      raise UserError(
        f'{path} has no lists "images" and "annotations"; give a file of COCO, or for '
        'lists of SAM the folder that has one PHOTO.json for each photo'
      )
    self._path, self._images = path, stored['images']
    self._annotations: dict[Any, list[Mapping[str, Any]]] = {}
    for annotation in stored['annotations']:
      self._annotations.setdefault(str(annotation.get('image_id')), []).append(
        annotation
      )

  def read(self, photo: pathlib.Path, size: tuple[int, int]) -> MaskSet:
    """Returns the masks of a photo, which is found by its file name."""
    image = self._image(photo)
    with _telling(self._path):
      if 'height' in image and 'width' in image:
        check_size(
          (image['height'], image['width']), size, f'the image of {photo.name}'
        )
      found = self._annotations.get(str(image.get('id')), [])
      return of_cuts(_annotations(found, size), size)

  def _image(self, photo: pathlib.Path) -> Mapping[str, Any]:
    named = [
      (pathlib.PurePosixPath(str(image.get('file_name', ''))), image)
      for image in self._images
    ]
    same = [(path, image) for path, image in named if path.name == photo.name]
    if not same:
      raise UserError(
        f'{self._path} has no image with the file_name {photo.name}; add it, or leave '
        'the photo out'
      )
    if len(same) > 1:  # of several folders: that of the photo
      whole = photo.absolute().parts
      same = [(p, i) for p, i in same if whole[-len(p.parts) :] == p.parts]
    if len(same) != 1:
      raise UserError(
        f'{self._path} has several images {photo.name}; give them the file_name that '
        'tells their folders, too'
      )
    return same[0][1]


def _photo_json(
  path: pathlib.Path, photo: pathlib.Path, size: tuple[int, int]
) -> MaskSet:
  """Reads a list of SAM, as its code writes it or its data set; or COCO."""
  stored = _json(path)
  if isinstance(stored, dict) and 'images' in stored:
    return Coco(path, stored).read(photo, size)
  entries = stored.get('annotations') if isinstance(stored, dict) else stored
  if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
    raise UserError('it holds no list of masks with "segmentation"; give one, as SAM')
  return of_cuts(_annotations(entries, size), size)


def _annotations(
  entries: Sequence[Mapping[str, Any]], size: tuple[int, int]
) -> Iterator[Cut]:
  for i, entry in enumerate(entries):
    source = entry.get('id', i)
    source = source if isinstance(source, (int, str)) else str(source)
    with _telling(f'annotation {source}'):
      cut = cut_mask(annotation_mask(entry, size), source)
    yield cut


def annotation_mask(
  entry: Mapping[str, Any], size: tuple[int, int]
) -> Bool[np.ndarray, 'h w']:
  """Returns the mask of an annotation of COCO: runs, polygons, or its box.

  Raises:
    UserError: it has none of them, or of another size.
  """
  shape = entry.get('segmentation')
  if isinstance(shape, dict):
    stated, counts = shape.get('size'), shape.get('counts')
    if not isinstance(stated, list) or not isinstance(counts, (str, list)):
      raise UserError('its RLE lacks "size" or "counts"; give both')
    check_size(stated, size, 'the mask')
    return coco_mask(counts, size)
  if isinstance(shape, list) and shape:
    found = np.zeros(size, bool)
    for polygon in shape if isinstance(shape[0], list) else [shape]:
      numbers = _numbers(polygon, 'polygon')
      if len(numbers) < 6 or len(numbers) % 2:
        raise UserError(
          f'its polygon has {len(numbers)} numbers; give x and y of 3 points or more'
        )
      found |= filled(numbers.reshape(-1, 2), size)
    return found
  if shape is None or shape == []:
    return _boxed(entry.get('bbox'), size)
  raise UserError('its segmentation is no RLE and no polygon; give one of these')


def _boxed(box: Any, size: tuple[int, int]) -> Bool[np.ndarray, 'h w']:
  """Returns the pixels whose centres lie in a box x, y, width, height."""
  numbers = _numbers(box, 'bbox')
  if len(numbers) != 4:
    raise UserError('it has no segmentation, and no bbox of x, y, width and height')
  x, y, width, height = numbers
  rows, columns = (np.arange(length) + 0.5 for length in size)
  across = (columns >= x) & (columns < x + width)
  down = (rows >= y) & (rows < y + height)
  return down[:, None] & across[None]


def _numbers(values: Any, what: str) -> np.ndarray:
  values = [] if values is None else values
  good = isinstance(values, list) and all(
    isinstance(x, (int, float)) and -_FARTHEST < x < _FARTHEST for x in values
  )
  if not good:
    raise UserError(f'its {what} has values that are no numbers; give pixels')
  return np.array(values, np.float64)


def _folder(folder: pathlib.Path, size: tuple[int, int]) -> Iterator[Cut]:
  for path in sorted(folder.glob('*.png')):
    mask = read_mask(path)
    check_size(mask.shape, size, path.name)
    yield cut_mask(mask, path.name)


def _index(path: pathlib.Path, size: tuple[int, int]) -> Iterator[Cut]:
  """Cuts an index PNG, in a time that does not depend on the number of its masks."""
  read_image(path)  # says what is wrong with it
  with Image.open(path) as image:
    values = np.asarray(image)
  if values.ndim != 2:
    raise UserError(
      f'it is a picture with {values.shape[2]} channels, and no index; give a grey one '
      'or one with a palette'
    )
  check_size(values.shape, size, 'it')
  flat = values.ravel().astype(np.int64)
  order = np.argsort(flat, kind='stable')
  edges = np.flatnonzero(np.diff(flat[order])) + 1
  for pixels in np.split(order, edges):
    if value := int(flat[pixels[0]]):
      y, x = np.divmod(pixels, size[1])
      top, left = int(y.min()), int(x.min())
      mask = np.zeros((int(y.max()) + 1 - top, int(x.max()) + 1 - left), bool)
      mask[y - top, x - left] = True
      yield Cut(top, left, mask, value)


def _json(path: pathlib.Path) -> Any:
  try:
    return read_json(path)
  except ValueError as error:
    raise UserError(f'{path} is no JSON in UTF-8; write it again') from error


@contextlib.contextmanager
def _telling(where: Any) -> Iterator[None]:
  """Says where it was that something was wrong."""
  try:
    yield
  except UserError as error:
    if str(error).startswith(str(where)):
      raise
    raise UserError(f'{where}: {error}') from error
