"""Mined mask-noun pairs as a TFDS data set that carries the exact masks.

OVSeg's own data marks the background by a colour, which JPEG blurs and which an object
may have; here the crop keeps its pixels and the mask lies beside it, both lossless.
"""

import contextlib
import io
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from ovs_jax.core.files import Path, atomic_path, read_json, write_json

_VERSION = '1.0.0'
_SHEET = 'datasheet.json'


def features() -> tfds.features.FeaturesDict:
  """Returns the fields of a pair.

  `image` (h, w, 3) and `mask` (h, w, 1; 0 or 255) are the tight crop at its own
  resolution; `box` is x0, y0, x1, y1 with exclusive ends; `score` is CLIP's cosine.
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
    }
  )


def write(directory: Path, pairs: Iterable[dict[str, Any]], sheet: Any) -> None:
  """Writes pairs and their datasheet to `directory`, atomically."""
  with atomic_path(pathlib.Path(directory).absolute()) as temporary:
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS's notes on its progress
      _store(temporary, pairs)
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


def load(directory: Path) -> Any:
  """Returns the TFDS builder of a mined data set.

  Raises:
    FileNotFoundError: there is none in `directory`.
  """
  path = pathlib.Path(directory) / 'pairs' / _VERSION
  if not path.is_dir():
    raise FileNotFoundError(
      f'{directory} holds no mined pairs; make them with a config whose mode is '
      '"mine", such as configs/mine_scenes.py'
    )
  return tfds.builder_from_directory(str(path))


def datasheet(directory: Path) -> Any:
  """Returns what mining recorded about the data: settings, backend, counts."""
  return read_json(pathlib.Path(directory) / _SHEET)
