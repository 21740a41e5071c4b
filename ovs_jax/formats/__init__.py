"""Formats of annotation tools, written from what was found in photos."""

from ovs_jax.core.errors import UserError
from ovs_jax.core.lookup import lookup
from ovs_jax.formats.coco import Coco
from ovs_jax.formats.format import Format
from ovs_jax.formats.labelme import Labelme
from ovs_jax.formats.labelstudio import LabelStudio
from ovs_jax.formats.npz import Npz
from ovs_jax.formats.panoptic import Panoptic
from ovs_jax.formats.png import Png
from ovs_jax.formats.voc import Cvat, Voc
from ovs_jax.formats.yolo import Yolo

FORMATS: dict[str, type[Format]] = {
  format.name: format
  for format in (Png, Coco, Yolo, Labelme, Cvat, LabelStudio, Voc, Panoptic, Npz)
}


def parse_formats(text: str | None) -> tuple[Format, ...]:
  """Returns the formats of a list such as 'png, coco', each once; None has none.

  Raises:
    ValueError: one is unknown, or there is none.
  """
  if text is None:
    return ()
  names = dict.fromkeys(name for part in text.split(',') if (name := part.strip()))
  if not names:
    raise UserError(f'no format is named; known: {", ".join(FORMATS)}')
  return tuple(lookup(FORMATS, name, 'format')() for name in names)
