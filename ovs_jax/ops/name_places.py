"""Where a name can be written inside the pixels that have it."""

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from ovs_jax.core.types import Bool, Int

_CELLS = 256  # of the longer side, among which places are looked for


def main_parts(
  labels: Int[np.ndarray, 'h w'], count: int
) -> Iterator[tuple[int, Bool[np.ndarray, '_ _'], int]]:
  """Yields the largest connected part of each label, coarsely.

  Args:
    labels: of any values; those in 0..count-1 count.
    count: of the labels.

  Yields:
    The label, the part in cells, all of whose pixels belong to the label, and the side
    of a cell in pixels.
  """
  step = -(-max(labels.shape) // _CELLS)
  high, wide = (side // step for side in labels.shape)
  cells = labels[: high * step, : wide * step].reshape(high, step, wide, step)
  least, most = cells.min(axis=(1, 3)), cells.max(axis=(1, 3))
  pure = np.where((least == most) & (least >= 0) & (least < count), least, -1)
  for label in np.unique(pure[pure >= 0]).tolist():
    parts, found = ndimage.label(pure == label)
    sizes = np.bincount(parts.ravel(), minlength=found + 1)[1:]
    yield label, parts == 1 + int(np.argmax(sizes)), step


def room(
  mask: Bool[np.ndarray, 'y x'], step: int, box: tuple[int, int]
) -> tuple[int, int] | None:
  """Returns where a box fits into a mask, as far from its border as it can be.

  Args:
    mask: in cells.
    step: side of a cell in pixels.
    box: width and height in pixels.

  Returns:
    The box's left and top in pixels; None if it fits nowhere.
  """
  wide, high = (-(-side // step) for side in box)
  if high > mask.shape[0] or wide > mask.shape[1]:
    return None
  total = np.pad(mask.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
  inside = total[high:, wide:] - total[:-high, wide:]
  inside = inside - total[high:, :-wide] + total[:-high, :-wide]
  fits = inside == high * wide
  if not fits.any():
    return None
  # Places themselves form a mask; its innermost one leaves most room on all sides.
  deep = ndimage.distance_transform_edt(np.pad(fits, 1))[1:-1, 1:-1]
  top, left = np.unravel_index(np.argmax(deep), deep.shape)
  slack = wide * step - box[0], high * step - box[1]
  return int(left) * step + slack[0] // 2, int(top) * step + slack[1] // 2
