"""The disk that mining asks for in every case, and what it says without it."""

import collections
import pathlib
import re

import pytest

from configs import mine_coco_captions, scenes
from ovs_jax.core import files
from ovs_jax.core.files import write_json
from ovs_jax.mining import chunks, disk, run
from ovs_jax.settings import Mining, Settings

IMAGES = {'ade_crops': 2_000}
COCO = 118_287
SIZES = [(480, 640), (427, 640), (640, 480)]  # of most of COCO
Usage = collections.namedtuple('Usage', 'total used free')


def section(case: str) -> Mining:
  settings = Settings.of(mine_coco_captions.get_config(case))
  return settings.stages.get('mine', settings).mining


@pytest.mark.parametrize('case', mine_coco_captions.CASES)
def test_the_configuration_says_what_is_asked_for(case: str) -> None:
  c = section(case)
  count = IMAGES.get(case, COCO)
  gigabytes = disk.megabytes_of(c, count, SIZES) * 2**20 / 1e9
  found = re.search(r'(\d+) GB \((.*?)\)', mine_coco_captions.__doc__, re.DOTALL)
  told = {'': found[1], **dict(re.findall(r':(\w+) (\d+)', found[2]))}
  assert float(told[case]) == pytest.approx(gigabytes, rel=0.07)


def test_pairs_of_an_image_are_those_of_the_paper() -> None:
  """Table 2: 965K, 442K and 1.34M pairs; a pair of them takes at most 45 KB."""
  for case, pairs in (('classes', 965_036), ('', 442_117), ('five_captions', 1.34e6)):
    c = section(case)
    assert COCO * disk.pairs_of_image(c) == pytest.approx(pairs, rel=0.01)
    assert 442_117 * disk.bytes_of_pair(c, SIZES) < 20e9


@pytest.mark.parametrize(
  ('crop_format', 'shortest', 'bytes_of_pair'),
  # Measured on the crops of true masks of 17 photographs, see docs/results.md.
  [
    *(('png', 0, 219_800), ('png', 336, 163_700), ('png', 224, 114_000)),
    *(('jpeg', 0, 49_400), ('jpeg', 336, 37_600), ('jpeg', 224, 27_000)),
  ],
)
def test_a_pair_takes_no_more_than_is_asked_for(
  crop_format: str, shortest: int, bytes_of_pair: int
) -> None:
  c = Mining(shortest=640, crop_format=crop_format, crop_shortest=shortest)
  asked = disk.megabytes_of(c, 10_000, SIZES) * 2**20 / 37_400
  assert bytes_of_pair < asked < 1.4 * bytes_of_pair


def test_mining_says_what_it_needs_before_it_starts(
  data_dir: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  config = scenes.mine('')
  config.dataset.update(variant='smoke', data_dir=data_dir)
  config.mining.update(masks='truth', nouns='classes', min_area=1, shortest=640)
  # 32 images of 640 x 640 pixels, 8.16 pairs each, 1.5 bytes a pixel of theirs.
  monkeypatch.setattr(files.shutil, 'disk_usage', lambda path: Usage(0, 0, 30 * 2**20))
  with pytest.raises(OSError, match=r'has 30 MB free, this needs about [5-8]\d MB'):
    run.mine(Settings.of(config), tmp_path)
  assert [path.name for path in tmp_path.rglob('*')] == ['chunks']
  config.mining.disk_megabytes = 31
  with pytest.raises(OSError, match='has 30 MB free, this needs about 31 MB'):
    run.mine(Settings.of(config), tmp_path)
  # Of what is there already nothing is asked for again.
  config.mining.shortest = 0
  for i in range(8):
    write_json(tmp_path / 'chunks' / f'{i:06d}.json', {})
  assert chunks.share_to_come(tmp_path / 'chunks', 32) == 0.75
  for path in (tmp_path / 'chunks').iterdir():
    path.unlink()
  monkeypatch.setattr(run.disk, 'megabytes', lambda *_: 30)
  config.mining.disk_megabytes = 0
  assert run.mine(Settings.of(config), tmp_path)['pairs'] > 32


def test_a_job_whose_images_are_all_mined_needs_no_room(
  data_dir: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  config = scenes.mine('')
  config.dataset.update(variant='smoke', data_dir=data_dir)
  config.mining.update(masks='truth', nouns='classes', min_area=1)
  with monkeypatch.context() as patch:
    patch.setattr(run, '_finish', lambda *_: None)
    with pytest.raises(FileNotFoundError, match='datasheet.json'):
      run.mine(Settings.of(config), tmp_path)
  monkeypatch.setattr(files.shutil, 'disk_usage', lambda path: Usage(0, 0, 0))
  assert run.mine(Settings.of(config), tmp_path)['pairs'] > 32
