"""Files that are stored as they came: what is whole, and what only looks so."""

import io
import json
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from ovs_jax.core.images import read_image
from ovs_jax.data import class_table, encoded, folder, pipeline, sources


def photo(**options: Any) -> bytes:
  """Returns a JPEG with all of a photograph's frequencies."""
  noise = np.random.default_rng(0).integers(0, 256, (96, 160, 3), np.uint8)
  buffer = io.BytesIO()
  Image.fromarray(noise).save(buffer, 'jpeg', **{'quality': 90} | options)
  return buffer.getvalue()


def png(array: np.ndarray, **options: Any) -> bytes:
  buffer = io.BytesIO()
  Image.fromarray(array).save(buffer, 'png', **options)
  return buffer.getvalue()


@pytest.mark.parametrize(
  'options',
  [
    {},
    {'progressive': True},
    {'restart_marker_blocks': 2},
    {'optimize': True, 'subsampling': 0},
    {'exif': b'Exif\0\0' + photo()[:3000], 'comment': b'\xff\xd9 is no end here'},
  ],
  ids=['baseline', 'progressive', 'restarts', 'own tables', 'a thumbnail'],
)
def test_a_jpeg_is_whole_up_to_its_last_byte_alone(options: dict[str, Any]) -> None:
  content = photo(**options)
  assert encoded.is_whole_jpeg(content)
  assert encoded.is_whole_jpeg(content + b'what a telephone adds')
  for length in [*range(0, 400), *range(400, len(content), 97), len(content) - 1]:
    assert not encoded.is_whole_jpeg(content[:length]), length


def test_a_jpeg_whose_tables_are_wrong_is_not_whole() -> None:
  content = bytearray(photo())
  table = content.find(b'\xff\xc4')
  content[table + 5 : table + 21] = b'\xff' * 16  # more codes than there are
  assert not encoded.is_whole_jpeg(bytes(content))


def test_no_jpeg_is_no_whole_one() -> None:
  for content in (
    b'',
    b'\xff\xd8',
    b'\xff\xd8\xff\xd9',
    png(np.zeros((2, 2), np.uint8)),
  ):
    assert not encoded.is_whole_jpeg(content)


def test_a_grey_png_is_whole_if_all_of_its_sums_are_right() -> None:
  content = png(np.arange(256, dtype=np.uint8).reshape(16, 16))
  assert encoded.is_whole_grey_png(content)
  assert not any(encoded.is_whole_grey_png(content[:n]) for n in range(len(content)))
  for at in (20, 45, len(content) - 14):
    broken = bytearray(content)
    broken[at] ^= 1
    assert not encoded.is_whole_grey_png(bytes(broken)), at


def test_pngs_whose_values_are_not_their_pixels_are_not_kept() -> None:
  labels = np.array([[0, 1], [1, 0]], np.uint8)
  palette = Image.fromarray(labels, 'P')
  palette.putpalette([9, 9, 9, 200, 0, 0])
  buffer = io.BytesIO()
  palette.save(buffer, 'png')
  others = [
    buffer.getvalue(),
    png(labels > 0),
    png(labels.astype(np.uint16)),
    png(labels, transparency=1),
    png(np.stack([labels] * 3, axis=-1)),
  ]
  assert not any(map(encoded.is_whole_grey_png, others))


@pytest.fixture
def mine(tmp_path: pathlib.Path) -> pathlib.Path:
  """Returns a folder with a photograph, whose mask has two classes and void."""
  root = tmp_path / 'mine'
  (root / 'images').mkdir(parents=True)
  (root / 'masks').mkdir()
  (root / 'images/a.jpg').write_bytes(photo())
  (root / 'names.txt').write_text('cat\nball\n')
  return root


def labels() -> np.ndarray:
  found = np.zeros((96, 160), np.uint8)
  found[20:60, 30:90], found[:, 150:] = 1, 255
  return found


def stored(root: pathlib.Path, data: pathlib.Path, longest: int = 0) -> bytes:
  """Returns the label as it is stored, having compared what is read with it."""
  builder = folder.prepare(data, root, longest)
  (example,) = pipeline.examples(builder, 'val')
  (record,) = builder.as_dataset(split='val', decoders={'label': _bytes()})
  content = record['label'].numpy()
  with Image.open(io.BytesIO(content)) as image:
    np.testing.assert_array_equal(np.asarray(image), example['label'])
  if not longest:
    np.testing.assert_array_equal(example['label'], labels())
  return content


def _bytes() -> Any:
  import tensorflow_datasets as tfds

  return tfds.decode.SkipDecoding()


def test_a_mask_of_train_ids_is_stored_as_it_came(
  mine: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  told = PngImagePlugin.PngInfo()
  told.add(b'gAMA', (45455).to_bytes(4))
  content = png(labels(), pnginfo=told, compress_level=1)
  (mine / 'masks/a.png').write_bytes(content)
  assert stored(mine, tmp_path / 'data') == content
  small = stored(mine, tmp_path / 'data', longest=80)
  with Image.open(io.BytesIO(small)) as image:
    assert image.size == (80, 48)


def test_masks_with_other_values_or_palettes_are_not(
  mine: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  image = Image.fromarray(labels(), 'P')
  image.putpalette(list(range(256)) * 3)
  image.save(mine / 'masks/a.png')
  content = stored(mine, tmp_path / 'data')
  assert encoded.is_whole_grey_png(content)
  (mine / 'names.txt').write_text('7: cat\n1: ball\n')
  values = np.where(labels() == 0, 7, labels()).astype(np.uint8)
  values[labels() == 1] = 1
  (mine / 'masks/a.png').write_bytes(png(values))
  found = stored(mine, tmp_path / 'data')
  assert encoded.is_whole_grey_png(found) and found != png(values)


def smooth(**options: Any) -> bytes:
  """Returns a JPEG such as a telephone's: colours that change slowly, and edges."""
  y, x = np.mgrid[:96, :160]
  image = np.stack([128 + 90 * np.sin(x / 17), y * 2, 200 - x], axis=-1)
  image[30:60, 40:90] = (30, 160, 90)
  buffer = io.BytesIO()
  Image.fromarray(image.astype(np.uint8)).save(buffer, 'jpeg', **options)
  return buffer.getvalue()


@pytest.mark.parametrize('subsampling', [0, 1, 2])
@pytest.mark.parametrize('orientation', [2, 3, 6, 8])
def test_a_turned_jpeg_stays_one_and_loses_next_to_nothing(
  orientation: int, subsampling: int, tmp_path: pathlib.Path
) -> None:
  exif = Image.Exif()
  exif[0x0112] = orientation
  path = tmp_path / 'photo.jpg'
  content = smooth(exif=exif, quality=80, subsampling=subsampling)
  path.write_bytes(content)
  found, h, w = sources.read_image(path, turn=True)
  want = read_image(path).astype(int)
  assert want.shape == (h, w, 3) == ((160, 96, 3) if orientation > 4 else (96, 160, 3))
  with Image.open(io.BytesIO(found)) as image:
    assert image.format == 'JPEG' and image.getexif().get(0x0112, 1) == 1
    off = np.abs(np.asarray(image) - want)
  mean, most = (0.4, 6) if not subsampling else (1, 40)  # colours at sharp edges
  assert off.mean() < mean and off.max() <= most, (off.mean(), off.max())
  assert len(found) < (1.1 if subsampling != 1 else 1.5) * len(content)


def test_turned_pictures_that_are_no_jpegs_of_colours_are_exact(
  tmp_path: pathlib.Path,
) -> None:
  exif = Image.Exif()
  exif[0x0112] = 6
  grey = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
  for name in ('a.png', 'b.jpg'):
    grey.save(tmp_path / name, exif=exif)
    content, *_ = sources.read_image(tmp_path / name, turn=True)
    with Image.open(io.BytesIO(content)) as image:
      assert image.format == 'PNG'
      want = read_image(tmp_path / name)
      np.testing.assert_array_equal(np.asarray(image.convert('RGB')), want)


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
@pytest.mark.parametrize('runs', [1, 50, 100_000])
def test_values_are_counted_by_runs_and_by_pixels(dtype: Any, runs: int) -> None:
  rng = np.random.default_rng(0)
  lengths = rng.multinomial(100_000, np.full(runs, 1 / runs))
  values = np.repeat(rng.integers(0, 250, runs).astype(dtype), lengths).reshape(100, -1)
  expected = np.bincount(values.ravel(), minlength=300)
  found = class_table.count_values(values, 300)
  assert found.dtype == np.int64
  np.testing.assert_array_equal(found, expected)


def test_zlib_is_that_of_pillow_and_python_and_not_of_tensorflow() -> None:
  """Whoever is imported after TensorFlow unpacks PNGs three times as slowly."""
  code = (
    'import sys, ovs_jax.data; order = list(sys.modules); '
    'theirs = next(x for x in order if x.startswith("tensorflow.")); '
    'print([order.index(x) for x in ("zlib", "PIL._imaging", theirs)])'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  places = json.loads(done.stdout)
  assert places == sorted(places)


def test_pixels_are_told_by_train_id() -> None:
  table = class_table.class_table((7, 1), (255,))
  found = table.apply(np.array([[7, 7, 1], [255, 7, 255]], np.uint8))
  assert found.unknown == [] and len(found.counts) == 256
  assert {i: int(found.counts[i]) for i in (0, 1, 255)} == {0: 3, 1: 1, 255: 2}
  assert found.counts.sum() == 6


def test_tables_are_turned_with_the_picture(tmp_path: pathlib.Path) -> None:
  """Fine sideways and coarse upwards: what is fine stays so."""
  table = np.full((8, 8), 90)
  table[0] = 1
  y, x = np.mgrid[:64, :96]
  stripes = np.repeat((128 + 100 * np.sin(x * 1.3))[..., None], 3, axis=-1)
  exif = Image.Exif()
  exif[0x0112] = 6
  path = tmp_path / 'photo.jpg'
  Image.fromarray(stripes.astype(np.uint8)).save(
    path, qtables=[table.ravel().tolist()] * 2, subsampling=0, exif=exif
  )
  found, *_ = sources.read_image(path, turn=True)
  with Image.open(io.BytesIO(found)) as image:
    off = np.abs(np.asarray(image) - read_image(path).astype(int))
  assert off.mean() < 1, off.mean()


def test_a_file_that_is_read_otherwise_is_not_kept(
  mine: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  (mine / 'masks/a.png').write_bytes(png(labels()))

  def other_way_round(path: pathlib.Path) -> np.ndarray:
    values = sources.read_values(path)
    return np.where(values < 2, 1 - values, values)

  table = class_table.class_table((0, 1), (255,))
  for read, same in ((sources.read_values, True), (other_way_round, False)):
    pair = sources.Pair('a', mine / 'images/a.jpg', mine / 'masks/a.png')
    example, problems = sources.Reader(mine, read, table)(pair)
    assert problems == [] and example is not None
    content = sources.label_png(example)
    assert (content == png(labels())) == same
    with Image.open(io.BytesIO(content)) as image:
      np.testing.assert_array_equal(np.asarray(image), example['label'])
