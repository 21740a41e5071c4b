"""TensorFlow alone gives the labels that the package gives."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
from exported import photo, refusing, unchecked, use_merges
from tiny_ovseg import save_smallest

from ovs_jax import Segmenter
from ovs_jax.export.artefact import write

# With nothing of this repository in reach, nor JAX, nor Pillow.
ALONE = (
  refusing('ovs_jax', 'jax', 'jaxlib', 'PIL', 'flax', 'ftfy')
  + """
import sys
import numpy as np
folder, source, output = sys.argv[1:]
sys.path.insert(0, folder)
from run_tf import TensorFlowRunner
found, names = {}, ['red ball', 'grass', 'thing']
runner = TensorFlowRunner(folder)
serve = runner.signatures['serving_default']
for key, image in np.load(source).items():
  found[f'{key}/run'] = runner.segment(image, names)[0]
  served = serve(photo=image, names=runner.embed(names))
  found[f'{key}/served'] = served['labels'].numpy()
np.savez(output, **found)
"""
)
SIZES = {'small': (70, 50), 'large': (130, 100), 'same': (40, 40), 'tall': (44, 60)}


@pytest.mark.slow
def test_labels_are_those_of_the_segmenter(tmp_path: pathlib.Path, monkeypatch):
  use_merges(tmp_path, monkeypatch)
  save_smallest(tmp_path / 'ovseg')
  with unchecked():
    write(tmp_path / 'ovseg', tmp_path / 'new', formats=['savedmodel'], aspect=1.5)
  assert not list((tmp_path / 'new').glob('*.stablehlo'))
  images = {key: photo(i, *size) for i, (key, size) in enumerate(SIZES.items())}
  np.savez(tmp_path / 'photos.npz', **images)
  command = [sys.executable, '-I', '-c', ALONE, tmp_path / 'new']
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
    # TensorFlow's compiler rounds otherwise: a mask may end a pixel further.
    assert np.mean(found[f'{key}/run'] == expected) > 0.995
    np.testing.assert_array_equal(found[f'{key}/served'], found[f'{key}/run'])
    seen |= set(expected.flat)
  assert len(seen) > 1
