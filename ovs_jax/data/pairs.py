"""Mined mask-noun pairs as a TFDS data set that carries the exact masks.

OVSeg's own data marks the background by a colour, which JPEG blurs and which an object
may have; here the crop keeps its pixels and the mask lies beside it, both lossless.
"""

import contextlib
import io
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import (
  Path,
  atomic_path,
  place,
  read_json,
  write_json,
  write_text,
)

_VERSION = '1.0.0'
_SHEET = 'datasheet.json'
_NOUNS = 'nouns.txt'  # the noun of every pair, in order
_NEEDED = ('image', 'mask', 'noun')


def features() -> tfds.features.FeaturesDict:
  """Returns the fields of a pair.

  `image` (h, w, 3) and `mask` (h, w, 1; 0 or 255) are the tight crop at its own
  resolution; `box` is x0, y0, x1, y1 with exclusive ends; `score` is what proposals
  were chosen by, `cosine` CLIP's similarity. `caption` and `proposal` are indices
  within the image; -1 where there is none.
  """
  png = {'encoding_format': 'png'}
  return tfds.features.FeaturesDict(
    {
      'image': tfds.features.Image(shape=(None, None, 3), **png),
      'mask': tfds.features.Image(shape=(None, None, 1), **png),
      'noun': tfds.features.Text(),
      'image_id': tfds.features.Text(),
      'caption': np.int32,
      'proposal': np.int32,
      'box': tfds.features.Tensor(shape=(4,), dtype=np.int32),
      'score': np.float32,
      'cosine': np.float32,
    }
  )


def write(directory: Path, pairs: Iterable[dict[str, Any]], sheet: Any) -> None:
  """Writes pairs and their datasheet to `directory`, atomically.

  Images may be arrays or files of PNG bytes.
  """
  found: list[str] = []

  def noted() -> Iterator[dict[str, Any]]:
    for pair in pairs:
      found.append(pair['noun'])
      yield pair

  with atomic_path(directory, last=_SHEET) as temporary:
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS's notes on its progress
      _store(temporary, noted())
    write_text(temporary / _NOUNS, ''.join(f'{noun}\n' for noun in found))
    write_json(temporary / _SHEET, sheet)


def _store(directory: pathlib.Path, pairs: Iterable[dict[str, Any]]) -> None:
  tfds.dataset_builders.store_as_tfds_dataset(
    name='pairs',
    version=_VERSION,
    data_dir=str(directory),
    features=features(),
    split_datasets={'train': enumerate(pairs)},
    description='Mask-noun pairs mined from captions.',
    disable_shuffling=True,
  )


def is_written(directory: Path) -> bool:
  """Returns whether there is a mined data set, written to its end."""
  return (place(directory) / _SHEET).is_file()


def load(directory: Path) -> Any:
  """Returns the TFDS builder of a mined data set.

  Raises:
    FileNotFoundError: there is none in `directory`.
    ValueError: it is another data set.
  """
  path = place(directory, schemes=('gs',)) / 'pairs' / _VERSION
  if not path.is_dir():
    raise FileNotFoundError(
      f'{directory} holds no mined pairs; make them with a config whose mode is '
      '"mine", such as configs/scenes.py:mine'
    )
  builder = tfds.builder_from_directory(str(path))
  missing = [name for name in _NEEDED if name not in builder.info.features]
  if missing:
    raise UserError(
      f'{directory} holds no mask-noun pairs: it has no {", ".join(missing)}; make '
      'them with a config whose mode is "mine"'
    )
  return builder


def nouns(directory: Path) -> list[str]:
  """Returns the noun of every pair, in the order of the data.

  Raises:
    FileNotFoundError: the pairs were mined before this list was kept.
  """
  path = place(directory) / _NOUNS
  if not path.is_file():
    raise FileNotFoundError(
      f'{path} not found; the pairs are of an earlier version: mine them again'
    )
  return path.read_text(encoding='utf-8').splitlines()


def datasheet(directory: Path) -> Any:
  """Returns what mining recorded about the data: settings, backend, counts."""
  return read_json(place(directory) / _SHEET)
