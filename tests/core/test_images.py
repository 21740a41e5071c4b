"""Photographs of every kind, and files that are none."""

import io
import struct
import sys
import warnings
import zlib

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ovs_jax.core.images import (
  as_rgb,
  read_image,
  resize_shortest,
  shortest_size,
  size_of,
)

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)

# A texture of a kind that Pillow knows and cannot read.
DDS = struct.pack('<4s7I44x8I20x', b'DDS ', 124, 4103, 4, 4, 0, 0, 0, 32, *[0] * 7)


def png_header(width, height):
  """A PNG that claims a size and holds nothing."""

  def block(kind, data):
    crc = zlib.crc32(kind + data)
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', crc)

  header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
  return (
    b'\x89PNG\r\n\x1a\n'
    + block(b'IHDR', header)
    + block(b'IDAT', zlib.compress(b'\0'))
    + block(b'IEND', b'')
  )


def saved(tmp_path, image, name='image.png', **options):
  path = tmp_path / name
  image.save(path, **options)
  return path


class TestReadImage:
  def test_rgb(self, tmp_path):
    path = saved(tmp_path, Image.fromarray(RGB))
    for given_path in (path, str(path)):
      got = read_image(given_path)
      assert got.dtype == np.uint8
      np.testing.assert_array_equal(got, RGB)

  def test_result_can_be_written_to(self, tmp_path):
    read_image(saved(tmp_path, Image.fromarray(RGB)))[0, 0] = 0

  @pytest.mark.parametrize('name', ['a.jpg', 'a.webp', 'a.tiff', 'a.bmp', 'a.gif'])
  def test_formats(self, tmp_path, name):
    flat = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    got = read_image(saved(tmp_path, Image.fromarray(flat), name))
    np.testing.assert_allclose(got.astype(int), flat, atol=4)

  def test_one_pixel(self, tmp_path):
    got = read_image(saved(tmp_path, Image.new('RGB', (1, 1), (1, 2, 3))))
    np.testing.assert_array_equal(got, [[[1, 2, 3]]])

  def test_grey(self, tmp_path):
    got = read_image(saved(tmp_path, Image.fromarray(RGB[..., 0])))
    np.testing.assert_array_equal(got, RGB[..., :1].repeat(3, axis=2))

  def test_black_and_white(self, tmp_path):
    bits = np.array([[True, False]])
    got = read_image(saved(tmp_path, Image.fromarray(bits)))
    np.testing.assert_array_equal(got, [[[255] * 3, [0] * 3]])

  @pytest.mark.parametrize('name', ['a.png', 'a.tiff', 'a.pgm'])
  def test_16_bits(self, tmp_path, name):
    values = np.array([[0, 255, 256], [32768, 65279, 65535]], np.uint16)
    got = read_image(saved(tmp_path, Image.fromarray(values), name))
    expected = np.array([[0, 0, 1], [128, 254, 255]])
    np.testing.assert_array_equal(got, expected[..., None].repeat(3, axis=2))

  def test_32_bits_and_floats_are_refused(self, tmp_path):
    big = np.array([[0, 2**20]], np.int32)
    with pytest.raises(ValueError, match=r'a\.tiff.*0\.\.1048576.*8 or 16 bits'):
      read_image(saved(tmp_path, Image.fromarray(big), 'a.tiff'))
    floats = np.array([[0.0, 0.5]], np.float32)
    with pytest.raises(ValueError, match=r'b\.tiff.*floating.*8 or 16 bits'):
      read_image(saved(tmp_path, Image.fromarray(floats), 'b.tiff'))

  def test_cmyk(self, tmp_path):
    red = Image.new('CMYK', (16, 16), (0, 255, 255, 0))
    got = read_image(saved(tmp_path, red, 'a.jpg', quality=95))
    np.testing.assert_allclose(got[8, 8].astype(int), (255, 0, 0), atol=6)

  def test_palette(self, tmp_path):
    image = Image.fromarray(RGB).quantize(64)
    got = read_image(saved(tmp_path, image))
    np.testing.assert_array_equal(got, np.asarray(image.convert('RGB')))

  @pytest.mark.parametrize('mode', ['RGBA', 'LA', 'P'])
  def test_alpha_is_laid_on_white(self, tmp_path, mode):
    if mode == 'P':
      image = Image.new('P', (3, 1))
      image.putpalette([10, 10, 10, 99, 99, 99])
      image.putdata([0, 1, 0])
      path = saved(tmp_path, image, transparency=1)
      expected = [10, 255, 10]
    else:
      grey, alpha = (Image.new('L', (3, 1)) for _ in range(2))
      grey.putdata([10, 10, 10])
      alpha.putdata([255, 0, 128])
      channels = [grey] * (len(mode) - 1) + [alpha]
      path = saved(tmp_path, Image.merge(mode, channels))
      expected = [10, 255, 132]
    np.testing.assert_allclose(read_image(path)[0, :, 0].astype(int), expected, atol=1)

  @pytest.mark.parametrize('orientation', range(1, 9))
  def test_exif_orientation(self, tmp_path, orientation):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16] = 255  # the upper left quarter
    # How the camera's sensor saw it; the tag says how to turn it back.
    back = {
      1: lambda x: x,
      2: lambda x: x[:, ::-1],
      3: lambda x: x[::-1, ::-1],
      4: lambda x: x[::-1],
      5: lambda x: x.transpose(1, 0, 2),
      6: lambda x: np.rot90(x, 1),
      7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
      8: lambda x: np.rot90(x, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(back(upright)))
    got = read_image(saved(tmp_path, image, 'a.jpg', quality=95, exif=exif))
    assert got.shape == upright.shape
    np.testing.assert_allclose(got.astype(int), upright, atol=8)

  def test_damaged_exif_is_no_obstacle(self, tmp_path):
    path = saved(tmp_path, Image.fromarray(RGB), 'a.jpg', exif=b'Exif\0\0MM\0*\0\0')
    assert read_image(path).shape == RGB.shape

  def test_first_frame(self, tmp_path):
    frames = [Image.new('RGB', (4, 4), colour) for colour in ('red', 'blue')]
    path = saved(tmp_path, frames[0], 'a.gif', save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read_image(path)[0, 0], [255, 0, 0])

  @pytest.mark.parametrize(
    ('data', 'message'),
    [
      (b'', 'the file is empty'),
      (b'no image at all', 'no known image format'),
      (b'<html>404</html>', 'no known image format'),
      (png_header(4, 4), 'expected a whole'),
      (png_header(4, 0), 'expected a whole'),
      (png_header(4, 4)[:20], 'expected a whole'),
      (DDS, 'Unknown pixel format'),
      (png_header(60_000, 60_000), 'claims more than 178956970 pixels'),
    ],
  )
  def test_no_image(self, tmp_path, data, message):
    path = tmp_path / 'photo.jpg'
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f'photo.jpg.*{message}'):
      read_image(path)

  @pytest.mark.parametrize('kind', ['jpeg', 'png', 'webp', 'tiff', 'gif', 'avif'])
  @pytest.mark.parametrize('share', [0.02, 0.5, 0.9])
  def test_cut_off(self, tmp_path, kind, share):
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(buffer, kind)
    path = tmp_path / 'photo'
    path.write_bytes(buffer.getvalue()[: int(share * len(buffer.getvalue()))])
    with pytest.raises(ValueError, match='photo cannot be read as an image'):
      read_image(path)

  def test_missing(self, tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere.jpg not found'):
      read_image(tmp_path / 'nowhere.jpg')

  def test_directory(self, tmp_path):
    with pytest.raises(ValueError, match='is a directory'):
      read_image(tmp_path)


class TestAsRgb:
  def test_same_from_everything(self, tmp_path):
    path = saved(tmp_path, Image.fromarray(RGB))
    opaque = np.concatenate([RGB, np.full((5, 7, 1), 255, np.uint8)], axis=2)
    for image in (
      path,
      str(path),
      Image.fromarray(RGB),
      RGB,
      jnp.asarray(RGB),
      RGB / 255,
      (RGB / 255).astype(np.float16),
      opaque,
      np.asfortranarray(RGB),
    ):
      np.testing.assert_array_equal(as_rgb(image), RGB)

  def test_grey(self):
    grey = RGB[..., 0]
    for image in (grey, grey[..., None], grey / 255, Image.fromarray(grey)):
      np.testing.assert_array_equal(as_rgb(image), grey[..., None].repeat(3, axis=2))

  def test_alpha(self):
    clear = np.zeros((2, 2, 4), np.uint8)
    np.testing.assert_array_equal(as_rgb(clear), np.full((2, 2, 3), 255))

  @pytest.mark.parametrize(
    ('image', 'message'),
    [
      (np.zeros(3, np.uint8), r'\(h, w\).*got \(3,\)'),
      (np.zeros((1, 4, 4, 3), np.uint8), r'got \(1, 4, 4, 3\)'),
      (np.zeros((3, 4, 5), np.uint8), 'Move the channels last'),
      (np.zeros((4, 5, 2), np.uint8), r'got \(4, 5, 2\)'),
      (np.zeros((0, 5, 3), np.uint8), 'empty'),
      (np.zeros((4, 5, 3), np.int32), 'got int32'),
      (np.zeros((4, 5, 3), np.uint16), 'got uint16'),
      (np.zeros((4, 5, 3), bool), 'got bool'),
      (np.full((4, 5, 3), np.nan), 'NaN'),
      (np.full((4, 5, 3), np.inf), 'infinite'),
      (np.full((4, 5, 3), 200.0), r'0\.\.1, got 200\.\.200.*Divide by 255'),
      (np.full((4, 5, 3), -0.1), r'0\.\.1, got -0\.1'),
    ],
  )
  def test_bad_arrays(self, image, message):
    with pytest.raises(ValueError, match=message):
      as_rgb(image)

  def test_empty_pillow_image(self):
    with pytest.raises(ValueError, match='empty'):
      as_rgb(Image.new('RGB', (0, 5)))


class TestResize:
  @pytest.mark.parametrize(
    ('size', 'expected'),
    [
      ((480, 640), (640, 853)),  # 640 * 640 / 480 = 853.3
      ((640, 480), (853, 640)),
      ((426, 640), (640, 962)),  # 961.5 is rounded up
      ((640, 640), (640, 640)),
      ((1, 1), (640, 640)),
      ((300, 3000), (256, 2560)),  # the longer side is the limit
      ((3, 2000), (4, 2560)),  # 3.84
      ((1, 20_000), (1, 2560)),  # would round to 0
    ],
  )
  def test_size(self, size, expected):
    assert shortest_size(*size, 640, 2560) == expected
    image = np.full((*size, 3), 7, np.uint8)
    resized = resize_shortest(image, shortest=640, longest=2560)
    assert resized.shape == (*expected, 3) and resized.dtype == np.uint8
    assert (resized == 7).all()

  @given(st.integers(1, 5000), st.integers(1, 5000))
  def test_bounds(self, h, w):
    new = shortest_size(h, w, 64, 160)
    assert 1 <= min(new) <= 64 and max(new) <= 160
    assert max(new) == 160 or min(new) == 64

  def test_shrinking_antialiases(self):
    stripes = np.zeros((8, 8, 3), np.uint8)
    stripes[:, ::2] = 200
    small = resize_shortest(stripes, shortest=2, longest=9)
    assert small.shape == (2, 2, 3)
    np.testing.assert_allclose(small.astype(int), 100, atol=20)

  def test_same_size_is_untouched(self):
    assert resize_shortest(RGB, shortest=5, longest=9) is RGB


class TestHeic:
  def test_is_read(self, tmp_path):
    pillow_heif = pytest.importorskip('pillow_heif')
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:, :48], pixels[:, 48:] = (200, 30, 30), (20, 60, 220)
    path = tmp_path / 'IMG_1.HEIC'
    pillow_heif.from_pillow(Image.fromarray(pixels)).save(path, quality=95)
    found = read_image(path)
    assert found.shape == pixels.shape and abs(found.astype(int) - pixels).mean() < 4
    assert size_of(path) == (96, 64)

  def test_without_its_library(self, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pillow_heif', None)
    (tmp_path / 'a.heic').write_bytes(b'1234')
    with pytest.raises(ValueError, match='takes pillow-heif to read; install it with'):
      read_image(tmp_path / 'a.heic')
    assert size_of(tmp_path / 'a.heic') is None


def test_size_of(tmp_path):
  path = tmp_path / 'large.png'
  path.write_bytes(png_header(12_000, 9_000))
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    assert size_of(path) == (12_000, 9_000)
    assert size_of(tmp_path) is None and size_of(tmp_path / 'missing.png') is None
    path.write_bytes(b'text')
    assert size_of(path) is None
