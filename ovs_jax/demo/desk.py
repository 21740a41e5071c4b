"""Photos and answers of all users of the page: each photo is encoded once."""

import collections
import dataclasses
import hashlib
import pathlib
import threading
from collections.abc import Generator
from typing import Any, Generic, TypeVar

import numpy as np

from ovs_jax.core.files import Path, local
from ovs_jax.core.types import UInt8
from ovs_jax.demo.asking import Asked
from ovs_jax.demo.limits import Limits, open_photo
from ovs_jax.demo.line import Line
from ovs_jax.inference.result import Segmentation
from ovs_jax.inference.segmenter import Segmenter
from ovs_jax.inference.system import MaskSystem, options_of

T = TypeVar('T')

# Where the threshold stands at first. Masks of CLIPSeg and CoSeg claim pixels with a
# probability of 0.3; the best label of an OVSeg is shown, however sure it is.
_FIRST_THRESHOLD = {True: 0.3, False: 0.0}


@dataclasses.dataclass(frozen=True)
class Photo:
  """A photo that somebody sent.

  Attributes:
    key: a hash of its pixels.
    path: the file, as it was sent.
    pixels: RGB, 0..255, turned as the camera noted.
  """

  key: str
  path: pathlib.Path
  pixels: UInt8[np.ndarray, 'h w 3']


@dataclasses.dataclass(frozen=True)
class Answer:
  """What was found in a photo.

  Attributes:
    photo: in which.
    asked: what was looked for.
    result: the labels.
  """

  photo: Photo
  asked: Asked
  result: Segmentation


class Desk:
  """A model, and what was encoded with it.

  Attributes:
    segmenter: the model.
    limits: for every user.
    heat: whether the model has heat maps.
    first_threshold: where the threshold stands at first.
  """

  def __init__(self, segmenter: Segmenter, limits: Limits | None = None) -> None:
    """Takes a model that is loaded."""
    self.segmenter = segmenter
    self.limits = Limits() if limits is None else limits
    system = segmenter.system
    self.heat = 'heat' in options_of(type(system).segment)
    self.first_threshold = _FIRST_THRESHOLD[isinstance(system, MaskSystem)]
    self._line = Line(seconds=self.limits.seconds, waiting=self.limits.waiting)
    self._photos: _Last[Photo] = _Last(self.limits.pictures)
    self._encoded: _Last[Any] = _Last(self.limits.pictures)

  def photo(self, given: Path) -> Photo:
    """Reads a photo, unless it is among the last ones that were read.

    Raises:
      ValueError: it is too large, or no picture.
    """
    path = local(given)
    found = self._photos.get(path)
    if found is None:
      pixels = open_photo(path, self.limits)
      about = f'{pixels.shape}'.encode()
      key = hashlib.sha256(about + pixels.tobytes()).hexdigest()
      found = self._photos.put(path, Photo(key, path, pixels))
    return found

  def is_encoded(self, photo: Photo) -> bool:
    """Returns whether a new question about the photo is answered from memory."""
    return self._encoded.get(photo.key) is not None

  def ask(
    self, photo: Photo, asked: Asked, *, threshold: float = 0.0
  ) -> Generator[int, None, Answer]:
    """Looks for names in a photo.

    Args:
      photo: what `photo` returned.
      asked: the names.
      threshold: below which pixels get no name, 0..1, as in `Segmenter.segment`.

    Yields:
      How many requests of others come first, again and again while it waits.

    Returns:
      The answer.

    Raises:
      ValueError: a name is too long for the model, the picture too small, too many
        wait, or it took too long.
    """
    return (yield from self._line.run(lambda: self._answer(photo, asked, threshold)))

  def _answer(self, photo: Photo, asked: Asked, threshold: float) -> Answer:
    encoded = self._encoded.get(photo.key)
    if encoded is None:
      encoded = self._encoded.put(photo.key, self.segmenter.encode(photo.pixels))
    more = {'heat': True} if self.heat else {}
    found = self.segmenter.segment(
      encoded,
      asked.classes,
      background=asked.background,
      threshold=threshold,
      **more,
    )
    return Answer(photo, asked, found)


class _Last(Generic[T]):
  """The last few values that were put or got; several threads may ask."""

  def __init__(self, count: int) -> None:
    self._count = count
    self._lock = threading.Lock()
    self._kept: collections.OrderedDict[Any, T] = collections.OrderedDict()

  def get(self, key: Any) -> T | None:
    """Returns a value, which is now the last; None if it is not kept."""
    with self._lock:
      if key in self._kept:
        self._kept.move_to_end(key)
      return self._kept.get(key)

  def put(self, key: Any, value: T) -> T:
    """Keeps a value, and returns it."""
    with self._lock:
      self._kept[key] = value
      self._kept.move_to_end(key)
      while len(self._kept) > self._count:
        self._kept.popitem(last=False)
    return value
