"""Pictures and masks as users' programs write them, in a folder data set."""

import pathlib

import numpy as np
import pytest
import tiny_layouts
from PIL import Image

from ovs_jax.core.images import read_image
from ovs_jax.data import folder, pipeline

RAMP = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (8, 1))
LABELS = np.repeat([[0, 1]], 8, axis=0).repeat(32, axis=1).astype(np.uint8)


def rgba() -> Image.Image:
  colours = np.stack([RAMP, RAMP, RAMP, np.where(LABELS, 255, 0)], axis=2)
  return Image.fromarray(colours.astype(np.uint8))


PHOTOS = {
  '16bit.png': lambda: Image.fromarray(RAMP.astype(np.uint16) * 256),
  'rgba.png': rgba,
  'grey_alpha.png': lambda: rgba().convert('LA'),
  'cmyk.tif': lambda: rgba().convert('RGB').convert('CMYK'),
  'bits.png': lambda: rgba().convert('L').convert('1'),
}


@pytest.fixture
def mine(tmp_path: pathlib.Path) -> pathlib.Path:
  root = tmp_path / 'mine'
  (root / 'images').mkdir(parents=True)
  (root / 'masks').mkdir()
  (root / 'names.txt').write_text('background\nthing\n')
  return root


def add(root: pathlib.Path, name: str, photo: Image.Image, labels: Image.Image) -> None:
  photo.save(root / 'images' / name)
  labels.save((root / 'masks' / name).with_suffix('.png'))


@pytest.mark.parametrize('name', PHOTOS)
def test_photos_are_what_prediction_sees(
  mine: pathlib.Path, tmp_path: pathlib.Path, name: str
) -> None:
  add(mine, name, PHOTOS[name](), Image.fromarray(LABELS))
  builder = folder.prepare(tmp_path / 'data', mine)
  (example,) = pipeline.examples(builder, 'val')
  found = np.broadcast_to(example['image'], (8, 64, 3))  # grey ones have one channel
  np.testing.assert_array_equal(found, read_image(mine / 'images' / name))
  assert np.ptp(found) > 50  # neither white nor black all over


def test_numbers_that_are_no_colours_are_refused(
  mine: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  add(mine, 'a.tif', Image.fromarray(RAMP.astype(np.float32)), Image.fromarray(LABELS))
  with pytest.raises(ValueError, match=r'unreadable: images/a\.tif \(it holds'):
    folder.prepare(tmp_path / 'data', mine)


def test_masks_of_one_bit_and_names_in_capitals(
  mine: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  add(mine, 'A.PNG', rgba().convert('RGB'), Image.fromarray(LABELS * 255).convert('1'))
  (mine / 'masks' / 'A.png').rename(mine / 'masks' / 'A.PNG')
  builder = folder.prepare(tmp_path / 'data', mine)
  (example,) = pipeline.examples(builder, 'val')
  np.testing.assert_array_equal(example['label'], LABELS)
  assert 'note' not in capsys.readouterr().err


def test_hidden_files_are_nobody_s(mine: pathlib.Path, tmp_path: pathlib.Path) -> None:
  add(mine, 'a.png', rgba().convert('RGB'), Image.fromarray(LABELS))
  for name in ('images/._a.png', 'masks/._a.png', 'images/.cache/b.png'):
    (mine / name).parent.mkdir(exist_ok=True)
    (mine / name).write_bytes(b'of a file manager')
  builder = folder.prepare(tmp_path / 'data', mine)
  assert builder.info.splits['val'].num_examples == 1


def test_masks_of_0_and_255(
  mine: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  add(mine, 'a.png', rgba().convert('RGB'), Image.fromarray(LABELS * 255))
  add(mine, 'b.png', rgba().convert('RGB'), Image.fromarray(LABELS * 0 + 255))
  folder.prepare(tmp_path / 'data', mine)
  said = [x for x in capsys.readouterr().err.splitlines() if x.startswith('note: ')]
  assert said == [
    f'note: {mine}: no mask has a pixel of thing (value 1). 255 means void, not the '
    'last class: masks of 0 and 255 need 1 in its place',
    f'note: {mine}: 1 mask is void everywhere: b',
  ]


def test_messages_do_not_grow_with_the_data(
  mine: pathlib.Path, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
  from ovs_jax.data import prepare

  for i in range(40):
    tiny_layouts.photo(mine / f'images/some_long_name_{i}.jpg')
    tiny_layouts.grey(
      mine / f'masks/some_long_name_{i}.png', tiny_layouts.values([0, 1])
    )
  line = ['--dataset=folder', f'--source={mine}', f'--data_dir={tmp_path / "data"}']
  assert prepare.main(line) == 0
  assert 'some_long_name' not in ''.join(capfd.readouterr())
