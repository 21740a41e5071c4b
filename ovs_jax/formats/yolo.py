"""YOLO's polygons: photos, a text file for each, and the names in data.yaml."""

import json
import pathlib
from collections.abc import Sequence

from ovs_jax.formats.format import Files, Format
from ovs_jax.formats.found import Entry, Found
from ovs_jax.formats.polygons import polygons

# Some readers round coordinates in pixels, others cut them off: from here both come to
# the pixel that is meant.
_WITHIN = 0.25


class Yolo(Format):
  """A line per connected part: index of the name, x y of 0..1; holes are cut open."""

  name = 'yolo'

  def paths(self, photo: pathlib.Path, stem: str) -> list[str]:
    """Returns the photo and its polygons."""
    return [f'images/{stem}{photo.suffix}', f'labels/{stem}.txt']

  def files(self, found: Found) -> Files:
    """Returns a copy of the photo, and its polygons, an empty file if it has none."""
    height, width = found.size
    lines = []
    for instance in found.instances:
      for points in polygons(instance.mask):
        numbers = [
          f'{(x + _WITHIN) / width:.7f} {(y + _WITHIN) / height:.7f}' for x, y in points
        ]
        lines.append(f'{instance.label} {" ".join(numbers)}\n')
    image, labels = self.paths(found.photo, found.stem)
    return {image: found.photo, labels: ''.join(lines).encode()}

  def finish(self, entries: Sequence[Entry], names: Sequence[str]) -> Files:
    """Returns data.yaml; strings of JSON are strings of YAML."""
    lines = ['train: images', 'val: images', 'names:']
    lines += [
      f'  {i}: {json.dumps(n, ensure_ascii=False)}' for i, n in enumerate(names)
    ]
    return {'data.yaml': ('\n'.join(lines) + '\n').encode()}
