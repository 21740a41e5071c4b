"""One PNG per photo whose values are names, which any viewer shows in colours."""

import io
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ovs_jax.core.files import strict_json
from ovs_jax.core.types import Int, UInt8
from ovs_jax.formats.format import Files, Format
from ovs_jax.formats.found import Entry, Found
from ovs_jax.ops.colours import palette


class Png(Format):
  """Value 0 is nothing, as most readers have it, and value i + 1 is name i."""

  name = 'png'
  most = 255
  overlaps = False

  def paths(self, photo: pathlib.Path, stem: str) -> list[str]:
    """Returns the PNG."""
    return [f'{stem}.png']

  def files(self, found: Found) -> Files:
    """Returns the PNG."""
    colours = np.concatenate([np.zeros((1, 3), np.uint8), palette(len(found.names))])
    return {f'{found.stem}.png': index_png(np.maximum(found.labels, -1) + 1, colours)}

  def finish(self, entries: Sequence[Entry], names: Sequence[str]) -> Files:
    """Returns labels.json: values, names and colours."""
    rows = [
      {'value': i + 1, 'name': name, 'colour': colour}
      for i, (name, colour) in enumerate(
        zip(names, palette(len(names)).tolist(), strict=True)
      )
    ]
    return {'labels.json': to_json({'nothing': 0, 'labels': rows})}


def index_png(
  values: Int[np.ndarray, 'h w'], colours: UInt8[np.ndarray, 'n 3']
) -> bytes:
  """Returns a PNG of 8 bits with a palette.

  Args:
    values: indices into `colours`.
    colours: at most 256; what comes after them is black.
  """
  image = Image.fromarray(values.astype(np.uint8))
  whole = np.zeros((256, 3), np.uint8)
  whole[: len(colours)] = colours
  image.putpalette(whole.tobytes())
  file = io.BytesIO()
  image.save(file, 'PNG')
  return file.getvalue()


def to_json(value: object) -> bytes:
  """Returns JSON with letters of any script as they are."""
  return (strict_json(value, indent=1, ensure_ascii=False) + '\n').encode()
