"""What was found in a photo, as all formats take it."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from ovs_jax.core.masks import box_of
from ovs_jax.core.types import Bool, Float, Int


@dataclasses.dataclass(frozen=True)
class Instance:
  """One segment: all of a name, or one thing where things are told apart.

  Attributes:
    label: index into the names.
    mask: its pixels, at least one.
    confidence: 0..1.
  """

  label: int
  mask: Bool[np.ndarray, 'h w']
  confidence: float

  @property
  def area(self) -> int:
    """Its number of pixels."""
    return int(self.mask.sum())

  @property
  def box(self) -> tuple[int, int, int, int]:
    """Its x, y, width and height in pixels."""
    x0, y0, x1, y1 = box_of(self.mask)
    return x0, y0, x1 - x0, y1 - y0


@dataclasses.dataclass(frozen=True)
class Found:
  """A photo and what was found in it.

  Attributes:
    photo: the file.
    stem: by which its files are called, unlike those of all other photos of a run.
    names: that were asked for.
    labels: indices into them, below 0 where there is none. Where names overlap, it has
      the best one.
    confidence: of the labels, 0..1.
    instances: largest first; none if nothing was found.
    output: the folder that has the formats' folders; None elsewhere than on this disk.
  """

  photo: pathlib.Path
  stem: str
  names: tuple[str, ...]
  labels: Int[np.ndarray, 'h w']
  confidence: Float[np.ndarray, 'h w']
  instances: tuple[Instance, ...]
  output: pathlib.Path | None = None

  @property
  def size(self) -> tuple[int, int]:
    """The height and width of the photo."""
    return self.labels.shape


@dataclasses.dataclass(frozen=True)
class Entry:
  """One photo of a run, when the files of the whole run are written.

  Attributes:
    photo: the file.
    file_name: the photo's path from the folder that all photos of the run are in.
    stem: by which its files are called.
    size: height and width.
    load: gives what `Format.record` returned, as JSON keeps it.
  """

  photo: pathlib.Path
  file_name: str
  stem: str
  size: tuple[int, int]
  load: Callable[[], Any]
