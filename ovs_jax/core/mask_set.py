"""Many masks of one picture, each kept as the box that it fills."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.masks import box_of
from ovs_jax.core.types import Bool, Float, Int, Num

MasksLike = Any  # arrays (n, h, w), a sequence of arrays (h, w), or a `MaskSet`


@dataclasses.dataclass(frozen=True)
class Cut:
  """A mask without the zeros around it.

  Attributes:
    top: of the box in the picture.
    left: of the box in the picture.
    values: true or false, or soft in 0..1; without any if the mask is all 0.
    source: what tells the mask apart where it came from.
  """

  top: int
  left: int
  values: Bool[np.ndarray, 'y x'] | Float[np.ndarray, 'y x']
  source: Any

  @property
  def box(self) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 in pixels, exclusive ends."""
    height, width = self.values.shape
    return self.left, self.top, self.left + width, self.top + height


@dataclasses.dataclass(frozen=True)
class MaskSet:
  """The masks of a picture, which may overlap.

  Attributes:
    size: height and width of the picture.
    cuts: at least one.
  """

  size: tuple[int, int]
  cuts: tuple[Cut, ...]

  def __len__(self) -> int:
    """Returns how many masks there are."""
    return len(self.cuts)

  def full(self, index: int) -> Float[np.ndarray, 'h w']:
    """Returns a mask in the picture's size."""
    return self.window(index, (0, 0, *self.size[::-1]))

  def window(
    self, index: int, box: tuple[int, int, int, int]
  ) -> Float[np.ndarray, 'y x']:
    """Returns what a mask has in a box x0, y0, x1, y1, with zeros where nothing is."""
    x0, y0, x1, y1 = box
    found = np.zeros((y1 - y0, x1 - x0), np.float32)
    left, top, right, bottom = self.cuts[index].box
    xs = max(x0, left), min(x1, right)
    ys = max(y0, top), min(y1, bottom)
    if xs[0] < xs[1] and ys[0] < ys[1]:
      part = self.cuts[index].values[ys[0] - top : ys[1] - top]
      found[ys[0] - y0 : ys[1] - y0, xs[0] - x0 : xs[1] - x0] = part[
        :, xs[0] - left : xs[1] - left
      ]
    return found

  def boxes(self) -> Int[np.ndarray, 'n 4']:
    """Returns x0, y0, x1, y1 of all masks, exclusive ends."""
    return np.array([cut.box for cut in self.cuts], np.int64)


def cut_mask(
  mask: Num[np.ndarray, 'h w'] | Bool[np.ndarray, 'h w'], source: Any
) -> Cut:
  """Keeps the box of a mask whose values were checked."""
  shown = mask if mask.dtype == bool else mask > 0
  if not shown.any():
    return Cut(0, 0, np.zeros((0, 0), bool), source)
  x0, y0, x1, y1 = box_of(shown)
  kind = bool if mask.dtype.kind in 'bui' else np.float32
  return Cut(y0, x0, mask[y0:y1, x0:x1].astype(kind), source)


def mask_set(masks: MasksLike, size: tuple[int, int]) -> MaskSet:
  """Checks masks, and keeps them in little memory.

  Args:
    masks: an array (n, h, w) or a sequence of arrays (h, w), true or false or soft in
      0..1; or a `MaskSet`. Sources are their numbers.
    size: height and width of the picture.

  Raises:
    UserError: there are none, or of another size, or with other values.
  """
  if isinstance(masks, MaskSet):
    check_size(masks.size, size, 'the masks')
    return masks
  if hasattr(masks, 'shape') and len(masks.shape) != 3:
    raise UserError(
      f'masks must be an array (n, h, w) or a list of arrays (h, w), got the shape '
      f'{tuple(masks.shape)}; put a single mask into a list'
    )
  if not hasattr(masks, 'shape') and not isinstance(masks, Sequence):
    raise UserError(
      'masks must be an array (n, h, w) or a list of arrays (h, w), got '
      f'{type(masks).__name__}'
    )
  return of_cuts(_cuts(masks, size), size)


def of_cuts(cuts: Iterable[Cut], size: tuple[int, int]) -> MaskSet:
  """Returns the set of some masks; raises UserError if there are none."""
  found = tuple(cuts)
  if not found:
    raise UserError('there are no masks; give at least one')
  return MaskSet(size, found)


def _cuts(masks: Iterable[Any], size: tuple[int, int]) -> Iterable[Cut]:
  for i, given in enumerate(masks):
    mask = np.asarray(given)
    check_size(mask.shape, size, f'mask {i}')
    if mask.dtype.kind not in 'buif':
      raise UserError(
        f'mask {i} has values of the type {mask.dtype}; give true and false, or '
        'numbers in 0..1'
      )
    if mask.dtype != bool and not (np.min(mask) >= 0 and np.max(mask) <= 1):
      raise UserError(
        f'mask {i} has values from {np.min(mask)} to {np.max(mask)}; give true and '
        'false, or numbers in 0..1'
      )
    yield cut_mask(mask, i)


def check_size(shape: Sequence[int], size: Sequence[int], what: str) -> None:
  """Raises UserError for a mask of another size than the picture."""
  if tuple(shape) != tuple(size):
    got = ' x '.join(map(str, shape))
    raise UserError(
      f'{what} has {got} pixels (height x width), the photo {size[0]} x {size[1]}; '
      'give masks of the size of the photo'
    )
