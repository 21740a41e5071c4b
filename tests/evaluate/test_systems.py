"""The harness on a system whose masks are known, and its reports."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from configs import common
from ovs_jax.evaluate import systems
from ovs_jax.evaluate.system_counts import count_image
from ovs_jax.evaluate.systems import Tally, build_systems, centre_view, markdown
from ovs_jax.inference.system import MaskChunk, Texts

K = 5
TRUTH = np.zeros((8, 8), np.int32)
TRUTH[4:] = 1
TRUTH[:2, :2] = 3
TRUTH[7, 7] = 255
IMAGE = np.zeros((8, 8, 3), np.uint8)
SETTINGS = common.base('x', 'evaluate_systems').systems
TEXTS = Texts(K, np.arange(K, dtype=np.int32), None, None)


@dataclasses.dataclass
class Known:
  """Masks of classes 0 and 3 as they are, of 1 called 2, and none for the rest."""

  kind: str = 'known'
  slots: bool = False

  def on(self, device):
    return self

  def embed(self, classes, *, templates=None, synonyms='mean'):
    return TEXTS

  def encode(self, image):
    return image.shape[:2]

  def candidates(self, encoded, texts, allowed=None):
    return np.array([0, 3, 2])

  def masks(self, encoded, texts, allowed=None):
    names = {0: 0, 3: 3, 1: 2 if allowed is None else 1}
    logits = np.stack([np.where(TRUTH == k, 9.0, -9.0) for k in names])
    labels = np.array(list(names.values()), np.int32)
    cosines = None
    if self.slots:
      cosines = np.where(labels[:, None] == np.arange(K + 1), 0.9, 0.1)
      cosines = cosines.astype(np.float32)
    yield MaskChunk(logits.astype(np.float32), labels, cosines)


@pytest.mark.parametrize('slots', [False, True])
def test_known_masks_get_known_scores(slots):
  tally = Tally('known', 'standard', {})
  tally.add(count_image(IMAGE, TRUTH, Known(slots=slots), TEXTS, SETTINGS), 0, 1)
  report = tally.report({}, many=3, resamples=10)
  assert set(report['methods']) == {
    'A',
    'A, threshold 0',
    'B',
    'D (binary masks)',
    'oracle labels',
    'oracle masks',
  } | ({'C'} if slots else set())
  for name, found in report['methods'].items():
    # Two of three classes are right; with true labels all of them.
    want = 100 if name == 'oracle labels' else 200 / 3
    assert found['miou'] == pytest.approx(want), name
    assert found['miou_many'] == pytest.approx(want)
    assert found['classes_present'] == 3
  labels = report['labels']
  assert labels['recall'] == labels['precision'] == pytest.approx(200 / 3)
  assert labels['per_image'] == 3


def test_the_papers_view_is_the_centre():
  image = np.zeros((4, 8, 3), np.uint8)
  image[:, 2:6] = 200
  label = np.arange(8)[None].repeat(4, 0)
  seen, truth = centre_view(image, label, 2)
  assert (seen == 200).all() and seen.shape == (2, 2, 3)
  assert truth.tolist() == [[2, 4], [2, 4]]


def test_mistakes():
  config = common.base('x', 'evaluate_systems')
  with pytest.raises(ValueError, match='nothing to evaluate: set config.systems'):
    build_systems(config.systems)
  config.systems.clipseg = 'nowhere/clipseg'
  config.systems.coseg.cross = 'nowhere/cross'
  config.dataset.name = 'voc_20'
  config.dataset.data_dir = '/nonexistent'
  with pytest.raises(FileNotFoundError) as error:
    systems.evaluate_systems(config, pathlib.Path('.'))
  for part in (
    '3 missing inputs',
    'ovs_jax.convert --source=hf_clipseg --input=FOLDER --output=nowhere/clipseg',
    'configs/coseg_prefix_vitb16.py --workdir=nowhere/cross',
    'ovs_jax.data.prepare --dataset=voc_20',
  ):
    assert part in str(error.value)
  config.systems.protocols = ('papers',)
  with pytest.raises(ValueError, match="Did you mean 'paper'"):
    systems.evaluate_systems(config, pathlib.Path('.'))


def test_a_table_is_written():
  tally = Tally('known', 'standard', {})
  tally.add(count_image(IMAGE, TRUTH, Known(), TEXTS, SETTINGS), 0, 1)
  report = {
    'images': 1,
    'dataset': 'scenes/smoke:val',
    'settings': json.loads(json.dumps(SETTINGS.to_dict())),
    'systems': {'known': {'standard': tally.report({}, many=4, resamples=0)}},
  }
  text = markdown(report)
  assert '| known | standard | A | 66.7 | nan |' in text
  assert '- known, standard: 3.0 labels per image; they hold 66.7 %' in text
