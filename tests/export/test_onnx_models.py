"""onnxruntime alone gives the labels that the package gives."""

import json
import subprocess

import numpy as np
import pytest
from exported import onnx_python, photo, refusing, unchecked, use_merges
from tiny_ovseg import save_smallest

from ovs_jax import Segmenter
from ovs_jax.export.__main__ import main
from ovs_jax.export.artefact import ONNX_PYTHON, write

ALONE = (
  refusing('ovs_jax', 'jax', 'jaxlib', 'PIL', 'flax', 'ftfy')
  + """
import sys
import numpy as np
folder, source, output = sys.argv[1:]
sys.path.insert(0, folder)
from run_onnx import OnnxRunner
runner = OnnxRunner(folder)
names = ['red ball', 'grass', 'thing']
photos = np.load(source)
np.savez(output, **{key: runner.segment(photos[key], names)[0] for key in photos})
"""
)
SIZES = {'small': (70, 50), 'large': (130, 100), 'same': (40, 40), 'tall': (44, 60)}


@pytest.mark.slow
def test_labels_are_those_of_the_segmenter(tmp_path, monkeypatch):
  python = onnx_python(tmp_path)
  monkeypatch.setenv(ONNX_PYTHON, python)
  use_merges(tmp_path, monkeypatch)
  save_smallest(tmp_path / 'ovseg')
  with unchecked():
    write(tmp_path / 'ovseg', tmp_path / 'new', formats=['onnx'], aspect=1.5)
  report = json.loads((tmp_path / 'new' / 'onnx' / 'report.json').read_text())
  assert set(report['models']) == {'text', 'image_64x64', 'label'}
  for name, model in report['models'].items():
    assert max(model['largest_error'].values()) < 1e-3, (name, model)
    assert model['operators']['Einsum'] > 0
  assert report['models']['label']['largest_error']['labels'] == 0
  images = {key: photo(i, *size) for i, (key, size) in enumerate(SIZES.items())}
  np.savez(tmp_path / 'photos.npz', **images)
  command = [python, '-I', '-c', ALONE, tmp_path / 'new']
  command += [tmp_path / 'photos.npz', tmp_path / 'labels.npz']
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  segmenter, found = (
    Segmenter.load(tmp_path / 'ovseg'),
    np.load(tmp_path / 'labels.npz'),
  )
  seen = set()
  for key, image in images.items():
    expected = segmenter.segment(image, ['red ball', 'grass', 'thing']).labels
    # Another program rounds otherwise: a mask may end a pixel further.
    np.testing.assert_array_equal(found[key], expected)
    seen |= set(expected.flat)
  assert len(seen) > 1


def test_without_the_environment_it_says_how_to_make_it(tmp_path, monkeypatch, capsys):
  use_merges(tmp_path, monkeypatch)
  monkeypatch.setenv(ONNX_PYTHON, str(tmp_path / 'none'))
  save_smallest(tmp_path / 'ovseg')
  options = [f'--checkpoint={tmp_path}/ovseg', f'--output={tmp_path}/new']
  assert main([*options, '--formats=onnx']) == 2
  error = capsys.readouterr().err
  assert f'{tmp_path}/none is not there; make it with launch/onnx_env.sh, or' in error
  assert not (tmp_path / 'new').exists()
