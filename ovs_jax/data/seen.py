"""Which classes the masks of a user's folder have pixels of."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovs_jax.core.types import Int

_SHOWN = 8  # names in a note


class Seen:
  """Counts pixels, to tell what is probably not meant so."""

  def __init__(self, classes: int) -> None:
    """Takes the number of classes."""
    self._pixels = np.zeros(classes, np.int64)
    self._void: list[str] = []

  def add(self, name: str, counts: Int[np.ndarray, 'v']) -> None:
    """Adds a mask's pixels by train id."""
    self._pixels += counts[: len(self._pixels)]
    if not counts[: len(self._pixels)].any():
      self._void.append(name)

  def fresh(self) -> 'Seen':
    """Returns one for the same classes that has seen nothing."""
    return Seen(len(self._pixels))

  def to_json(self) -> list[Any]:
    """Returns what `update` takes."""
    return [self._pixels.tolist(), self._void]

  def update(self, other: Sequence[Any]) -> None:
    """Adds what another one has seen, from its `to_json`."""
    pixels, void = other
    self._pixels += np.array(pixels, np.int64)
    self._void += void

  def notes(self, names: Sequence[str], values: Sequence[int]) -> list[str]:
    """Returns sentences about classes without a pixel, and masks without a class.

    Args:
      names: of the classes.
      values: of the classes, in masks.
    """
    unseen = [
      f'{name} (value {value})'
      for name, value, count in zip(names, values, self._pixels, strict=True)
      if not count
    ]
    found = []
    if unseen:
      found.append(
        f'no mask has a pixel of {_some(unseen)}. 255 means void, not the last class: '
        'masks of 0 and 255 need 1 in its place'
      )
    if self._void:
      masks = 'mask is' if len(self._void) == 1 else 'masks are'
      found.append(f'{len(self._void)} {masks} void everywhere: {_some(self._void)}')
    return found


def _some(names: Sequence[str]) -> str:
  more = f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
  return ', '.join(names[:_SHOWN]) + more
