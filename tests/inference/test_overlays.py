"""Overlays as files, and segments with ids to look at."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from ovs_jax.inference import overlays
from ovs_jax.inference.panoptic import Panoptic, PanopticSegment
from ovs_jax.ops.colours import palette


@pytest.mark.parametrize(
  ('size', 'suffix'), [((2000, 2000), 'png'), ((2000, 2001), 'jpg'), ((3, 3), 'png')]
)
def test_large_photos_have_jpegs(
  tmp_path: pathlib.Path, size: tuple[int, int], suffix: str
) -> None:
  Image.new('L', size).save(tmp_path / 'photo.png')
  assert overlays.suffix_of(tmp_path / 'photo.png') == suffix


def test_what_is_no_photo_is_left_to_its_reader(tmp_path: pathlib.Path) -> None:
  (tmp_path / 'a.png').write_bytes(b'text')
  assert overlays.suffix_of(tmp_path / 'a.png') == 'png'
  assert overlays.suffix_of(tmp_path / 'missing.png') == 'png'


def test_a_jpeg_has_4_mib_at_most(tmp_path: pathlib.Path) -> None:
  # Noise of 5 megapixels takes 8 MB in the first quality.
  noise = np.random.default_rng(0).integers(0, 256, (2000, 2500, 3)).astype(np.uint8)
  overlays.save(Image.fromarray(noise), tmp_path / 'a.jpg')
  assert 10**6 < (tmp_path / 'a.jpg').stat().st_size <= 4 * 2**20
  flat = Image.new('RGB', (64, 64), (10, 200, 30))
  overlays.save(flat, tmp_path / 'b.jpg')
  assert abs(np.asarray(Image.open(tmp_path / 'b.jpg')).astype(int) - flat).max() < 4
  overlays.save(flat, tmp_path / 'b.png')
  np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / 'b.png')), flat)


def test_segments_of_a_name_have_shades_of_its_colour() -> None:
  def segment(number: int, label: int, name: str) -> PanopticSegment:
    return PanopticSegment(number, label, name, 1.0, 1.0, 1, (0, 0, 1, 1))

  ids = np.repeat([0, 1, 2, 3], 10)[None].repeat(10, axis=0)
  cars = segment(1, 1, 'car'), segment(2, 1, 'car'), segment(3, 0, 'sky')
  panoptic = Panoptic(ids=ids, segments=cars, trained=True)
  picture = overlays.draw_panoptic(
    np.zeros((10, 40, 3), np.uint8), panoptic, ('sky', 'car')
  )
  boxes = {tuple(x) for x in np.asarray(picture)[10:].reshape(-1, 3).tolist()}
  first, sky = palette(2)[1], palette(2)[0]
  assert tuple(first.tolist()) in boxes and tuple(sky.tolist()) in boxes
  dark, light = first * 0.35, 255 - (255 - first) * 0.35
  middle = np.round((dark + light) / 2).astype(int)
  assert tuple(middle.tolist()) in boxes
