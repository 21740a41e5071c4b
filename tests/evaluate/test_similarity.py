"""Groups of classes and soft scores, on embeddings made by hand."""

import numpy as np
import pytest

from ovs_jax.evaluate import similarity
from ovs_jax.evaluate.distractors import distractors
from ovs_jax.ops.confusion import segmentation_scores
from ovs_jax.text import vocabulary


def test_only_pairs_that_stand_out_are_alike() -> None:
  angles = np.deg2rad([0, 60, 120, 180, 185])
  text = np.stack([np.cos(angles), np.sin(angles)], axis=1)
  soft = similarity.similarity_matrix(text, unalike=0.5)
  np.testing.assert_array_equal(np.diag(soft), 1)
  np.testing.assert_array_equal(soft, soft.T)
  # The median cosine of the ten pairs is that of 60 and 65 degrees (0.46), twice.
  pairs = np.sort([text[i] @ text[j] for i in range(5) for j in range(i)])
  middle = (pairs[4] + pairs[5]) / 2
  assert soft[3, 4] == pytest.approx(
    (np.cos(angles[4] - angles[3]) - middle) / (1 - middle)
  )
  assert soft[0, 3] == 0 and soft[0, 2] == 0


def test_one_name_is_like_itself() -> None:
  assert similarity.similarity_matrix(np.ones((1, 1))).tolist() == [[1.0]]
  twice = similarity.similarity_matrix(np.array([[1.0, 0.0], [1.0, 0.0]]))
  assert np.isfinite(twice).all()


def test_soft_scores_by_hand() -> None:
  matrix = np.zeros((3, 3), np.int64)
  matrix[0, 0], matrix[1, 0], matrix[1, 1], matrix[2, 1] = 6, 4, 8, 2
  matrix[0, 2] = 50  # void
  alike = np.array([[1.0, 0.5], [0.5, 1.0]])
  got = similarity.soft_scores(matrix, alike)
  # Class 0: hit 6 + 2, missed 2, false 0. Class 1: hit 8, missed 2, false 2.
  assert got['open_miou'] == pytest.approx(100 * (8 / 10 + 8 / 12) / 2)
  assert got['sg_miou'] == pytest.approx(100 * (6 / 8 + 8 / 12) / 2)


def test_without_likeness_soft_scores_are_the_miou() -> None:
  matrix = np.random.default_rng(0).integers(0, 50, (6, 6))
  hard = segmentation_scores(matrix)['miou']
  for value in similarity.soft_scores(matrix, np.eye(5)).values():
    assert value == pytest.approx(hard, rel=1e-12)
  text = np.random.default_rng(1).normal(size=(5, 3))
  text /= np.linalg.norm(text, axis=1, keepdims=True)
  soft = similarity.soft_scores(matrix, similarity.similarity_matrix(text, unalike=0.3))
  assert soft['open_miou'] > soft['sg_miou'] > hard


def test_nothing_true() -> None:
  got = similarity.soft_scores(np.zeros((3, 3), int), np.eye(2))
  assert np.isnan(got['open_miou']) and np.isnan(got['sg_miou'])


class TestGroups:
  def test_names_decide_what_is_seen(self) -> None:
    names = ('building, edifice', 'Wall', 'sofa', 'zebra', 'window')
    training = ('building-other', 'wall-brick', 'wall-stuff', 'couch', 'window-blind')
    groups = similarity.class_groups(
      names, ('',) * 5, training, np.array([0.1, 0.1, 0.95, 0.2, 0.9]), near=0.9
    )
    assert groups == {
      'seen': [0, 1],
      'unseen': [2, 3, 4],
      'near_unseen': [2, 4],
      'far_unseen': [3],
    }

  def test_the_class_list_comes_first(self) -> None:
    groups = similarity.class_groups(
      ('cow', 'cat'), ('unseen', 'seen'), ('cow',), np.array([1.0, 0.0]), near=0.9
    )
    assert groups['seen'] == [1] and groups['near_unseen'] == [0]

  def test_the_nearest_training_name(self) -> None:
    best, cosine = similarity.nearest(np.eye(2), np.array([[0.6, 0.8], [0.8, 0.6]]))
    assert best.tolist() == [1, 0] and cosine.tolist() == [0.8, 0.8]


class TestDistractors:
  def test_they_share_no_word_and_none_comes_twice(self) -> None:
    names = vocabulary.load('pascal_context_59').names
    found = distractors(names, 10_000)
    assert len(set(found)) == len(found) == 10_000
    words = {word.rstrip('s') for name in names for word in name.split()}
    for name in found:
      assert not {word.rstrip('s') for word in name.replace('-', ' ').split()} & words

  def test_fewer_are_the_first_of_more(self) -> None:
    names = vocabulary.load('ade20k_847').names
    many = distractors(names, 10_000)
    assert distractors(names, 100) == many[:100]
    assert distractors(names, 1000) == many[:1000]

  def test_too_many_are_refused(self) -> None:
    names = vocabulary.load('ade20k_847').names
    with pytest.raises(ValueError, match='only [0-9,]+ names share no word.*9,000,000'):
      distractors(names, 9_000_000)
