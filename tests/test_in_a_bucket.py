"""Commands whose inputs and outputs are in a bucket."""

import pathlib

import numpy as np
import pytest
from PIL import Image
from tiny_ovseg import STORED, draw_params

from ovs_jax import predict
from ovs_jax.convert import command
from ovs_jax.core.checkpoint import load_model, save_model
from ovs_jax.core.files import below, place
from ovs_jax.core.tree import flatten


def test_convert(bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
  params = draw_params()['clip']
  stored = {'model': 'clip', 'clip': STORED['clip']}
  save_model(f'{bucket}/clip', params, stored)
  file = f'{bucket}/out/clip.safetensors'
  argv = ['--export=ovseg_clip', f'--input={bucket}/clip', f'--output={file}']
  assert command.main(argv) == 0, capsys.readouterr().err
  assert command.main(argv) == 2  # it is there
  assert 'exists already' in capsys.readouterr().err
  argv = [f'--input={file}', f'--output={bucket}/again', '--check', '--vision_heads=4']
  assert command.main([*argv, '--text_heads=2']) == 0, capsys.readouterr().err
  assert 'all equal' in capsys.readouterr().out
  found, config = load_model(f'{bucket}/again', kind='clip')
  expected, got = flatten(params), flatten(found)
  for path in expected:
    np.testing.assert_array_equal(got[path], expected[path], err_msg=path)
  assert config['source']['file'] == 'clip.safetensors'


@pytest.mark.slow
def test_predict(
  bucket: str, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
  save_model(f'{bucket}/ovseg', draw_params(), STORED)
  pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3)).astype(np.uint8)
  Image.fromarray(pixels).save(tmp_path / 'a.png')
  argv = [f'--checkpoint={bucket}/ovseg', f'--image={tmp_path / "a.png"}']
  argv += ['--names=red ball, grass', '--scores', f'--output={bucket}/out']
  argv += ['--format=coco,labelstudio,labelme,cvat']
  assert predict.main(argv) == 0, capfd.readouterr().err
  made = [name for name, _ in below(place(bucket) / 'out')]
  assert [name for name in made if '/' not in name] == [
    f'a_{x}' for x in ('labels.png', 'overlay.png', 'scores.npz', 'segments.json')
  ]
  assert [name for name in made if '/' in name] == [
    'coco/annotations.json',
    'cvat/ImageSets/Segmentation/default.txt',
    'cvat/JPEGImages/a.png',
    'cvat/SegmentationClass/a.png',
    'cvat/SegmentationObject/a.png',
    'cvat/labelmap.txt',
    'labelme/a.json',
    'labelstudio/interface.xml',
    'labelstudio/tasks.json',
  ]
  photo = place(bucket) / 'out' / 'cvat' / 'JPEGImages' / 'a.png'
  assert photo.read_bytes() == (tmp_path / 'a.png').read_bytes()
  with (place(bucket) / 'out' / 'a_labels.png').open('rb') as file:
    assert Image.open(file).size == (70, 50)
  capfd.readouterr()
  assert predict.main(argv) == 0
  assert 'skipped, its results are in gs://' in capfd.readouterr().out
  save_model(f'{bucket}/ovseg', draw_params(), STORED)  # written anew
  assert predict.main(argv) == 0
  assert 'skipped' not in capfd.readouterr().out
