"""What all readers of other programs' annotations give, and what they share."""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from PIL import Image

from ovs_jax.core.errors import UserError
from ovs_jax.core.types import VOID, VOID_16, Bool, Num
from ovs_jax.data.sources import Pair, Problem, SourceError
from ovs_jax.text import vocabulary

IMAGES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff')
BACKGROUND = 'background'
SPLITS = {'train': 'train', 'training': 'train', 'val': 'val', 'valid': 'val'}
SPLITS |= {'validation': 'val', 'test': 'test'}
Labels = Num[np.ndarray, 'h w']
Shape = tuple[int, Bool[np.ndarray, 'h w']]  # a class and its pixels
Read = Callable[[pathlib.Path], Labels]


@dataclasses.dataclass(frozen=True)
class Listing:
  """What another program's data set holds.

  Attributes:
    names: of the classes; the values of masks count them from 0.
    splits: pairs by split; '' has those that nobody divided. The `label` of a pair is
      what `read` takes.
    read: from the `label` of a pair to its mask.
    files: beside the photos, that the data set is made of.
  """

  names: tuple[str, ...]
  splits: Mapping[str, list[Pair]]
  read: Read
  files: tuple[pathlib.Path, ...]


def painted(
  shapes: Iterable[Shape], size: tuple[int, int], names: Sequence[str]
) -> Labels:
  """Returns a mask of shapes, the smallest in front; see the file's docstring."""
  lower = [name.lower() for name in names]
  empty = lower.index(BACKGROUND) if BACKGROUND in lower else void_of(len(names))
  labels = np.full(size, empty, dtype_of(len(names)))
  for row, mask in sorted(shapes, key=lambda x: -int(x[1].sum())):
    labels[mask] = row
  return labels


def void_of(count: int) -> int:
  """Returns the value of no class, where there are so many."""
  return VOID if count <= VOID else VOID_16


def dtype_of(count: int) -> type:
  """Returns the type of a mask of so many classes."""
  return np.uint8 if count <= VOID else np.uint16


class Finder:
  """Finds the photos that a file names, below its folder."""

  def __init__(self, root: pathlib.Path) -> None:
    self._root = root

  @functools.cached_property
  def _by_name(self) -> dict[str, list[pathlib.Path]]:
    found: dict[str, list[pathlib.Path]] = {}
    for path in shown(self._root):
      if path.suffix.lower() in IMAGES:
        found.setdefault(path.name, []).append(path)
    return found

  def __call__(self, given: str, problems: list[Problem]) -> pathlib.Path | None:
    """Returns the photo; None, and a problem, if there is none or several."""
    for path in (self._root / given, self._root / 'images' / given):
      if given and path.is_file():
        return path
    parts = pathlib.PurePosixPath(given).parts
    same = self._by_name.get(parts[-1] if parts else '', [])
    if len(same) > 1:
      same = [x for x in same if x.parts[-2:] == parts[-2:]]
    if len(same) == 1:
      return same[0]
    problems.append(Problem('missing', given or 'an image without a name'))
    return None


def shown(directory: pathlib.Path) -> list[pathlib.Path]:
  """The files below a directory, in order, without hidden ones."""
  files = (p for p in sorted(directory.rglob('*')) if p.is_file())
  return [
    p for p in files if not any(x[0] == '.' for x in p.relative_to(directory).parts)
  ]


def size_of(photo: pathlib.Path) -> tuple[int, int]:
  """Height and width of a photo that is held upright."""
  with Image.open(photo) as image:
    turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    return image.size if turned else image.size[::-1]


def id_of(photo: pathlib.Path, root: pathlib.Path) -> str:
  """Returns the name of a photo: its path, without its ending.

  As in a folder of ours it is that in `images`, so that the same photos are divided and
  shuffled in the same way whoever annotated them.
  """
  for start in (root / 'images', root):
    if photo.is_relative_to(start):
      return photo.relative_to(start).with_suffix('').as_posix()
  return photo.with_suffix('').as_posix()


def split_of(text: str) -> str:
  """The split that a name says, '' if none."""
  words = re.split(r'[^a-z]+', text.lower())
  return next((SPLITS[word] for word in words if word in SPLITS), '')


def checked(names: list[str], where: str) -> tuple[str, ...]:
  """Returns names, none of which is another one."""
  if not names:
    raise UserError(f'{where} has no names of classes')
  return vocabulary.parse_names(names)


def refuse(path: pathlib.Path, problems: Sequence[Problem]) -> None:
  """Raises SourceError with all problems, if there are some."""
  if problems:
    raise SourceError(f'{path} cannot be used', problems)
