"""A name for each of the masks that are given, and nothing painted."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Path, Place, place, read_json, real, write_json
from ovs_jax.core.masks import box_of
from ovs_jax.core.types import Float
from ovs_jax.inference.given_masks import EncodedMasks
from ovs_jax.inference.stems import stems

_TOP = 5


@dataclasses.dataclass(frozen=True)
class NamedMask:
  """What a mask shows.

  Attributes:
    source: the mask's number, or its id where it came from.
    name: the most probable one; None if the background is, or if the confidence is
      below the threshold, or if the mask covers nothing.
    top: the five most probable names and how probable CLIP holds them, 0..1; none if
      the mask covers nothing.
    area: pixels above the mask threshold.
    box: x0, y0, x1, y1 of these, exclusive ends; None without any.
  """

  source: int | str
  name: str | None
  top: tuple[tuple[str, float], ...]
  area: int
  box: tuple[int, int, int, int] | None


@dataclasses.dataclass(frozen=True)
class NamedMasks:
  """All masks of a picture, in the order in which they were given.

  Attributes:
    size: height and width of the picture.
    names: that were asked for.
    masks: one each.
  """

  size: tuple[int, int]
  names: tuple[str, ...]
  masks: tuple[NamedMask, ...]

  def description(self) -> dict[str, Any]:
    """Returns what a JSON file holds."""
    height, width = self.size
    return {
      'height': height,
      'width': width,
      'names': list(self.names),
      'masks': [
        {
          **dataclasses.asdict(mask),
          'top': [{'name': name, 'confidence': sure} for name, sure in mask.top],
        }
        for mask in self.masks
      ],
    }


def name_masks(
  picture: EncodedMasks,
  names: tuple[str, ...],
  weights: Float[np.ndarray, 'n k'],
  by_clip: Float[np.ndarray, 'n k'],
  *,
  threshold: float,
  binary: float,
  maps: bool,
) -> NamedMasks:
  """Names every mask.

  Args:
    picture: with the masks.
    names: of the classes that are names; the others compete.
    weights: not read: they are CLIP's probabilities, and 0 where nothing is shown.
    by_clip: CLIP's probabilities.
    threshold: masks of a lower confidence get no name.
    binary: above which a mask's pixels count.
    maps: must be false: there are no maps of names.
  """
  if maps:
    raise UserError("the rule 'each' paints nothing; leave maps and scores out")
  del weights
  count = len(names)
  found = []
  for i, cut in enumerate(picture.masks.cuts):
    shown, row = cut.values > binary, by_clip[i].astype(float)
    area, box, name, top = int(shown.sum()), None, None, ()
    if area:
      x0, y0, x1, y1 = box_of(shown)
      box = cut.left + x0, cut.top + y0, cut.left + x1, cut.top + y1
    if picture.valid[i]:
      order = np.argsort(-row[:count], kind='stable')[:_TOP].tolist()
      top = tuple((names[k], float(row[k])) for k in order)
      best = int(row.argmax())
      name = names[best] if best < count and row[best] >= threshold else None
    found.append(NamedMask(cut.source, name, top, area, box))
  return NamedMasks(picture.size, names, tuple(found))


def plan_masks(photos: Sequence[pathlib.Path], output: Path) -> dict[Any, Place]:
  """Returns for each photo the JSON file that names its masks.

  Raises:
    UserError: two photos would be written to one file, or one over another's.
  """
  output = place(output)
  jobs = {p: output / f'{stem}_masks.json' for p, stem in stems(photos, output).items()}
  for photo, target in jobs.items():
    image = _stored(target).get('image')
    if image is not None and real(place(image)) != real(photo):
      raise UserError(f'{target} is of another photo than {photo}; choose --output=')
  return jobs


def is_named(target: Place, key: str) -> bool:
  """Returns whether a file is there and was made from what `key` stands for."""
  return _stored(target).get('key') == key


def write_names(
  target: Place, found: NamedMasks, photo: pathlib.Path, more: Mapping[str, Any]
) -> str:
  """Writes the JSON file; returns what to print of it."""
  write_json(target, {**found.description(), 'image': str(photo), **more})
  height, width = found.size
  named = sum(mask.name is not None for mask in found.masks)
  return (
    f'{photo} ({width} x {height} pixels)\n  masks:    {len(found.masks)}, of which '
    f'{named} have a name\n  names:    {target}'
  )


def _stored(target: Place) -> dict[str, Any]:
  try:
    stored = read_json(target) if target.is_file() else {}
  except (ValueError, OSError):
    return {}
  return stored if isinstance(stored, dict) else {}
