"""Pictures of the drawn world at the sizes of photographs, for the benchmarks' files.

Names, sizes, captions and label values are those that the published files have; what is
in the pictures is drawn.
"""

import dataclasses
import functools
import io

import numpy as np
from PIL import Image

from ovs_jax.core.types import Num, UInt8
from ovs_jax.data import scenes_captions, scenes_draw
from ovs_jax.data.scenes_draw import NUM_THINGS, SIZE
from ovs_jax.data.sources import encode_png
from ovs_jax.text import vocabulary

Box = tuple[int, int, int, int]

# Width and height of photographs, the frequent ones of each data set several times.
SIZES: dict[str, tuple[tuple[int, int], ...]] = {
  'coco': (
    *((640, 480), (480, 640), (640, 427), (640, 480), (500, 375), (427, 640)),
    *((640, 426), (640, 480), (612, 612), (375, 500), (640, 361)),
  ),
  'ade20k': ((683, 512), (512, 683), (683, 512), (256, 256), (768, 512)),
  'ade20k_full': ((1024, 768), (768, 1024), (683, 512), (2048, 1360)),
  'voc': ((500, 375), (375, 500), (500, 333), (500, 375), (334, 500)),
}
CAPTIONS = 5  # of a photograph of COCO
_QUALITY = 90  # of the JPEGs
_NUM_CLASSES = len(scenes_draw.NAMES)


@dataclasses.dataclass(frozen=True)
class Picture:
  """A drawn photograph.

  Attributes:
    jpeg: the file.
    label: classes of the drawn world, (h, w) uint8.
    captions: that name some of what is there.
    things: train id of the drawn world and box of each: left, top, width, height.
  """

  jpeg: bytes
  label: UInt8[np.ndarray, 'h w']
  captions: tuple[str, ...]
  things: tuple[tuple[int, Box], ...]

  def png(self, values: Num[np.ndarray, 'k'], palette: bytes | None = None) -> bytes:
    """Returns the label map with these values, with a palette as VOC has it or none."""
    label = values[self.label]
    if palette is None:
      return encode_png(label)
    image = Image.fromarray(label).convert('P')
    image.frombytes(label.tobytes())
    image.putpalette(palette)
    buffer = io.BytesIO()
    image.save(buffer, 'png')
    return buffer.getvalue()


@dataclasses.dataclass(frozen=True)
class Drawer:
  """Draws pictures, the same for the same numbers.

  Attributes:
    seed: of the world.
    longest: that the longer side is at most; 0: as photographs are.
    scenes: how many pictures differ, the others repeat them; 0: all do.
  """

  seed: int
  longest: int
  scenes: int

  def __call__(self, kind: str, index: int) -> Picture:
    """Returns the picture of a number, of the sizes of a kind of `SIZES`."""
    place = index % self.scenes if self.scenes else index
    return _kept(self, kind, place) if self.scenes else self.draw(kind, place)

  def size(self, kind: str, index: int) -> tuple[int, int]:
    """Returns width and height of a picture."""
    place = index % self.scenes if self.scenes else index
    width, height = SIZES[kind][place % len(SIZES[kind])]
    share = min(1, self.longest / max(width, height)) if self.longest else 1
    return round(width * share), round(height * share)

  def draw(self, kind: str, place: int) -> Picture:
    """Draws a picture."""
    rng = np.random.default_rng([self.seed, list(SIZES).index(kind), place])
    scene = scenes_draw.draw_scene(rng)
    captions = scenes_captions.describe(rng, scene)
    while len(captions) < CAPTIONS:
      captions += scenes_captions.describe(rng, scene)
    width, height = self.size(kind, place)
    image = Image.fromarray(scene.image).resize((width, height), Image.BICUBIC)
    label = Image.fromarray(scene.label).resize((width, height), Image.NEAREST)
    buffer = io.BytesIO()
    image.save(buffer, 'jpeg', quality=_QUALITY)
    things = tuple(
      (r.train_id, _box(r.box, width / SIZE, height / SIZE)) for r in scene.things
    )
    found = np.asarray(label)
    return Picture(buffer.getvalue(), found, tuple(captions[:CAPTIONS]), things)


@functools.lru_cache(maxsize=4096)
def _kept(drawer: Drawer, kind: str, place: int) -> Picture:
  return drawer.draw(kind, place)


def _box(box: Box, wide: float, high: float) -> Box:
  top, left, bottom, right = box
  x, y = int(left * wide), int(top * high)
  return x, y, max(int(right * wide) - x, 1), max(int(bottom * high) - y, 1)


def label_values(
  name: str, nothing: int, *, stuff: bool = True
) -> Num[np.ndarray, 'k']:
  """Returns what label files hold for each class of the drawn world.

  Args:
    name: of the class list, whose classes are gone through in even steps.
    nothing: the value of pixels without a class, which the last kind of stuff is.
    stuff: whether other stuff is a class.
  """
  values = vocabulary.load(name).source_values
  step = max(len(values) // _NUM_CLASSES, 1)
  found = [values[k * step % len(values)] for k in range(_NUM_CLASSES)]
  for k in range(_NUM_CLASSES - 1 if stuff else NUM_THINGS, _NUM_CLASSES):
    found[k] = nothing
  return np.array(found, np.uint8 if max(found) < 256 else np.uint16)
