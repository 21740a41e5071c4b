"""Draws the scenes of the embedded world: things of a colour and a shape on stuff.

A scene is 128x128: two or three bands of textured stuff with two to six things on
them, later ones in front of earlier ones. What stands where is partly predictable (a
shape prefers its own stuff), light and noise vary, and every mask is exact.
Everything here is NumPy and Pillow, so that it runs in any process.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from ovs_jax.core.masks import box_of
from ovs_jax.core.types import VOID
from ovs_jax.data import scenes_textures
from ovs_jax.data.scenes_textures import STUFF

SIZE = 128  # px, both sides of a scene
MIN_PIXELS = 60  # things with fewer visible pixels are left out

# RGB, 0..255, before light, cast and noise.
COLOURS = {
  'red': (214, 38, 40),
  'orange': (246, 134, 20),
  'yellow': (246, 222, 45),
  'green': (42, 168, 52),
  'cyan': (52, 214, 218),
  'blue': (38, 72, 214),
  'purple': (132, 48, 168),
  'pink': (250, 140, 190),
}
SHAPES = ('circle', 'square', 'triangle', 'star', 'cross', 'ring', 'moon', 'bowtie')

# Train ids: things colour by colour, then stuff.
NUM_THINGS = len(COLOURS) * len(SHAPES)
NAMES = tuple(f'{c} {s}' for c in COLOURS for s in SHAPES) + STUFF
# Unseen: every colour and every shape keeps five seen combinations.
UNSEEN = frozenset(
  c * len(SHAPES) + s
  for c in range(len(COLOURS))
  for s in range(len(SHAPES))
  if (c + s) % 8 in (1, 4, 6)
) | {NUM_THINGS + STUFF.index('water'), NUM_THINGS + STUFF.index('snow')}

_CONTEXT = 0.4  # how often a shape is the one tied to the stuff it stands on
_RADIUS = (8.0, 26.0)  # px, log-uniform
# px: radius from which a thing has room for a part, and what must be seen of that
_LEAST_PART, _PART_PIXELS = 4.0, 16


@dataclasses.dataclass(frozen=True)
class Region:
  """One visible region of a scene.

  Attributes:
    train_id: class, 0..71.
    box: top, left, bottom, right of the visible pixels; the last two exclusive.
    pixels: number of visible pixels.
    ground: train id of the stuff under the centre; of stuff, its own.
  """

  train_id: int
  box: tuple[int, int, int, int]
  pixels: int
  ground: int


@dataclasses.dataclass(frozen=True)
class Scene:
  """A drawn scene with exact masks.

  Attributes:
    image: RGB, (128, 128, 3) uint8.
    label: train ids, (128, 128) uint8; every pixel is labelled.
    regions: stuff first, then things from back to front.
    instances: index into `regions`, (128, 128) uint8.
    parts: of what is on things, its train ids, (128, 128) uint8; void elsewhere.
  """

  image: np.ndarray
  label: np.ndarray
  regions: tuple[Region, ...]
  instances: np.ndarray
  parts: np.ndarray

  def mask(self, index: int) -> np.ndarray:
    """Visible pixels of region `index`, (128, 128) bool."""
    return self.instances == index

  @property
  def stuff(self) -> tuple[Region, ...]:
    """The stuff regions, in the order they were drawn."""
    return tuple(r for r in self.regions if r.train_id >= NUM_THINGS)

  @property
  def things(self) -> tuple[Region, ...]:
    """The things, back to front."""
    return tuple(r for r in self.regions if r.train_id < NUM_THINGS)


# Signed distances in units of the radius, negative inside; x to the right, y down.


def _circle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  return np.hypot(x, y) - 0.92


def _square(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  return np.maximum(np.abs(x), np.abs(y)) - 0.80


def _triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  return np.maximum(0.866 * np.abs(x) - 0.5 * (y + 0.12) - 0.5, y + 0.12 - 0.66)


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  half = np.pi / 5
  angle = np.arctan2(x, -y) % (2 * half)
  angle = np.minimum(angle, 2 * half - angle)  # fold onto half a spike
  radius = np.hypot(x, y)
  along, across = radius * np.cos(angle), radius * np.sin(angle)
  tip, notch = (1.05, 0.0), (0.42 * np.cos(half), 0.42 * np.sin(half))
  edge = np.hypot(tip[0] - notch[0], notch[1])
  return (notch[1] * (along - tip[0]) + (tip[0] - notch[0]) * across) / edge


def _cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  x, y = np.abs(x), np.abs(y)
  long, short = np.maximum(x, y), np.minimum(x, y)
  return np.maximum(long - 0.98, short - 0.21)


def _ring(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  return np.abs(np.hypot(x, y) - 0.70) - 0.23


def _moon(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  return np.maximum(np.hypot(x, y) - 0.98, 1.3 * (0.80 - np.hypot(x - 0.46, y + 0.10)))


def _bowtie(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  x, y = np.abs(x), np.abs(y)
  return np.maximum(x - 0.98, (y - 0.72 * x - 0.07) / 1.23)


_DISTANCES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
  'circle': _circle,
  'square': _square,
  'triangle': _triangle,
  'star': _star,
  'cross': _cross,
  'ring': _ring,
  'moon': _moon,
  'bowtie': _bowtie,
}

_AXIS = np.arange(SIZE, dtype=np.float32)


@dataclasses.dataclass(frozen=True)
class _Placed:
  """A thing before it is painted: where it is and how far each pixel is inside."""

  train_id: int
  ground: int  # index of the stuff band under the centre
  window: tuple[slice, slice]
  distance: np.ndarray  # px, within the window, negative inside
  radius: float


def _place(rng: np.random.Generator, bands: np.ndarray, stuff: list[int]) -> _Placed:
  """Chooses one thing and where it stands, without painting it."""
  low, high = np.log(_RADIUS)
  radius = float(np.exp(rng.uniform(low, high)))
  margin = 0.7 * radius
  cy, cx = rng.uniform(margin, SIZE - margin, 2)
  ground = int(bands[int(cy), int(cx)])
  tied = rng.random() < _CONTEXT
  shape = stuff[ground] if tied else int(rng.integers(len(SHAPES)))
  colour = int(rng.integers(len(COLOURS)))
  turn = rng.uniform(-0.2, 0.2)
  aspect = np.exp(rng.uniform(-0.07, 0.07))

  reach = 1.2 * radius + 2
  top, left = max(0, int(cy - reach)), max(0, int(cx - reach))
  bottom, right = min(SIZE, int(cy + reach) + 1), min(SIZE, int(cx + reach) + 1)
  dy = (_AXIS[top:bottom, None] - np.float32(cy)) / np.float32(radius)
  dx = (_AXIS[None, left:right] - np.float32(cx)) / np.float32(radius)
  cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
  x = (cos * dx + sin * dy) * np.float32(aspect)
  y = (cos * dy - sin * dx) / np.float32(aspect)
  distance = _DISTANCES[SHAPES[shape]](x, y) * np.float32(radius)
  window = slice(top, bottom), slice(left, right)
  return _Placed(colour * len(SHAPES) + shape, ground, window, distance, radius)


def _part_of(rng: np.random.Generator, thing: _Placed) -> _Placed | None:
  """Places a thing of another colour on the widest place of one; None: no room."""
  y, x = np.unravel_index(np.argmin(thing.distance), thing.distance.shape)
  radius = float(-thing.distance[y, x])
  shape, step = (int(rng.integers(*x)) for x in ((0, len(SHAPES)), (1, len(COLOURS))))
  if radius < _LEAST_PART:
    return None
  colour = (thing.train_id // len(SHAPES) + step) % len(COLOURS)
  height, width = thing.distance.shape
  dy = (_AXIS[:height, None] - np.float32(y)) / np.float32(radius)
  dx = (_AXIS[None, :width] - np.float32(x)) / np.float32(radius)
  own = _DISTANCES[SHAPES[shape]](dx, dy) * np.float32(radius)
  distance = np.maximum(own, thing.distance)  # it ends where the thing does
  train_id = colour * len(SHAPES) + shape
  return _Placed(train_id, thing.ground, thing.window, distance, radius)


def _split_bands(rng: np.random.Generator, count: int) -> tuple[np.ndarray, bool]:
  """Cuts the square into `count` bands along tilted, wavy lines.

  Returns:
    Index of the band, (128, 128) uint8, and whether the bands lie on each other.
  """
  horizontal = bool(rng.random() < 0.7)
  across = _AXIS / SIZE
  tilt, amplitude = rng.uniform(-0.2, 0.2), rng.uniform(0, 0.05)
  wave = amplitude * np.sin(2 * np.pi * (across * rng.uniform(0.7, 2.5) + rng.random()))
  shift = tilt * (across - 0.5) + wave
  height = across[:, None] + shift[None, :]
  even = np.arange(1, count) / count
  cuts = even + rng.uniform(-0.25, 0.25, count - 1) / count
  bands = sum((height > cut).astype(np.uint8) for cut in cuts)
  return (bands if horizontal else bands.T), horizontal


def _place_things(
  rng: np.random.Generator, bands: np.ndarray, stuff: list[int]
) -> tuple[list[_Placed], np.ndarray]:
  """Places two to six things and keeps those that can be seen.

  Returns:
    The things from back to front, and the instance map, (128, 128) uint8: bands
    first, then things in the same order.
  """
  while True:
    placed = [_place(rng, bands, stuff) for _ in range(rng.integers(2, 7))]
    while True:
      instances = bands.copy()
      for index, thing in enumerate(placed, start=len(stuff)):
        instances[thing.window][thing.distance < 0] = index
      counts = np.bincount(instances.ravel(), minlength=len(stuff) + len(placed))
      enough = counts[len(stuff) :] >= MIN_PIXELS
      if enough.all():
        break
      placed = [thing for thing, keep in zip(placed, enough, strict=True) if keep]
    if len(placed) >= 2 and (counts >= MIN_PIXELS).all():
      return placed, instances


def _paint(rng: np.random.Generator, canvas: np.ndarray, thing: _Placed) -> None:
  """Paints one thing with its shadow onto `canvas` (3, 128, 128), in place."""
  rows, columns = thing.window
  cover = np.clip(0.5 - thing.distance, 0, 1)  # one pixel of anti-aliasing
  shadow = np.clip(1 - (thing.distance - 0.5) / 3, 0, 1) * np.float32(0.35)
  drop = rows.start + 2, columns.start + 2  # the shadow falls down and to the right
  h = min(SIZE, rows.stop + 2) - drop[0]
  w = min(SIZE, columns.stop + 2) - drop[1]
  canvas[:, drop[0] : drop[0] + h, drop[1] : drop[1] + w] *= 1 - shadow[:h, :w]

  colour = np.float32(list(COLOURS.values())[thing.train_id // len(SHAPES)])
  colour = colour + rng.normal(0, 12, 3).astype(np.float32)
  slope = rng.normal(0, 0.10, 2).astype(np.float32)
  height, width = thing.distance.shape
  down = 1 + slope[0] * (2 / height * _AXIS[:height] - 1)
  light = down[:, None] + slope[1] * (2 / width * _AXIS[:width] - 1)
  start = rng.integers(len(scenes_textures.grain()) - height * width)
  speckle = scenes_textures.grain()[start : start + height * width]
  light += speckle.reshape(height, width) * np.float32(rng.uniform(0.01, 0.05))
  light *= 1 - np.float32(0.3) * np.clip(thing.distance + 1.8, 0, 1)  # darker rim
  patch = canvas[:, rows, columns]
  patch += cover * (light * colour[:, None, None] - patch)


def _light(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
  """Adds light from one side, a colour cast and sensor noise.

  Args:
    rng: source of randomness.
    canvas: painted scene, (3, 128, 128) float32; overwritten.

  Returns:
    The picture, (128, 128, 3) uint8.
  """
  slope = rng.normal(0, 0.10, 2).astype(np.float32)
  ramp = _AXIS / (SIZE / 2) - 1
  light = np.float32(rng.normal(1, 0.05)) + slope[0] * ramp[:, None] + slope[1] * ramp
  cast = (1 + rng.normal(0, 0.03, 3)).astype(np.float32)
  canvas *= light * cast[:, None, None]
  start = rng.integers(len(scenes_textures.grain()) - canvas.size)
  noise = scenes_textures.grain()[start : start + canvas.size].reshape(canvas.shape)
  canvas += noise * np.float32(rng.uniform(2, 10))
  np.clip(canvas, 0, 255, out=canvas)
  return np.ascontiguousarray(canvas.astype(np.uint8).transpose(1, 2, 0))


def draw_scene(rng: np.random.Generator, *, parts: bool = False) -> Scene:
  """Draws one random scene; the same generator state gives the same scene.

  Args:
    rng: source of randomness.
    parts: whether smaller things of another colour are on those that have room.
  """
  count = 2 if rng.random() < 0.5 else 3
  bands, horizontal = _split_bands(rng, count)
  stuff = [int(s) for s in rng.choice(len(STUFF), count, replace=False)]
  if horizontal:
    stuff.sort(key=lambda s: STUFF[s] != 'sky')  # the sky is above the rest
  placed, instances = _place_things(rng, bands, stuff)

  canvas = np.empty((3, SIZE, SIZE), np.float32)
  for index, kind in enumerate(stuff):
    texture = scenes_textures.window(rng, STUFF[kind], SIZE)
    np.copyto(canvas, texture, where=bands == index)
  of_parts = np.full((SIZE, SIZE), VOID, np.uint8)
  for index, thing in enumerate(placed, start=count):
    _paint(rng, canvas, thing)
    if parts and (part := _part_of(rng, thing)):
      _paint(rng, canvas, part)
      shown = (part.distance < 0) & (instances[part.window] == index)
      if shown.sum() >= _PART_PIXELS:
        of_parts[part.window][shown] = part.train_id
  image = _light(rng, canvas)

  ids = [NUM_THINGS + s for s in stuff] + [t.train_id for t in placed]
  grounds = list(range(count)) + [t.ground for t in placed]
  regions = []
  for index, (train_id, ground) in enumerate(zip(ids, grounds, strict=True)):
    mask = instances == index
    pixels = int(np.count_nonzero(mask))
    x0, y0, x1, y1 = box_of(mask)
    box = (y0, x0, y1, x1)
    regions.append(Region(train_id, box, pixels, NUM_THINGS + stuff[ground]))
  label = np.array(ids, np.uint8)[instances]
  return Scene(image, label, tuple(regions), instances, of_parts)
