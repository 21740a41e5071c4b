"""Labelme's JSON: polygons in pixels, and where the photo is."""

import os
import pathlib

from ovs_jax.core.files import local
from ovs_jax.formats.format import Files, Format
from ovs_jax.formats.found import Found
from ovs_jax.formats.png import to_json
from ovs_jax.formats.polygons import polygons


class Labelme(Format):
  """A shape per connected part, a group per segment; holes are cut open."""

  name = 'labelme'

  def paths(self, photo: pathlib.Path, stem: str) -> list[str]:
    """Returns the JSON."""
    return [f'{stem}.json']

  def files(self, found: Found) -> Files:
    """Returns the JSON, without shapes if nothing was found."""
    photo = found.photo.absolute()
    if found.output is not None:
      folder = (found.output / self.name).absolute()
      photo = local(os.path.relpath(photo, folder))
    shapes = [
      {
        'label': found.names[instance.label],
        'points': [[float(x), float(y)] for x, y in points],
        'group_id': group,
        'description': f'confidence {instance.confidence:.3f}',
        'shape_type': 'polygon',
        'flags': {},
      }
      for group, instance in enumerate(found.instances, start=1)
      for points in polygons(instance.mask)
    ]
    height, width = found.size
    value = {
      'version': '5.5.0',
      'flags': {},
      'shapes': shapes,
      'imagePath': photo.as_posix(),
      'imageData': None,
      'imageHeight': height,
      'imageWidth': width,
    }
    return {f'{found.stem}.json': to_json(value)}
