"""COCO's pair for panoptic segmentation: a PNG of ids per photo, and one JSON."""

import io
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from ovs_jax.formats.format import Files, Format
from ovs_jax.formats.found import Entry, Found
from ovs_jax.formats.png import to_json


class Panoptic(Format):
  """Segments by ids from 1, which a PNG holds as R + 256 G + 65536 B; 0 is nothing.

  Without segments of their own ids, a name has one segment. `isthing` is 1 for all
  names, as a free name is neither said to be a thing nor stuff.
  """

  name = 'panoptic'
  overlaps = False
  keeps = True

  def paths(self, photo: pathlib.Path, stem: str) -> list[str]:
    """Returns the PNG."""
    return [f'panoptic/{stem}.png']

  def files(self, found: Found) -> Files:
    """Returns the PNG."""
    ids = np.zeros(found.size, np.uint32)
    for i, instance in enumerate(found.instances, start=1):
      ids[instance.mask] = i
    rgb = np.stack([ids >> 8 * i & 255 for i in range(3)], axis=2).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, 'PNG')
    return {f'panoptic/{found.stem}.png': file.getvalue()}

  def record(self, found: Found, *, parts: bool) -> Any:
    """Returns the segments of a photo."""
    return [
      {
        'id': i,
        'category_id': instance.label + 1,
        'area': instance.area,
        'bbox': list(instance.box),
        'iscrowd': 0,
        'score': instance.confidence,
      }
      for i, instance in enumerate(found.instances, start=1)
    ]

  def finish(self, entries: Sequence[Entry], names: Sequence[str]) -> Files:
    """Returns panoptic.json."""
    images = [
      {'id': i, 'file_name': e.file_name, 'height': e.size[0], 'width': e.size[1]}
      for i, e in enumerate(entries, start=1)
    ]
    annotations = [
      {'image_id': i, 'file_name': f'{e.stem}.png', 'segments_info': e.load()}
      for i, e in enumerate(entries, start=1)
    ]
    categories = [
      {'id': i, 'name': name, 'supercategory': name, 'isthing': 1}
      for i, name in enumerate(names, start=1)
    ]
    whole = {'images': images, 'annotations': annotations, 'categories': categories}
    return {'panoptic.json': to_json(whole)}
