"""Masks as polygons through the centres of their border's pixels.

Filled with its border, as OpenCV fills polygons, a polygon is the mask again, pixel for
pixel. Pixels that touch by a corner belong together. A hole is cut open: the border
goes along a row of the mask to the hole, around it, and the same way back.
"""

import numpy as np

from ovs_jax.core.types import Bool, Float

Points = list[tuple[int, int]]
# Right, down, left, up: steps of y and x, and the pixel that lies to the right of an
# edge which starts at the corner between pixels (y - 1, x - 1) and (y, x).
_STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))
_INSIDE = ((0, 0), (0, -1), (-1, -1), (-1, 0))
_UP = 3


def polygons(mask: Bool[np.ndarray, 'h w']) -> list[Points]:
  """Returns a polygon per connected part: x and y in pixels, three points or more."""
  loops, holes, place = _loops(mask)
  inserted: dict[int, dict[int, list[Points]]] = {}
  padded = np.pad(mask, ((0, 0), (1, 0)))
  # From right to left: what is joined to a hole lies to the right of its left end.
  for loop in sorted(holes, key=lambda loop: -min(x for x, _ in loops[loop])):
    x, y = min(loops[loop])
    end = x
    while padded[y, end]:  # in the mask itself, one to the left
      end -= 1
    parent, index = place[y, end]
    around = _with(loops[loop], inserted.pop(loop, {}))
    start = around.index((x, y))
    way = [*around[start:], *around[: start + 1], (end, y)]
    inserted.setdefault(parent, {}).setdefault(index, []).append(way)
  outer = [loop for loop in range(len(loops)) if loop not in holes]
  return [_straight(_with(loops[k], inserted.pop(k, {}))) for k in outer]


def _with(loop: Points, inserted: dict[int, list[Points]]) -> Points:
  """Returns a border with the ways to holes after some of its points."""
  if not inserted:
    return loop
  found = []
  for i, point in enumerate(loop):
    found.append(point)
    for way in inserted.get(i, []):
      found += way
  return found


def _loops(
  mask: Bool[np.ndarray, 'h w'],
) -> tuple[list[Points], set[int], dict[tuple[int, int], tuple[int, int]]]:
  """Follows all borders, with the mask to their right.

  Returns:
    The pixels along each border, one per edge; which borders are those of holes; and
    for each pixel with nothing to its left the border and the place in it where it is
    passed on that side.
  """
  inside = np.pad(mask, 1)
  ul, ur, dl, dr = inside[:-1, :-1], inside[:-1, 1:], inside[1:, :-1], inside[1:, 1:]
  left = [dr & ~ur, dl & ~dr, ul & ~dl, ur & ~ul]  # edges that start at a corner
  left = [edges.copy() for edges in left]
  loops, holes, place = [], set(), {}
  for y, x in np.argwhere(left[0]).tolist():
    if not left[0][y, x]:
      continue
    loop: Points = []
    area, direction = 0, 0
    while left[direction][y, x]:
      left[direction][y, x] = False
      dy, dx = _INSIDE[direction]
      pixel = (x + dx, y + dy)
      if direction == _UP:
        place[pixel[1], pixel[0]] = (len(loops), len(loop))
      loop.append(pixel)
      sy, sx = _STEPS[direction]
      area += x * sy - y * sx
      y, x = y + sy, x + sx
      # Left first, so that pixels which touch by a corner are one part.
      turns = ((direction - 1) % 4, direction, (direction + 1) % 4)
      direction = next((turn for turn in turns if left[turn][y, x]), direction)
    if area < 0:
      holes.add(len(loops))
    loops.append(loop)
  return loops, holes, place


def _straight(points: Points) -> Points:
  """Leaves out points amid straight lines; repeats one until there are three."""
  found: Points = []
  for i, (x, y) in enumerate(points):
    px, py = found[-1] if found else points[-1]
    nx, ny = points[(i + 1) % len(points)]
    if (x, y) == (nx, ny) and len(points) > 1:
      continue
    if found and _step(x - px, y - py) == _step(nx - x, ny - y):
      continue
    found.append((x, y))
  found = found or points[:1]
  return found + found[-1:] * (3 - len(found))


def _step(dx: int, dy: int) -> tuple[int, int] | None:
  """Returns the direction of a line along rows, columns or diagonals."""
  if dx and dy and abs(dx) != abs(dy):
    return None
  return (dx > 0) - (dx < 0), (dy > 0) - (dy < 0)


def filled(
  points: Float[np.ndarray, 'p 2'], size: tuple[int, int]
) -> Bool[np.ndarray, 'h w']:
  """Returns the pixels whose centres lie in a polygon, as COCO means it.

  Args:
    points: x and y of its corners; the first pixel is 0..1. Where a polygon crosses
      itself, what lies inside twice is outside.
    size: height and width of the picture, where the polygon is cut off.
  """
  height, width = size
  turns = np.zeros((height, width + 1), np.int32)  # inside or outside, from there on
  for (xa, ya), (xb, yb) in zip(points, np.roll(points, -1, axis=0), strict=True):
    first, last = (int(np.clip(np.ceil(y - 0.5), 0, height)) for y in sorted((ya, yb)))
    if first < last:
      rows = np.arange(first, last)
      x = xa + (rows + 0.5 - ya) * (xb - xa) / (yb - ya)
      turns[rows, np.clip(np.ceil(x - 0.5), 0, width).astype(int)] += 1
  return turns[:, :width].cumsum(axis=1) % 2 == 1
