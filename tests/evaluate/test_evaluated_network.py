"""OVSeg in an evaluation, against the same model in prediction."""

import pathlib

import numpy as np
import pytest
from PIL import Image
from tiny_ovseg import CONFIG, STORED, draw_params

from ovs_jax import Segmenter
from ovs_jax.core.checkpoint import save_model
from ovs_jax.core.tree import flatten, unflatten
from ovs_jax.evaluate import oracle
from ovs_jax.evaluate.network import Changes, Network, Picture, Setting
from ovs_jax.models.reduced import reduced, restored
from ovs_jax.ops.guided import refine
from ovs_jax.text import vocabulary

NAMES = vocabulary.load('scenes').names[:9]
SETTINGS = [Setting('ensemble', 0.7), Setting('clip', 0.0), Setting('proposer', 0.0)]


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  path = tmp_path_factory.mktemp('network') / 'model'
  save_model(path, draw_params(), STORED)
  return path


@pytest.fixture(scope='module')
def network(checkpoint: pathlib.Path) -> Network:
  return Network(checkpoint)


@pytest.fixture(scope='module')
def image() -> np.ndarray:
  small = np.random.default_rng(3).integers(0, 256, (4, 5, 3)).astype(np.uint8)
  return np.asarray(Image.fromarray(small).resize((70, 50), Image.Resampling.BICUBIC))


@pytest.fixture(scope='module')
def picture(network: Network, image: np.ndarray) -> Picture:
  return network.encode(image)


@pytest.fixture(scope='module')
def label() -> np.ndarray:
  """Left class 4, right class 2, some void."""
  label = np.full((50, 70), 4)
  label[:, 40:] = 2
  label[:5] = 255
  return label


def test_labels_equal_those_of_prediction(
  checkpoint: pathlib.Path, network: Network, picture: Picture, image: np.ndarray
) -> None:
  segmenter = Segmenter.load(checkpoint)
  encoded = segmenter.encode(image)
  logits = network.logits(picture, network.embed(NAMES))
  assert network.setting == SETTINGS[0]
  for setting in SETTINGS:
    expected = segmenter.segment(
      encoded, list(NAMES), classifier=setting.classifier, weight=setting.weight
    )
    got = network.labels(picture, logits, setting)
    np.testing.assert_array_equal(got, expected.labels, err_msg=setting.name)


@pytest.mark.parametrize('setting', SETTINGS, ids=lambda s: s.name)
def test_a_true_vocabulary_is_a_shorter_list(
  network: Network, picture: Picture, setting: Setting
) -> None:
  among = np.isin(np.arange(9), (1, 4, 7))
  logits = network.logits(picture, network.embed(NAMES))
  got = network.labels(picture, logits, setting, among=among)
  short = network.logits(picture, network.embed(tuple(NAMES[k] for k in (1, 4, 7))))
  expected = np.array([1, 4, 7])[network.labels(picture, short, setting)]
  np.testing.assert_array_equal(got, expected)


def test_single_concepts_are_lists_of_two(network: Network, picture: Picture) -> None:
  text = network.embed((*NAMES, 'others'))
  classes = np.array([0, 5])
  got = network.single_concepts(picture, text, classes, SETTINGS[0])
  for k, mask in zip(classes, got, strict=True):
    logits = network.logits(picture, network.embed((NAMES[k], 'others')))
    labels = network.labels(picture, logits, SETTINGS[0])
    assert (mask == (labels == 0)).mean() > 0.999  # but for rounding at borders


def test_true_masks_have_one_class_each(
  network: Network, picture: Picture, label: np.ndarray
) -> None:
  text = network.embed(NAMES)
  classes = np.array([2, 4])
  crops = oracle.name_masks(network, picture, text, label, classes)
  got = oracle.true_masks_named(label, classes, crops)
  assert (got[label == 255] == -1).all()
  for k in (2, 4):
    assert len(np.unique(got[label == k])) == 1
    assert 0 <= got[label == k][0] < 9


def test_a_mask_too_small_to_see_is_unassigned(
  network: Network, picture: Picture, label: np.ndarray
) -> None:
  tiny = label.copy()
  tiny[7, 3] = 6  # between the pixels that the network sees
  small = [int((i + 0.5) * 50 / 40) for i in range(40)]
  assert 7 not in small or 3 not in [int((i + 0.5) * 70 / 56) for i in range(56)]
  classes = np.array([2, 4, 6])
  crops = oracle.name_masks(network, picture, network.embed(NAMES), tiny, classes)
  got = oracle.true_masks_named(tiny, classes, crops)
  assert got[7, 3] == -1 and (got[label == 4] >= 0).sum() == (tiny == 4).sum()


def test_true_classes_are_of_the_image(picture: Picture, label: np.ndarray) -> None:
  got = oracle.true_classes(picture, label, np.array([2, 4]))
  assert got.shape == label.shape and set(np.unique(got)) <= {-1, 2, 4}
  # Random proposals are split by nothing, but the class list is kept in order.
  mostly_left = np.where(label == 2, 255, label)
  got = oracle.true_classes(picture, mostly_left, np.array([4]))
  assert set(np.unique(got)) <= {-1, 4}


def test_the_report_states_all_settings(network: Network) -> None:
  got = network.describe()
  assert got['lambda'] == 0.7 and got['templates'] == 'single'
  assert (got['shortest_side'], got['longest_side']) == (40, 96)
  assert got['mask_threshold'] == CONFIG.region.threshold


def test_settings_are_the_checkpoints_unless_changed(
  checkpoint: pathlib.Path, image: np.ndarray
) -> None:
  changes = Changes(dtype='bfloat16', templates='clip', shortest=64, threshold=0.5)
  got = Network(checkpoint, changes=changes)
  assert got.encode(image).content == (64, 90)
  assert got.model.region.threshold == 0.5
  settings = got.describe()
  assert settings['dtype'] == 'bfloat16' and settings['longest_side'] == 96
  assert settings["not the checkpoint's"] == (
    'templates (its own: single), threshold (its own: 0.4), shortest (its own: 40), '
    'dtype (its own: float32)'
  )
  assert not got.encode(image).first and 'pixels without a score' not in settings
  got = Network(checkpoint, changes=Changes(no_score='first'))
  assert got.encode(image).first
  assert got.describe()['pixels without a score'] == 'the first class'
  same = Network(checkpoint, changes=Changes(shortest=40, templates='single'))
  assert "not the checkpoint's" not in same.describe()


def test_the_proposer_may_see_a_square(
  checkpoint: pathlib.Path, network: Network, image: np.ndarray
) -> None:
  got = Network(checkpoint, changes=Changes(proposer_side=32)).encode(image)
  plain = network.encode(image)
  assert got.content == plain.content == got.padded.shape[:2]
  assert got.encoded.masks.shape[1:] == got.content
  h, w = plain.content
  np.testing.assert_allclose(got.padded, plain.padded[:h, :w])
  assert (np.asarray(got.encoded.masks) != plain.encoded.masks[:, :h, :w]).any()


def test_borders_may_follow_the_picture(
  checkpoint: pathlib.Path, picture: Picture, image: np.ndarray
) -> None:
  other = Network(checkpoint, changes=Changes(refine=3))
  assert other.describe()['refined within pixels'] == 3
  weights = np.random.default_rng(0).uniform(size=(20, 9)).astype(np.float32) ** 9
  plain, refined = picture.paint(weights), other.encode(image).paint(weights)
  want, _ = refine(plain, image, radius=3)
  np.testing.assert_array_equal(refined, want)
  assert (plain != want).any()


def test_weights_may_be_rounded(
  checkpoint: pathlib.Path,
  network: Network,
  image: np.ndarray,
  tmp_path: pathlib.Path,
) -> None:
  rounded = Network(checkpoint, changes=Changes(weights='int8'))
  assert rounded.describe()['weights'] == 'rounded to int8'
  assert 'weights' not in network.describe()
  stored = restored(reduced(flatten(draw_params()), 'int8'))
  save_model(tmp_path / 'model', unflatten(stored), STORED)
  asked = [x.encode(image) for x in (rounded, Network(tmp_path / 'model'), network)]
  got, want, plain = (np.asarray(x.encoded.masks) for x in asked)
  np.testing.assert_array_equal(got, want)
  assert (got != plain).any()
  np.testing.assert_array_equal(
    rounded.embed(NAMES), Network(tmp_path / 'model').embed(NAMES)
  )
