"""What CoSeg, which learns squares, sees of a picture that is none.

The paper squashes it. With its aspect kept it is either padded to a square, or seen in
overlapping squares, whose slots then are those of the picture.
"""

from collections.abc import Callable

import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.types import Float, UInt8
from ovs_jax.inference.clipseg_prompts import squash
from ovs_jax.inference.encode import window_starts
from ovs_jax.models.maskformer import IMAGENET_MEAN

VIEWS = ('squash', 'pad', 'windows')
NOWHERE = -30.0  # logit of a slot's mask beyond its window
_OVERLAP = 0.25  # share of a window that the next one repeats
_LONGEST = 8  # times as long as wide: windows hold all their slots at once
_FILL = np.round(IMAGENET_MEAN).astype(np.uint8)  # 0 for the network

Slots = tuple[Float[np.ndarray, 'n d'], Float[np.ndarray, 'n y x']]
Predict = Callable[[UInt8[np.ndarray, 's s 3']], Slots]


def slots_of(
  image: UInt8[np.ndarray, 'h w 3'], side: int, view: str, predict: Predict
) -> Slots:
  """Returns the tokens of a picture's slots, and the logits of their masks on it.

  Args:
    image: RGB.
    side: s, of the square that the network takes.
    view: one of `VIEWS`.
    predict: gives the slots of a square, with masks of any one size.

  Raises:
    ValueError: the picture is too long for windows.
  """
  if view == 'pad':
    return _padded(image, side, predict)
  if view == 'windows':
    return _in_windows(image, side, predict)
  return predict(squash(image, (side, side)))


def _padded(image: UInt8[np.ndarray, 'h w 3'], side: int, predict: Predict) -> Slots:
  longest = max(image.shape[:2])
  rows, columns = (max(round(length * side / longest), 1) for length in image.shape[:2])
  square = np.full((side, side, 3), _FILL)
  square[:rows, :columns] = squash(image, (rows, columns))
  tokens, logits = predict(square)
  y, x = (
    -(-shown * length // side)
    for shown, length in zip((rows, columns), logits.shape[1:], strict=True)
  )
  return tokens, logits[:, :y, :x]


def _in_windows(
  image: UInt8[np.ndarray, 'h w 3'], side: int, predict: Predict
) -> Slots:
  shortest, longest = sorted(image.shape[:2])
  if longest > _LONGEST * shortest:
    raise UserError(
      f'the image has {image.shape[0]}x{image.shape[1]} pixels, more than {_LONGEST} '
      'times as long as wide; give a part of it, or take another view than windows'
    )
  starts = [window_starts(length, shortest, _OVERLAP) for length in image.shape[:2]]
  found = []
  for top in starts[0]:
    for left in starts[1]:
      window = image[top : top + shortest, left : left + shortest]
      tokens, logits = predict(squash(window, (side, side)))
      n, *grid = logits.shape
      size = [
        max(round(length * cells / shortest), cells)
        for length, cells in zip(image.shape[:2], grid, strict=True)
      ]
      y, x = (
        min(round(at * cells / shortest), whole - cells)
        for at, cells, whole in zip((top, left), grid, size, strict=True)
      )
      masks = np.full((n, *size), np.float32(NOWHERE))
      masks[:, y : y + grid[0], x : x + grid[1]] = logits
      found.append((tokens, masks))
  return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))
