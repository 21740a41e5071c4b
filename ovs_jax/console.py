"""What commands on photos say: errors and warnings on a line each, and progress."""

import pathlib
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
from tqdm import tqdm

from ovs_jax.core.images import read_image
from ovs_jax.core.runlog import progress
from ovs_jax.core.types import UInt8


def complain(error: Exception) -> None:
  """Says on one line what was wrong."""
  tqdm.write(f'error: {" ".join(str(error).split())}', file=sys.stderr)


def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
  """Prints a warning on one line, in place of Python's two."""
  tqdm.write(f'warning: {" ".join(str(message).split())}', file=sys.stderr)


def tell(text: str) -> None:
  """Says what takes long, on a terminal; a log has the reports instead."""
  if sys.stderr.isatty():
    tqdm.write(f'{text} ...', file=sys.stderr)


def progressing(items: Iterable[Any], total: int, title: str) -> Iterable[Any]:
  """Shows a bar on a terminal; a log has the reports instead."""
  if total > 1 and sys.stderr.isatty():
    return progress(items, total=total, title=title, unit='image')
  return items


def read_photo(path: pathlib.Path) -> UInt8[np.ndarray, 'h w 3'] | None:
  """Reads a photo as RGB, 0..255; says why if it cannot."""
  try:
    return read_image(path)
  except (ValueError, FileNotFoundError) as error:
    complain(error)
    return None
