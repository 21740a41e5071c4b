"""Masks from files: colour decides, and what cannot be seen is outside."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from ovs_jax.core.masks import read_mask

THING = np.zeros((20, 30), bool)
THING[4:12, 6:16] = True


def grey(value: int, dtype: type = np.uint8) -> np.ndarray:
  return np.where(THING, value, 0).astype(dtype)


def with_alpha(colour: np.ndarray, alpha: np.ndarray, mode: str) -> Image.Image:
  channels = {'LA': 1, 'RGBA': 3}[mode]
  planes = [colour] * channels + [alpha]
  return Image.fromarray(np.stack(planes, axis=2).astype(np.uint8), mode)


OPAQUE = np.full(THING.shape, 255)
PICTURES = {
  'grey': Image.fromarray(grey(1)),
  'one_bit': Image.fromarray(THING),
  'sixteen_bits': Image.fromarray(grey(300, np.uint16)),
  'rgb': Image.fromarray(np.stack([grey(0), grey(9), grey(0)], axis=2)),
  'la': with_alpha(grey(255), OPAQUE, 'LA'),
  'rgba': with_alpha(grey(255), OPAQUE, 'RGBA'),
  'cut_out': with_alpha(np.full(THING.shape, 200), grey(255), 'RGBA'),
}


@pytest.mark.parametrize('name', PICTURES)
def test_every_kind_of_picture_has_the_same_mask(
  name: str, tmp_path: pathlib.Path
) -> None:
  PICTURES[name].save(tmp_path / 'mask.png')
  np.testing.assert_array_equal(read_mask(tmp_path / 'mask.png'), THING)


def test_the_noise_of_a_jpeg_is_outside(tmp_path: pathlib.Path) -> None:
  Image.fromarray(grey(255)).save(tmp_path / 'mask.jpg', quality=30)
  with Image.open(tmp_path / 'mask.jpg') as image:
    assert (np.asarray(image) > 0).sum() > THING.sum()
  np.testing.assert_array_equal(read_mask(tmp_path / 'mask.jpg'), THING)
