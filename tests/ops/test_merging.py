"""Merging rules: thresholds, order, ties, emptiness; and the choice of labels."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from ovs_jax.ops.merging import (
  UNASSIGNED,
  label_recall,
  marginalise,
  merge,
  multilabel,
  top_labels,
)

# Three masks on four pixels.
P = jnp.array([[[0.9, 0.3, 0.1, 0.29]], [[0.2, 0.6, 0.1, 0.2]], [[0.9, 0.5, 0.2, 0.1]]])
LABELS = jnp.array([4, 2, 7])


def test_rule_a():
  assert merge('A', P, LABELS).tolist() == [[4, 2, -1, -1]]
  # A pixel at the threshold belongs to the mask.
  assert merge('A', P[:1], LABELS[:1]).tolist() == [[4, 4, -1, -1]]
  assert merge('A', P, LABELS, threshold=0.0).tolist() == [[4, 2, 7, 4]]
  assert merge('A', P, LABELS, threshold=0.95).tolist() == [[UNASSIGNED] * 4]


def test_rule_a_does_not_see_the_order():
  maps = set()
  for order in itertools.permutations(range(3)):
    order = jnp.array(order)
    maps.add(str(merge('A', P[order], LABELS[order]).tolist()))
  assert len(maps) == 1  # though two masks are equally probable somewhere


def test_rule_b_paints():
  assert merge('B', P, LABELS).tolist() == [[7, 7, -1, -1]]
  order = jnp.array([2, 1, 0])
  assert merge('B', P[order], LABELS[order]).tolist() == [[4, 4, -1, -1]]


def test_nothing_predicted():
  none = jnp.full((3,), -1)
  for rule in 'AB':
    assert merge(rule, P, none).tolist() == [[UNASSIGNED] * 4]
    assert merge(rule, P[:0], LABELS[:0]).tolist() == [[UNASSIGNED] * 4]
  assert not multilabel(P, none, 8).any()
  # An "unlabeled" slot claims no pixel, however sure it is.
  assert merge('A', P, jnp.array([-1, 2, -1])).tolist() == [[-1, 2, -1, -1]]
  with pytest.raises(ValueError, match='rule C needs other inputs'):
    merge('C', P, LABELS)
  with pytest.raises(ValueError, match='unknown merging rule'):
    merge('E', P, LABELS)


def test_rule_c():
  cosines = jnp.log(jnp.array([[0.6, 0.3, 0.1], [0.1, 0.8, 0.1]]))
  p = jnp.array([[[1.0, 0.5]], [[0.2, 1.0]]])
  # Pixel 0: 0.6 + 0.02 against 0.3 + 0.16; pixel 1: 0.3 + 0.1 against 0.15 + 0.8.
  for chunk in (1, 32):
    assert marginalise(p, cosines, tau=1.0, chunk=chunk).tolist() == [[0, 1]]


def test_rule_d():
  got = multilabel(P, jnp.array([0, 2, 0]), 3)
  assert got.shape == (3, 1, 4)
  assert got[:, 0].tolist() == [[1, 1, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]]


def test_top_labels_and_their_recall():
  image = jnp.array([[1.0, 0], [0, 1]])
  text = jnp.array([[0.6, 0.8], [1, 0], [0, 1]])
  labels, scores = top_labels(image, text, 2)
  assert labels.tolist() == [[1, 0], [2, 0]]
  np.testing.assert_allclose(scores, [[1, 0.6], [1, 0.8]], atol=1e-6)
  assert top_labels(image, text, 20)[0].shape == (2, 3)
  truth = jnp.array([[[1, 2]], [[2, 255]]])
  found, present = label_recall(labels, truth, 3)
  assert (int(found), int(present)) == (2, 3)
  found, present = label_recall(jnp.full((2, 2), -1), truth, 3)
  assert (int(found), int(present)) == (0, 3)
