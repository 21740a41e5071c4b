"""What is counted for a model that knows the truth, and for one that errs as told."""

import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from tiny_ovseg import STORED, draw_params, handmade

from ovs_jax.core.checkpoint import save_model
from ovs_jax.evaluate import judges
from ovs_jax.evaluate.judges import ModelJudge, Plan
from ovs_jax.evaluate.network import Network, Picture, Setting
from ovs_jax.evaluate.sources import Sample
from ovs_jax.evaluate.summary import Training, summarise
from ovs_jax.inference.segmenter import Segmenter
from ovs_jax.models.clip_mix import Mix
from ovs_jax.ops.calibration import count_bins
from ovs_jax.settings import Suite
from ovs_jax.text.vocabulary import Vocabulary

NAMES = Vocabulary(
  name='three',
  names=('cat', 'dog', 'grass'),
  source_values=(0, 1, 2),
  kinds=('',) * 3,
  splits=('seen', 'unseen', 'seen'),
  synonyms=((),) * 3,
)
LABEL = np.array([[0, 0, 2, 2], [0, 0, 2, 255]])
WIDTH = 64


class Truthful(Network):
  """A network that sees the label in the image, and is distracted by 100 names."""

  def __init__(self) -> None:
    self.setting = Setting('ensemble', 0.5)
    self.mix = Mix((1,), (100.0,))

  def embed(self, names: tuple[str, ...]) -> np.ndarray:
    rows = np.zeros((len(names), WIDTH))
    for i, name in enumerate(names):
      rows[i, NAMES.names.index(name) if name in NAMES.names else 3 + i % 60] = 1
    return rows

  def encode(self, image: np.ndarray, *, place: int = 0, masks: Any = None) -> Picture:
    assert masks is None
    size = image.shape[:2]
    whole = handmade(np.ones((1, *size)), np.ones((1, 2))).encoded
    return Picture(size, size, image.astype(np.float32), whole)

  def logits(self, picture: Picture, text: np.ndarray) -> Any:
    return jnp.zeros((1, len(text) + 1)), jnp.zeros((1, 1, len(text)))

  def labels(
    self, picture: Picture, logits: Any, setting: Setting, *, among: Any = None
  ) -> np.ndarray:
    seen = np.asarray(picture.padded[..., 0], int)
    labels = np.where(seen == 255, 0, seen)
    if setting.classifier == 'clip':
      return np.zeros_like(labels)  # says "cat" everywhere
    if logits[1].shape[2] > 100:
      labels[0] = 50  # a distractor wins the first row
    if among is None and setting.weight == 0.5:
      labels[1, 2] = 1  # "dog", which is not there
    return labels

  def weights(self, picture: Any, logits: Any, setting: Any, **_: Any) -> np.ndarray:
    return np.array([[0.5, 0.9, 0.1]])  # "dog", who is not seen, before "cat"

  def single_concepts(self, picture: Any, text: Any, classes: Any, setting: Any) -> Any:
    assert len(text) == 4
    seen = np.asarray(picture.padded[..., 0], int)
    masks = seen[None] == classes[:, None, None]
    masks[0, 0, 2] = True
    return masks


def sample(position: int) -> Sample:
  image = np.repeat(LABEL[..., None], 3, axis=2).astype(np.uint8)
  return Sample(f'{position}', image, LABEL, position)


def name_masks(
  network: Any, picture: Any, text: Any, label: Any, classes: np.ndarray
) -> np.ndarray:
  return classes


def name_proposals(
  mix: Any, picture: Any, logits: Any, label: Any, classes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  return np.zeros_like(classes), classes != 2  # no proposal shows the grass


def true_classes(picture: Any, label: np.ndarray, classes: Any) -> np.ndarray:
  return np.where(label == 0, 0, 2)


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> ModelJudge:
  for function in (name_masks, name_proposals, true_classes):
    monkeypatch.setattr(judges.oracle, function.__name__, function)
  plan = Plan(
    settings=(Setting('clip', 0.0), Setting('ensemble', 0.7)),
    distractors=(100, 200),
    distractor_images=2,
    near=0.9,
    single_concepts=True,
    parts=True,
  )
  return ModelJudge(Truthful(), NAMES, plan)


def test_confidences_are_those_of_the_segmenter(
  tmp_path: pathlib.Path, judge: ModelJudge
) -> None:
  """The evaluation's confidences are what a user gets for the same picture."""
  save_model(tmp_path / 'ovseg', draw_params(), STORED)
  pixels = np.random.default_rng(5).integers(0, 256, (50, 70, 3)).astype(np.uint8)
  network = Network(tmp_path / 'ovseg')
  also = {'calibration': True, 'recall': True}
  plan = Plan((), (), 0, near=None, single_concepts=False, **also)
  segmenter = Segmenter.load(tmp_path / 'ovseg')
  result = segmenter.segment(pixels, NAMES.names)
  truth = np.random.default_rng(6).integers(0, 3, (50, 70))
  one = ModelJudge(network, NAMES, plan)
  one.count(Sample('a', pixels, truth, 0))
  want = count_bins(result.labels, result.confidence, truth, 3)
  assert want[:, 0].sum() > 3000 and (want[:, 0] > 0).sum() > 2
  found = one.sums[judges.CALIBRATION]
  # Two programs may round a pixel at an edge into either bin.
  np.testing.assert_array_equal(found[:, :2].sum(axis=0), want[:, :2].sum(axis=0))
  np.testing.assert_allclose(found[:, :2], want[:, :2], atol=2)
  np.testing.assert_allclose(found[:, 2], want[:, 2], rtol=0.02)
  # True masks: a class each; proposals: those that show anything.
  assert one.sums[judges.RECALL][..., 0].sum() == 3
  assert one.sums[judges.PROPOSALS] == len(result.proposals.boxes)


def test_every_way_is_counted(judge: ModelJudge) -> None:
  for i in range(3):
    labels = judge.count(sample(i))['']
    np.testing.assert_array_equal(labels, judge.predict(sample(i))[1])
  right = {n: np.diag(t.matrix)[:3].sum() for n, t in judge.tallies.items()}
  assert right == {
    'ensemble_0.50': 18,  # 6 of 7 labelled pixels, three times
    'clip': 12,
    'ensemble_0.70': 21,
    judges.TRUE_VOCABULARY: 21,
    judges.TRUE_MASKS: 21,
    judges.TRUE_CLASSES: 21,
    'distractors_0': 12,  # on the first two images only
    'distractors_100': 4,
    'distractors_200': 4,
    judges.TRUE_CROPS: 6,  # cat and grass, three times
    judges.PROPOSED_CROPS: 3,
    judges.PROPOSER_SEEN: 12,  # "cat" everywhere
    judges.TRUE_CLASSES_SEEN: 21,
  }
  assert judge.tallies[judges.PROPOSED_CROPS].matrix[:, :3].sum() == 3
  assert judge.tallies['distractors_100'].matrix[3].sum() == 8  # without a class
  assert judge.sums['errors'].tolist() == [18, 0, 3, 0]
  # "cat" alone claims a pixel of grass.
  np.testing.assert_array_equal(judge.sums['single'][:, 0], [12, 15, 12])
  np.testing.assert_array_equal(judge.sums['single'][:, 1], [0, 0, 0])


def test_an_image_of_void_is_no_mistake(judge: ModelJudge) -> None:
  image = np.full((2, 4, 3), 255, np.uint8)
  judge.count(Sample('void', image, np.full((2, 4), 255), 9))
  assert all(t.matrix[:, :3].sum() == 0 for t in judge.tallies.values())
  assert judge.sums['errors'].sum() == 0


def test_the_summary_names_the_roles(judge: ModelJudge) -> None:
  for i in range(2):
    judge.count(sample(i))
  rows = judge.network.embed(('cat', 'grass'))
  training = Training('three', ('cat', 'grass'), rows, judge.text)
  got = summarise(
    Suite(bootstrap=10, search=(0.5, 0.7), tuned=(('three', 0.7),)),
    'three',
    NAMES,
    judge.headline,
    (judge.tallies, judge.sums),
    training,
  )
  assert (got['headline'], got['tuned']) == ('ensemble_0.50', 'ensemble_0.70')
  assert got['searched'] == 'ensemble_0.70'
  assert got['groups'] == {'seen': 2, 'unseen': 1, 'near_unseen': 0, 'far_unseen': 1}
  assert got['distractors']['images'] == 2
  assert list(got['distractors']['miou']) == ['0', '100', '200']
  assert got['distractors']['miou']['0'] > got['distractors']['miou']['100']
  assert got['single_concept']['iou'] == pytest.approx(100 * (4 / 5 + 1) / 2)
  assert got['class_table'][1] == {
    'class': 'dog',
    'group': 'far_unseen',
    'nearest': 'cat',
    'cosine': 0.0,
  }
  assert sum(got['errors'].values()) == pytest.approx(100)


def test_names_too_close_are_no_distractors() -> None:
  class Close(Truthful):
    def embed(self, names: tuple[str, ...]) -> np.ndarray:
      rows = super().embed(names)
      if len(names) > 50:
        rows[:5] = np.eye(WIDTH)[0]  # five of them mean "cat"
      return rows

  plan = Plan((), (60,), 0, near=0.9, single_concepts=False)
  judge = ModelJudge(Close(), NAMES, plan)
  more = judge.texts[60][3:]
  assert len(more) == 60 and (more @ judge.text.T).max() < 0.9


def test_a_text_tower_that_tells_nothing_apart() -> None:
  class Blind(Truthful):
    def embed(self, names: tuple[str, ...]) -> np.ndarray:
      rows = np.zeros((len(names), WIDTH))
      rows[:, 0], rows[:, 1] = 1, np.arange(len(names)) % 7 / 100
      return rows / np.linalg.norm(rows, axis=1, keepdims=True)

  plan = Plan((), (14,), 0, near=0.9, single_concepts=False)
  more = ModelJudge(Blind(), NAMES, plan).texts[14][3:]
  # Nothing is clear of the classes; of 28 candidates the least alike are taken.
  assert more.shape == (14, WIDTH)
  assert more[:4, 1].min() > more[4:, 1].max()
