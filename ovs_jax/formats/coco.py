"""One COCO file for all photos of a run, with compressed runs as masks."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovs_jax.core.files import strict_json
from ovs_jax.formats.format import Files, Format
from ovs_jax.formats.found import Entry, Found, Instance
from ovs_jax.formats.parts import connected
from ovs_jax.formats.rle import coco_counts, coco_counts_of


class Coco(Format):
  """An annotation per segment, or per connected part of one; ids count from 1."""

  name = 'coco'
  keeps = True

  def record(self, found: Found, *, parts: bool) -> Any:
    """Returns the annotations of a photo, without ids."""
    return [
      annotation
      for instance in found.instances
      for annotation in (_parts(instance, found) if parts else [_annotation(instance)])
    ]

  def finish(self, entries: Sequence[Entry], names: Sequence[str]) -> Files:
    """Returns annotations.json; without annotations if nothing was found."""
    text = strict_json(to_coco(entries, names), ensure_ascii=False) + '\n'
    return {'annotations.json': text.encode()}


def to_coco(entries: Sequence[Entry], names: Sequence[str]) -> dict[str, Any]:
  """Returns what a COCO file holds.

  Args:
    entries: photos, which load `Coco.record`.
    names: of the categories, which are i + 1.
  """
  annotations = [
    {'image_id': i, **annotation}
    for i, entry in enumerate(entries, start=1)
    for annotation in entry.load()
  ]
  return {
    'info': {'description': 'segments found by ovs_jax'},
    'images': [
      {'id': i, 'file_name': e.file_name, 'height': e.size[0], 'width': e.size[1]}
      for i, e in enumerate(entries, start=1)
    ],
    'annotations': [{'id': i, **a} for i, a in enumerate(annotations, start=1)],
    'categories': [{'id': i, 'name': name} for i, name in enumerate(names, start=1)],
  }


def _annotation(instance: Instance) -> dict[str, Any]:
  return {
    'category_id': instance.label + 1,
    'segmentation': {
      'size': list(instance.mask.shape),
      'counts': coco_counts(instance.mask),
    },
    'area': instance.area,
    'bbox': list(instance.box),
    'iscrowd': 0,
    'score': instance.confidence,
  }


def _parts(instance: Instance, found: Found) -> list[dict[str, Any]]:
  """Splits a segment; each part is as sure as its pixels, if they have the name."""
  sure, labels = found.confidence.ravel(), found.labels.ravel()
  made = []
  for pixels in connected(instance.mask):
    own = pixels[labels[pixels] == instance.label]
    mean = float(sure[own].mean(dtype=np.float64)) if len(own) else instance.confidence
    y, x = np.divmod(pixels, found.size[1])
    x0, y0 = int(x.min()), int(y.min())
    made.append(
      {
        'category_id': instance.label + 1,
        'segmentation': {
          'size': list(found.size),
          'counts': coco_counts_of(pixels, found.size),
        },
        'area': len(pixels),
        'bbox': [x0, y0, int(x.max()) + 1 - x0, int(y.max()) + 1 - y0],
        'iscrowd': 0,
        'score': mean,
      }
    )
  return made
