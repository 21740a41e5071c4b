"""What a format has to do, with defaults for what few formats do."""

import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from ovs_jax.core.errors import UserError
from ovs_jax.formats.found import Entry, Found

# Files by their path in the format's folder: what they hold, or a file to copy.
Files = dict[str, bytes | Iterable[bytes] | pathlib.Path]


class Format:
  """Files of each photo, and files of the whole run.

  Attributes:
    name: of the format, and of its folder in the output.
    most: names that it can hold; None: any number.
    overlaps: whether several names may have one pixel.
    keeps: whether the files of the run need a `record` of each photo.
  """

  name: str
  most: int | None = None
  overlaps = True
  keeps = False

  def check(self, names: Sequence[str], *, overlapping: bool) -> None:
    """Finds what the format cannot hold, before anything is computed.

    Args:
      names: that are asked for.
      overlapping: whether several names may have one pixel.

    Raises:
      ValueError: it cannot hold them.
    """
    if self.most is not None and len(names) > self.most:
      raise UserError(
        f'the format {self.name!r} holds at most {self.most} names in its 8 bits, got '
        f'{len(names)}; take coco or npz, or ask for fewer names'
      )
    if overlapping and not self.overlaps:
      raise UserError(
        f'the format {self.name!r} holds one name per pixel, and rule D gives several; '
        'take coco, or another rule'
      )

  def paths(self, photo: pathlib.Path, stem: str) -> list[str]:
    """Returns the paths of a photo's own files, whatever is found in it."""
    del photo, stem
    return []

  def files(self, found: Found) -> Files:
    """Returns a photo's own files, those of `paths`.

    Raises:
      ValueError: the format cannot hold what was found.
    """
    del found
    return {}

  def record(self, found: Found, *, parts: bool) -> Any:
    """Returns what `finish` has to know of a photo, fit for JSON.

    Args:
      found: in the photo.
      parts: whether connected parts are to be told apart.
    """
    del found, parts
    return None

  def finish(self, entries: Sequence[Entry], names: Sequence[str]) -> Files:
    """Returns the files of a whole run.

    Args:
      entries: its photos.
      names: that were asked for.
    """
    del entries, names
    return {}
