"""Label maps that any system saved, so that all are scored by the same evaluator.

DIR/IMAGE_ID.png, .tif, .tiff or .npy, one channel, values are train ids of the data
set's class list; 255 (8 bits) or 65535 (16 bits), where they are no class, and negative
numbers mean that a pixel got no class, which is wrong everywhere. With several data
sets each has the directory DIR/DATASET. DIR/names.txt, a class name per line, proves
that the ids mean what the data set says.
"""

import hashlib
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Path, Place, atomic_path, local, write_text
from ovs_jax.core.types import NO_LABEL, VOID, VOID_16, Int, void_of

SUFFIXES = ('.png', '.tif', '.tiff', '.npy')
NAMES = 'names.txt'
_SHOWN = 5  # of the images with a problem


def find_directory(directory: Path, dataset: str) -> pathlib.Path:
  """Returns where the label maps of a data set are: DIR/DATASET, else DIR.

  Raises:
    FileNotFoundError: there is no such directory, or no label map in it.
  """
  root = local(directory)
  if not root.is_dir():
    raise FileNotFoundError(
      f'{root} not found; --predictions= is the directory of the label maps'
    )
  found = root / dataset if (root / dataset).is_dir() else root
  if not any(p.suffix.lower() in SUFFIXES for p in found.rglob('*')):
    raise FileNotFoundError(
      f'no label maps in {found}; expected IMAGE_ID{" or ".join(SUFFIXES)} for every '
      f'image of {dataset}'
    )
  return found


def check_names(directory: pathlib.Path, names: Sequence[str]) -> bool:
  """Compares names.txt with the class list; returns False if there is none.

  Raises:
    ValueError: they differ.
  """
  path = directory / NAMES
  if not path.is_file():
    return False
  theirs = path.read_text(encoding='utf-8-sig').rstrip('\n').split('\n')
  if theirs == list(names):
    return True
  pairs = enumerate(zip([*theirs, ''], [*names, ''], strict=False))
  line, (their, our) = next((i, pair) for i, pair in pairs if pair[0] != pair[1])
  raise UserError(
    f'{path} is another class list (sha256 {_hash(theirs)}, {len(theirs)} names) than '
    f'that of the data set ({_hash(names)}, {len(names)} names); they first differ in '
    f'line {line + 1}: {their!r} there, {our!r} here. Predict with the names of '
    'the data set, in their order'
  )


def _hash(names: Sequence[str]) -> str:
  return hashlib.sha256('\n'.join(names).encode()).hexdigest()[:12]


class SavedMaps:
  """The label maps of one data set in a directory."""

  def __init__(self, directory: pathlib.Path, num_classes: int) -> None:
    """Reads nothing yet; `problems` fills up while maps are read."""
    self.directory = directory
    self.num_classes = num_classes
    self.problems: dict[str, list[str]] = {}

  def read(self, image_id: str, size: tuple[int, int]) -> Int[np.ndarray, 'h w'] | None:
    """Returns the label map of an image, or None and a note in `problems`.

    Args:
      image_id: names the file.
      size: expected height and width.
    """
    path = self._path(image_id)
    if path is None:
      return self._note('missing', image_id)
    try:
      labels = _load(path)
    except (OSError, ValueError, SyntaxError) as error:
      reason = (str(error).splitlines() or [''])[0][:80]
      return self._note('unreadable', f'{path.name} ({reason})')
    if labels.ndim != 2 or labels.dtype.kind not in 'iu':
      shape = ' x '.join(str(n) for n in labels.shape)
      what = f'{path.name} ({labels.dtype}, {shape})'
      return self._note('not one channel of integers', what)
    if labels.shape != tuple(size):
      h, w = labels.shape
      what = f'{path.name} ({w} x {h}, its label map {size[1]} x {size[0]})'
      return self._note('of the wrong size', what)
    none = VOID if labels.dtype.itemsize == 1 else VOID_16
    none = none if none >= self.num_classes else -1
    labels = labels.astype(np.int64)
    wrong = (labels >= self.num_classes) & (labels != none)
    if wrong.any():
      shown = ', '.join(str(x) for x in np.unique(labels[wrong])[:4])
      return self._note('with labels outside the vocabulary', f'{path.name} ({shown})')
    labels[(labels == none) | (labels < 0)] = NO_LABEL
    return labels.astype(np.int32)

  def _path(self, image_id: str) -> pathlib.Path | None:
    candidates = (self.directory / f'{image_id}{suffix}' for suffix in SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)

  def _note(self, kind: str, what: str) -> None:
    self.problems.setdefault(kind, []).append(what)


def check_problems(
  directory: pathlib.Path, num_classes: int, problems: Mapping[str, Sequence[str]]
) -> None:
  """Raises ValueError if reading met problems; the message has all kinds of them."""
  if not problems:
    return
  lines = []
  for kind, found in problems.items():
    found = sorted(found)
    more = f', and {len(found) - _SHOWN:,} more' if len(found) > _SHOWN else ''
    lines.append(f'  {len(found):,} {kind}: {", ".join(found[:_SHOWN])}{more}')
  raise UserError(
    f'the label maps in {directory} cannot be scored; expected one channel, values 0 '
    f"to {num_classes - 1} (or 255 / 65535 for none), the size of the data set's "
    'label map, a file for every image:\n' + '\n'.join(lines)
  )


def _load(path: pathlib.Path) -> np.ndarray:
  if path.suffix.lower() == '.npy':
    return np.load(path, allow_pickle=False)
  with Image.open(path) as image:
    labels = np.asarray(image)  # of a palette, the indices
  # Pillow reads some 16-bit files as 32 bits.
  wide = labels.dtype == np.int32 and 0 <= labels.min(initial=0)
  return labels.astype(np.uint16) if wide and labels.max() < 2**16 else labels


def save_map(
  directory: Place,
  image_id: str,
  labels: Int[np.ndarray, 'h w'],
  names: Sequence[str],
) -> None:
  """Writes a label map, and names.txt, as `SavedMaps` reads them."""
  dtype = np.uint8 if len(names) <= VOID else np.uint16
  image = Image.fromarray(np.where(labels < 0, void_of(dtype), labels).astype(dtype))
  with atomic_path(directory / f'{image_id}.png') as temporary:
    image.save(temporary)
  if not (directory / NAMES).is_file():
    write_text(directory / NAMES, '\n'.join(names) + '\n')
