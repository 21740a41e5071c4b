"""What files of photos are called: by their names, and their folders' where needed."""

import collections
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Place, local, read_json, real

# What comes after the stem in the names of pictures.
PICTURES = ('labels', 'panoptic_overlay', 'overlay', 'panoptic', 'heat')


def record_of(output: Place, stem: str) -> Place:
  """Returns the JSON that says whose results of a stem are there."""
  return output / f'{stem}_segments.json'


def is_result(path: pathlib.Path) -> bool:
  """Returns whether a picture is a result, beside its record, and no photo."""
  if path.suffix not in ('.png', '.jpg'):
    return False
  before = [path.stem.removesuffix(f'_{x}') for x in PICTURES]
  return any(
    'key' in _stored(record_of(path.parent, x)) for x in before if x != path.stem
  )


def stems(photos: Sequence[pathlib.Path], output: Place) -> dict[pathlib.Path, str]:
  """Returns a stem for each photo, unlike those of the others.

  Photos of one name in different folders are told apart by their folders' names:
  `a/1.jpg` and `b/1.jpg` become a_1 and b_1. So is a photo from one of another folder
  whose results are in the output already.

  Raises:
    ValueError: two photos differ in nothing but their suffix.
  """
  level = dict.fromkeys(photos, 0)
  while True:
    found = {photo: _stem(photo, level[photo]) for photo in photos}
    count = collections.Counter(name.casefold() for name in found.values())
    clash = [
      photo
      for photo, name in found.items()
      if count[name.casefold()] > 1 or _is_of_another(output, name, photo)
    ]
    if not clash:
      return found
    for photo in clash:
      if level[photo] >= len(_parts(photo)):
        _refuse(photo, found, output)
      level[photo] += 1


def _parts(photo: pathlib.Path) -> tuple[str, ...]:
  return local(os.path.abspath(photo)).parent.parts[1:]


def _stem(photo: pathlib.Path, level: int) -> str:
  folders = _parts(photo)
  return '_'.join([*folders[len(folders) - level :], photo.stem])


def _is_of_another(output: Place, stem: str, photo: pathlib.Path) -> bool:
  """Returns whether results of that stem are those of another photo."""
  image = _stored(record_of(output, stem)).get('image')
  return isinstance(image, str) and real(local(image)) != real(photo)


def _stored(record: Place) -> dict[str, Any]:
  """Returns what a record holds; nothing if it is damaged or not there."""
  try:
    stored = read_json(record) if record.is_file() else {}
  except (ValueError, OSError):
    return {}
  return stored if isinstance(stored, dict) else {}


def _refuse(photo: pathlib.Path, found: dict[pathlib.Path, str], output: Place) -> None:
  name = found[photo].casefold()
  same = [p for p, stem in found.items() if stem.casefold() == name]
  target = output / f'{photo.stem}_labels.png'
  if len(same) > 1:
    raise UserError(
      f'{same[0]} and {same[1]} would both be written to {target}; rename one, or run '
      'them with different --output= directories'
    )
  raise UserError(
    f'{target} is of another photo than {photo}; choose another --output='
  )
