"""A photo that cannot be done is named, and the others are done."""

import pathlib

import numpy as np
import pytest
import tiny_prompted
from PIL import Image

from ovs_jax import predict


def test_one_bad_photo_stops_no_other(
  tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  model = tiny_prompted.save(tmp_path / 'models')['clipseg']
  photos = tmp_path / 'photos'
  photos.mkdir()
  rng = np.random.default_rng(0)
  sizes = {'a': (30, 40), 'one': (1, 1), 'line': (1, 90), 'thin': (90, 2), 'z': (9, 8)}
  for name, size in {**sizes, 'n' * 240: (30, 40)}.items():
    picture = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(picture).save(photos / f'{name}.png')
  (photos / 'bad.jpg').write_bytes(b'\xff\xd8\xff\xe0broken')
  line = [f'--checkpoint={model}', f'--image={photos}', f'--output={tmp_path / "out"}']
  assert predict.main([*line, '--names=a cup, a lid']) == 2
  said = [x for x in capsys.readouterr().err.splitlines() if x.startswith('error: ')]
  told = {x.removeprefix(f'error: {photos}/')[:4]: x for x in said}
  assert sorted(told) == ['bad.', 'line', 'nnnn', 'one.', 'thin']
  for name in ('line', 'one.', 'thin'):
    assert 'less than a patch of 4x4; give a larger picture' in told[name]
  assert 'its name is too long for those of its results' in told['nnnn']
  done = {path.name for path in (tmp_path / 'out').glob('*_labels.png')}
  assert done == {'a_labels.png', 'z_labels.png'}
