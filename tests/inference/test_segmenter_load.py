"""Reading a segmenter from a checkpoint: its settings, and what can be wrong."""

import dataclasses
import shutil

import numpy as np
import pytest
from tiny_ovseg import CONFIG, STORED, draw_params

from ovs_jax import Segmenter
from ovs_jax.core.checkpoint import save_model
from ovs_jax.inference.ovseg import OvSegSystem
from ovs_jax.inference.settings import Settings

# Orbax leaves threads behind that complain of their closed event loop.
pytestmark = pytest.mark.filterwarnings(
  'ignore::pytest.PytestUnraisableExceptionWarning'
)

SETTINGS = Settings(
  shortest=40, longest=96, templates='single', classifier='ensemble', weight=0.7
)


@pytest.fixture(scope='module')
def params():
  return draw_params()


@pytest.fixture(scope='module')
def checkpoint(params, tmp_path_factory):
  directory = tmp_path_factory.mktemp('model') / 'ovseg'
  save_model(directory, params, STORED)
  return directory


def test_equals_the_saved_model(checkpoint, params):
  loaded = Segmenter.load(checkpoint)
  assert loaded.system.config == CONFIG and loaded.system.settings == SETTINGS
  original = Segmenter(OvSegSystem(CONFIG, params, settings=SETTINGS))
  image = np.random.default_rng(0).integers(0, 256, (50, 70, 3)).astype(np.uint8)
  expected, got = (
    segmenter.segment(segmenter.encode(image), 'red ball, grass')
    for segmenter in (original, loaded)
  )
  np.testing.assert_array_equal(got.labels, expected.labels)
  np.testing.assert_array_equal(got.scores, expected.scores)


def test_settings_can_be_replaced(checkpoint):
  loaded = Segmenter.load(
    checkpoint, classifier='clip', weight=0.0, templates='vild', shortest=32
  )
  assert loaded.system.settings == Settings(
    shortest=32, longest=96, templates='vild', classifier='clip', weight=0.0
  )


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'classifier': 'both'}, 'unknown classifier'),
    ({'weight': 1.01}, r'in 0\.\.1'),
    ({'templates': 'none'}, 'unknown template set'),
    ({'shortest': 0}, '1 <= shortest'),
    ({'shortest': 97}, 'shortest <= longest'),
  ],
)
def test_bad_settings(settings, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(SETTINGS, **settings)


def test_missing(tmp_path):
  with pytest.raises(FileNotFoundError, match='not found'):
    Segmenter.load(tmp_path / 'nowhere')


def test_other_directory(tmp_path):
  with pytest.raises(ValueError, match='not a checkpoint'):
    Segmenter.load(tmp_path)


@pytest.mark.parametrize(
  ('part', 'damage'),
  [
    ('_CHECKPOINT_METADATA', 'delete'),
    ('config/metadata', 'delete'),
    ('config/metadata', 'cut'),
    ('params/_METADATA', 'delete'),
    ('params/_METADATA', 'cut'),
    ('largest', 'delete'),
    ('largest', 'cut'),
  ],
)
def test_damage(checkpoint, tmp_path, part, damage):
  shutil.copytree(checkpoint, tmp_path / 'm')
  target = tmp_path / 'm' / part
  if part == 'largest':
    files = [path for path in (tmp_path / 'm').rglob('*') if path.is_file()]
    target = max(files, key=lambda path: path.stat().st_size)
  data = target.read_bytes()
  target.unlink()
  if damage == 'cut':
    target.write_bytes(data[: len(data) // 2])
  with pytest.raises(ValueError, match='written to its end'):
    Segmenter.load(tmp_path / 'm')


def test_parameters_of_another_size(params, tmp_path):
  fewer = {**params, 'proposer': {**params['proposer'], 'no_object': np.ones((1, 9))}}
  del fewer['proposer']['mask_embed']
  save_model(tmp_path / 'm', fewer, STORED)
  with pytest.raises(ValueError, match='6 parameters missing.*1 of another shape'):
    Segmenter.load(tmp_path / 'm')


def test_other_kind_of_model(tmp_path):
  save_model(tmp_path / 'm', {'a': np.zeros(2)}, {'model': 'proposer'})
  message = (
    "holds a 'proposer' model; a 'ovseg' or 'clipseg' or 'coseg' or 'clip' model"
  )
  with pytest.raises(ValueError, match=message):
    Segmenter.load(tmp_path / 'm')


def test_settings_are_missing(tmp_path):
  config = {k: v for k, v in STORED.items() if k != 'test'}
  save_model(tmp_path / 'm', draw_params(), config)
  with pytest.raises(ValueError, match="does not describe its 'ovseg' model .*'test'"):
    Segmenter.load(tmp_path / 'm')
