"""Crops as pairs store them: no larger than asked, and nothing of a mask is lost."""

import io

import numpy as np
import pytest
from PIL import Image

from ovs_jax.data import crops


def decode(data: bytes) -> np.ndarray:
  return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize(
  ('shape', 'shortest', 'expected'),
  [
    ((300, 500), 0, (300, 500)),
    ((300, 500), 300, (300, 500)),
    ((300, 500), 150, (150, 250)),
    ((500, 300), 100, (167, 100)),
    ((90, 5000), 100, (90, 5000)),
  ],
)
def test_the_shorter_side_is_at_most_what_is_asked(
  shape: tuple[int, int], shortest: int, expected: tuple[int, int]
) -> None:
  image = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
  mask = np.zeros(shape, np.uint8)
  mask[: shape[0] // 2] = 255
  small, of_mask = crops.shrink(image, mask, shortest)
  assert small.shape == (*expected, 3) and of_mask.shape == expected
  assert crops.small_size(*shape, shortest) == expected
  assert set(np.unique(of_mask)) == {0, 255}
  assert (of_mask > 0).mean() == pytest.approx(0.5, abs=0.01)
  if shape == expected:
    np.testing.assert_array_equal(small, image)
  else:
    assert small.mean() == pytest.approx(image.mean(), abs=1)
    assert small.std() < image.std()  # noise that is averaged, not picked from


def test_a_crop_whose_mask_would_vanish_stays_as_it_is() -> None:
  image, mask = np.zeros((90, 90, 3), np.uint8), np.zeros((90, 90), np.uint8)
  mask[0, 0] = mask[89, 89] = 255
  assert crops.shrink(image, mask, 30)[1] is mask


def test_png_keeps_every_pixel_and_jpeg_nearly() -> None:
  ramp = np.arange(64 * 48, dtype=np.float32).reshape(64, 48)
  image = np.stack([ramp / 12, 255 - ramp / 12, 128 + 0 * ramp], axis=-1)
  image = image.astype(np.uint8)
  mask = (255 * (ramp > 99)).astype(np.uint8)
  np.testing.assert_array_equal(decode(crops.encode(image, 'png')), image)
  np.testing.assert_array_equal(decode(crops.encode(mask, 'png')), mask)
  lossy = decode(crops.encode(image, 'jpeg'))
  assert lossy.shape == image.shape
  assert 0 < np.abs(lossy.astype(int) - image).mean() < 2
