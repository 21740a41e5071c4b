"""True masks that any proposal shows."""

import numpy as np
import pytest

from ovs_jax.evaluate.recall import count_recall, recalls

KINDS = ('thing', 'stuff', '')


def boxes(*places: tuple[int, int]) -> np.ndarray:
  """Masks of 1 x 100 pixels, from one place to another."""
  columns = np.arange(100)[None]
  return np.stack([(columns >= a) & (columns < b) for a, b in places])


def test_hand_computed() -> None:
  label = np.full((1, 100), 255)
  label[:, :40], label[:, 40:45], label[:, 50:51] = 1, 0, 2
  # Class 1: the first has 30 of 40 and nothing else: 0.75. The void beside class 0 is
  # left out, so that the second shows it whole; nothing shows class 2.
  counts = count_recall(boxes((0, 30), (40, 50), (0, 0)), label, KINDS)
  assert counts[1, 2].tolist() == [1, 1, 1, 0]  # stuff of 40 %
  assert counts[0, 1].tolist() == [1, 1, 1, 1]  # a thing of 5 %
  assert counts[2, 1].tolist() == [1, 0, 0, 0]  # neither, of 1 %
  assert counts.sum() == 8
  found = recalls(counts, 3, 2)
  assert found['proposals'] == 1.5
  assert found['all'] == {
    'masks': 3,
    '0.5': pytest.approx(200 / 3),
    '0.75': pytest.approx(200 / 3),
    '0.9': pytest.approx(100 / 3),
  }
  assert found['thing']['0.9'] == 100 and found['stuff']['0.9'] == 0
  assert 'small' not in found and found['medium']['masks'] == 2


def test_a_small_mask() -> None:
  label = np.full((10, 100), 1)
  label[0, :9] = 0  # 0.9 %
  counts = count_recall(np.zeros((0, 10, 100), bool), label, KINDS)
  assert counts[0, 0].tolist() == [1, 0, 0, 0]
  assert counts[1, 2].tolist() == [1, 0, 0, 0]


def test_nothing_to_show() -> None:
  assert count_recall(boxes((0, 9)), np.full((1, 100), 255), KINDS).sum() == 0
  empty = recalls(np.zeros((3, 3, 4), int), 0, 0)
  assert empty == {'proposals': 0.0}


def test_true_masks_show_themselves() -> None:
  rng = np.random.default_rng(0)
  label = rng.integers(0, 4, (20, 30))
  masks = np.stack([label == k for k in range(3)])
  counts = count_recall(masks, label, ('thing', 'thing', 'stuff', 'stuff'))
  assert counts[0].sum(axis=0).tolist() == [2, 2, 2, 2]
  assert counts[1].sum(axis=0)[:2].tolist() == [2, 1]


def test_classes_that_training_knew_apart() -> None:
  label = np.full((1, 100), 0)
  label[:, 60:] = 1
  masks = boxes((0, 60), (70, 100))  # the second has 30 of 40
  kinds, splits = ('stuff', 'stuff', ''), ('seen', 'unseen', '')
  counts = [
    count_recall(masks, label, kinds),
    count_recall(masks, label, splits, ('seen', 'unseen', '')),
  ]
  found = recalls(counts[0], 2, 1, counts[1])
  assert found['seen'] == {'masks': 1, '0.5': 100, '0.75': 100, '0.9': 100}
  assert found['unseen'] == {'masks': 1, '0.5': 100, '0.75': 100, '0.9': 0}
  assert found['stuff']['masks'] == found['all']['masks'] == 2
  assert 'seen' not in recalls(counts[0], 2, 1)
