"""Pascal VOC's folders of masks, which CVAT's "Segmentation mask 1.1" are too."""

import pathlib
from collections.abc import Sequence

import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.types import Int, UInt8
from ovs_jax.formats.format import Files, Format
from ovs_jax.formats.found import Entry, Found
from ovs_jax.formats.png import index_png

_BACKGROUND = 'background'  # the name of value 0
_MOST = 254  # 0 is background, and 255 void


class Voc(Format):
  """Masks of names and of segments, in VOC's colours; names are in labelmap.txt."""

  name = 'voc'
  most = _MOST
  overlaps = False

  def check(self, names: Sequence[str], *, overlapping: bool) -> None:
    """Refuses names that labelmap.txt cannot hold, too."""
    super().check(names, overlapping=overlapping)
    for name in names:
      if ':' in name or name.startswith('#') or name.lower() == _BACKGROUND:
        raise UserError(
          f'the format {self.name!r} cannot hold the name {name!r}: its labelmap.txt '
          f'separates by ":", begins comments with "#", and has {_BACKGROUND!r} of its '
          'own; call it otherwise'
        )

  def paths(self, photo: pathlib.Path, stem: str) -> list[str]:
    """Returns the photo, the mask of names and that of segments."""
    return [
      f'JPEGImages/{stem}{photo.suffix}',
      f'SegmentationClass/{stem}.png',
      f'SegmentationObject/{stem}.png',
    ]

  def files(self, found: Found) -> Files:
    """Returns a copy of the photo, and the masks.

    Raises:
      ValueError: there are too many segments.
    """
    if len(found.instances) > _MOST:
      raise UserError(
        f'{found.photo} has {len(found.instances)} segments, and the format '
        f'{self.name!r} holds at most {_MOST} in its 8 bits; take coco or npz'
      )
    objects = np.zeros(found.size, np.int32)
    classes = np.maximum(found.labels, -1) + 1
    for i, instance in enumerate(found.instances, start=1):  # they do not overlap
      objects[instance.mask], classes[instance.mask] = i, instance.label + 1
    image, by_name, by_object = self.paths(found.photo, found.stem)
    colours = voc_colours()
    return {
      image: found.photo,
      by_name: index_png(classes, colours),
      by_object: index_png(objects, colours),
    }

  def finish(self, entries: Sequence[Entry], names: Sequence[str]) -> Files:
    """Returns labelmap.txt, and the list of photos."""
    colours = voc_colours().tolist()
    lines = ['# label:color_rgb:parts:actions']
    for name, colour in zip((_BACKGROUND, *names), colours, strict=False):
      lines.append(f'{name}:{",".join(map(str, colour))}::')
    stems = ''.join(f'{entry.stem}\n' for entry in entries)
    return {
      'labelmap.txt': ('\n'.join(lines) + '\n').encode(),
      'ImageSets/Segmentation/default.txt': stems.encode(),
    }


class Cvat(Voc):
  """The same files, which CVAT takes as a zip archive."""

  name = 'cvat'


def voc_colours() -> UInt8[np.ndarray, '256 3']:
  """Returns VOC's colours: the bits of a number, three by three, highest first."""
  colours = np.zeros((256, 3), np.uint8)
  for channel in range(3):
    for bit in range(8):
      source = 3 * bit + channel
      if source < 8:
        colours[:, channel] |= (_bit(source) << (7 - bit)).astype(np.uint8)
  return colours


def _bit(place: int) -> Int[np.ndarray, '256']:
  return (np.arange(256) >> place) & 1
