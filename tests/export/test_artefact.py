"""Exported models give the labels of `Segmenter`, alone; mistakes are told."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from exported import photo, refusing, runner, unchecked, use_merges
from tiny_ovseg import STORED, draw_params, save_smallest

from ovs_jax import Segmenter
from ovs_jax.core.checkpoint import load_model, save_model
from ovs_jax.core.errors import UserError
from ovs_jax.export.__main__ import main
from ovs_jax.export.artefact import write

# Runs the artefact's file with nothing of this repository and no Pillow in reach.
ALONE = (
  refusing('ovs_jax', 'PIL', 'flax', 'safetensors', 'ftfy', 'regex')
  + """
import runpy, sys
sys.path.insert(0, sys.argv[1])
sys.argv[:2] = [sys.argv[1] + '/run.py']
runpy.run_path(sys.argv[0], run_name='__main__')
"""
)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """Returns a checkpoint and what was exported of it."""
  folder = tmp_path_factory.mktemp('exported')
  with pytest.MonkeyPatch.context() as patch:
    use_merges(folder, patch)
    save_smallest(folder / 'ovseg')
    with unchecked():
      write(folder / 'ovseg', folder / 'artefact', formats=['stablehlo'], aspect=1.5)
    yield folder / 'ovseg', folder / 'artefact'


NAMES = ['red ball', 'grass', *(f'thing {i}' for i in range(70))]


IMAGE = photo(0, 70, 50)


@pytest.fixture(scope='module')
def segmenter(made):
  """Returns the model in the package's own hands."""
  return Segmenter.load(made[0])


@pytest.mark.parametrize(
  ('names', 'background'), [(NAMES[:3], []), (['grass'], []), (NAMES[:2], NAMES[2:6])]
)
def test_labels_are_those_of_the_segmenter(made, segmenter, names, background):
  labels, confidence = runner(made[1]).segment(IMAGE, names, background)
  expected = segmenter.segment(IMAGE, names, background=background or None)
  np.testing.assert_array_equal(labels, expected.labels)
  # Programs in one are rounded otherwise than one by one where XLA hardly optimizes.
  np.testing.assert_allclose(confidence, expected.confidence, rtol=1e-4)


def test_it_runs_with_jax_and_numpy_alone(made, segmenter, tmp_path):
  np.save(tmp_path / 'photo.npy', IMAGE)
  command = [sys.executable, '-I', '-c', ALONE, made[1], tmp_path / 'photo.npy']
  command += ['red  ball, grass,thing 0', tmp_path / 'labels.npy']
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  labels = segmenter.segment(IMAGE, NAMES[:3]).labels
  np.testing.assert_array_equal(np.load(tmp_path / 'labels.npy'), labels)
  shares = [f'{np.mean(labels == i):7.2%}' for i in range(3)]
  assert [line[:7] for line in done.stdout.splitlines()] == shares


def test_the_manifest_says_what_programs_take(made):
  _, folder = made
  about = json.loads((folder / 'manifest.json').read_text())
  assert about['photo']['sizes'] == [[64, 64]]
  assert (about['photo']['shortest'], about['photo']['longest']) == (40, 96)
  assert about['ensemble'] == {
    'classifier': 'ensemble',
    'weight': 0.7,
    'temperature': 100.0,
  }
  assert set(about['programs']) == {'text', 'image_64x64', 'label'}
  masks = about['programs']['image_64x64']['outputs'][2]
  assert (masks['name'], masks['shape']) == ('masks', '14, 64, 64')
  found = runner(folder).call('text', np.zeros((2, 8), np.int32))
  assert about['programs']['text']['outputs'][0]['shape'] == 'n, 16'
  assert found[0].shape == (2, 16)
  written = {path.name for path in folder.iterdir()} - {'.ovs_jax', '__pycache__'}
  programs = {one['file'] for one in about['programs'].values()}
  more = {'manifest.json', 'tokenizer.json', 'weights.safetensors'}
  assert written == programs | more | {'run.py', 'run_parts.py'}


def test_photos_of_other_shapes_are_refused(made):
  with pytest.raises(
    ValueError, match=r'no size for photos of \(20, 200\); .*--aspect'
  ):
    runner(made[1]).segment(photo(0, 200, 20), ['grass'])


@pytest.mark.parametrize(
  ('changed', 'message'),
  [
    ({'format': 99}, 'is newer than this run.py'),
    ({'made_with': {'calling_convention': 1}}, 'was exported with jax .*Export the'),
  ],
)
def test_an_artefact_of_another_time_is_refused(made, tmp_path, changed, message):
  about = json.loads((made[1] / 'manifest.json').read_text())
  for key, value in changed.items():
    about[key] = {**about[key], **value} if isinstance(value, dict) else value
  for path in made[1].iterdir():
    (tmp_path / path.name).symlink_to(path)
  (tmp_path / 'manifest.json').unlink()
  (tmp_path / 'manifest.json').write_text(json.dumps(about))
  with pytest.raises(ValueError, match=message):
    runner(tmp_path).segment(photo(0, 50, 50), ['grass'])


def test_mistakes_are_told_before_anything_is_written(made, tmp_path, capsys):
  checkpoint, folder = made
  output = tmp_path / 'new'
  for options, message in [
    (['--formats=stablehlo,onx'], "unknown format 'onx'; known: "),
    (['--weights=int4'], "unknown kind of weights 'int4'; known: "),
    (
      ['--weights=int8', '--formats=onnx'],
      'onnx: with weights of float32 alone, not int8',
    ),
    (['--aspect=0.5'], 'the aspect must lie in 1..10, got 0.5'),
    ([f'--output={folder}'], f'{folder} is not an empty folder'),
    ([f'--checkpoint={tmp_path}/none'], 'not found. Give the directory'),
  ]:
    flags = [f'--checkpoint={checkpoint}', f'--output={output}', *options]
    assert main(flags) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ') and error.count('\n') == 1
    assert message in error
  assert not output.exists()


def test_what_cannot_be_exported_is_refused(made, tmp_path):
  params, stored = load_model(made[0])
  clip = {'model': 'clip', 'clip': stored['clip']}
  save_model(tmp_path / 'clip', params['clip'], clip)
  with pytest.raises(UserError, match="holds a 'clip' model, which cannot be exported"):
    write(tmp_path / 'clip', tmp_path / 'new', formats=['stablehlo'])
  assert not (tmp_path / 'new').exists()


@pytest.mark.slow
def test_labels_of_larger_models_too(tmp_path, monkeypatch):
  use_merges(tmp_path, monkeypatch)
  save_model(tmp_path / 'ovseg', draw_params(), STORED)
  with unchecked():
    assert main([f'--checkpoint={tmp_path}/ovseg', f'--output={tmp_path}/new']) == 0
  segmenter, run = Segmenter.load(tmp_path / 'ovseg'), runner(tmp_path / 'new')
  found = set()
  for seed, size in enumerate([(70, 50), (60, 90), (40, 40), (200, 130)]):
    for names in (NAMES[:2], NAMES):
      labels, _ = run.segment(photo(seed, *size), names)
      expected = segmenter.segment(photo(seed, *size), names)
      np.testing.assert_array_equal(labels, expected.labels)
      found |= set(labels.flat)
  assert len(found) > 4


@pytest.mark.slow
@pytest.mark.parametrize(('kind', 'most'), [('bfloat16', 0.51), ('int8', 0.29)])
def test_weights_of_fewer_bits_are_those_of_the_segmenter(
  tmp_path, monkeypatch, kind, most
):
  use_merges(tmp_path, monkeypatch)
  save_model(tmp_path / 'ovseg', draw_params(), STORED)
  sizes = {}
  for one in ('float32', kind):
    options = [f'--checkpoint={tmp_path}/ovseg', f'--output={tmp_path}/{one}']
    with unchecked():
      assert main([*options, '--aspect=1', f'--weights={one}']) == 0
    sizes[one] = (tmp_path / one / 'weights.safetensors').stat().st_size
  assert sizes[kind] < most * sizes['float32']
  segmenter = Segmenter.load(tmp_path / 'ovseg', weights=kind)
  run = runner(tmp_path / kind)
  for seed in range(3):
    labels, _ = run.segment(photo(seed, 64, 64), NAMES[:20])
    expected = segmenter.segment(photo(seed, 64, 64), NAMES[:20]).labels
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.slow
def test_it_runs_in_an_environment_of_jax_and_numpy(made, segmenter, tmp_path):
  subprocess.run([sys.executable, '-m', 'venv', tmp_path / 'venv'], check=True)
  python = tmp_path / 'venv' / 'bin' / 'python'
  install = [python, '-m', 'pip', 'install', '-q', f'jax=={jax.__version__}']
  install += ['flatbuffers', f'numpy=={np.__version__}']
  subprocess.run(install, check=True)
  np.save(tmp_path / 'photo.npy', IMAGE)
  command = [python, made[1] / 'run.py', tmp_path / 'photo.npy', ','.join(NAMES)]
  subprocess.run([*command, tmp_path / 'labels.npy'], check=True)
  labels = segmenter.segment(IMAGE, NAMES).labels
  np.testing.assert_array_equal(np.load(tmp_path / 'labels.npy'), labels)
