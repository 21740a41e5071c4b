"""Annotations that other programs wrote, as a data set.

    FILE.json                       COCO (boxes, polygons or runs) or Label Studio
    DIR/data.yaml                   YOLO's polygons (or any DIR/*.yaml with names)
    DIR/JPEGImages, SegmentationClass, and labelmap.txt
                                    VOC, and CVAT's "Segmentation mask 1.1"

A photo of a file is looked for below the file's folder. Pixels without an annotation
are void, unless a class is called background: then they are of that class. Where
annotations overlap, the smaller one is in front.
"""

import pathlib
from collections.abc import Callable

from ovs_jax.data.foreign.annotations import annotations
from ovs_jax.data.foreign.listing import Listing
from ovs_jax.data.foreign.voc import voc
from ovs_jax.data.foreign.yolo import yaml_of, yolo


def recognise(path: pathlib.Path) -> Callable[[pathlib.Path], Listing] | None:
  """Returns what reads a data set, None if it is none of another program."""
  if path.is_file():
    if path.suffix.lower() in ('.yaml', '.yml'):
      return yolo
    return annotations
  if (path / 'SegmentationClass').is_dir():
    return voc
  own = (path / 'names.txt').exists() or (path / 'captions.jsonl').exists()
  return yolo if yaml_of(path) and not own else None
