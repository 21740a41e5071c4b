"""The oracle analyses on masks drawn by hand."""

import jax.numpy as jnp
import numpy as np

from ovs_jax.core.types import VOID
from ovs_jax.evaluate import oracle
from ovs_jax.models import ovseg

LABEL = jnp.array([[3, 3, 1, 1], [3, 3, 1, VOID], [3, 3, 0, VOID]])


def encoded(masks: np.ndarray, valid: list[bool] | None = None) -> ovseg.Encoded:
  """Returns proposals of given masks; nothing else matters here."""
  masks = jnp.asarray(masks, jnp.float32)
  q = masks.shape[0]
  return ovseg.Encoded(
    embeddings=jnp.ones((q, 2)),
    regions=jnp.ones((q, 2)),
    masks=masks,
    boxes=jnp.zeros((q, 4), jnp.int32),
    valid=jnp.asarray([True] * q if valid is None else valid),
    no_object=jnp.ones((1, 2)),
  )


class TestTrueMasks:
  def test_largest_classes_first(self) -> None:
    classes, masks, valid = oracle.true_masks(LABEL, 5, 4)
    assert classes[:3].tolist() == [3, 1, 0]
    assert valid.tolist() == [True, True, True, False]
    assert masks.sum(axis=(1, 2))[:3].tolist() == [6, 3, 1]
    assert not masks[:, 1, 3].any()  # void is in no mask

  def test_the_largest_stay(self) -> None:
    classes, masks, valid = oracle.true_masks(LABEL, 5, 2)
    assert classes.tolist() == [3, 1] and valid.all() and masks.shape == (2, 3, 4)

  def test_never_more_than_there_are_classes(self) -> None:
    assert oracle.true_masks(LABEL, 5, 12)[0].shape == (5,)


def test_paint_is_the_inverse_of_true_masks() -> None:
  classes, masks, valid = oracle.true_masks(LABEL, 5, 4)
  painted = oracle.paint(masks, classes, valid)
  np.testing.assert_array_equal(painted, jnp.where(LABEL == VOID, 0, LABEL))


def test_paint_leaves_out_what_is_not_valid() -> None:
  masks = jnp.ones((2, 1, 2)) * jnp.array([[[1.0, 0.0]], [[0.0, 1.0]]])
  painted = oracle.paint(masks, jnp.array([4, 2]), jnp.array([True, False]))
  assert painted.tolist() == [[4, 0]]


class TestTrueClasses:
  def test_true_masks_give_the_truth(self) -> None:
    masks = np.stack([LABEL == k for k in (0, 1, 3)])
    got = oracle.true_classes(encoded(masks), LABEL, 5)
    known = np.asarray(LABEL) != VOID
    np.testing.assert_array_equal(np.asarray(got)[known], np.asarray(LABEL)[known])

  def test_a_straddling_proposal_gives_way_to_a_clean_one(self) -> None:
    everything = np.ones((3, 4))  # six of ten pixels are class 3
    clean = np.asarray(LABEL == 1)
    got = oracle.true_classes(encoded(np.stack([everything, clean])), LABEL, 5)
    expected = np.full((3, 4), 3)
    expected[clean] = 1
    np.testing.assert_array_equal(got, expected)

  def test_invalid_proposals_do_not_count(self) -> None:
    masks = np.stack([np.asarray(LABEL == 3), np.ones((3, 4))])
    got = oracle.true_classes(encoded(masks, [False, True]), LABEL, 5)
    assert (np.asarray(got) == 3).all()


class TestBestProposals:
  def test_indices_and_the_overlap_that_is_enough(self) -> None:
    _, truth, valid = oracle.true_masks(LABEL, 5, 4)
    left = np.zeros((3, 4))
    left[:, :2] = 1  # all of class 3
    corner = np.zeros((3, 4))
    corner[0, 2] = 1  # one of the three pixels of class 1
    matched, found = oracle.best_proposals(
      encoded(np.stack([corner, left])), truth, valid
    )
    assert matched[:2].tolist() == [1, 0]
    assert found.tolist() == [True, False, False, False]

  def test_half_is_enough(self) -> None:
    truth = jnp.array([[[1.0, 1.0, 0.0]]])
    matched, found = oracle.best_proposals(
      encoded(np.array([[[1.0, 0.0, 0.0]]])), truth, jnp.array([True])
    )
    assert matched.tolist() == [0] and found.tolist() == [True]
    _, found = oracle.best_proposals(
      encoded(np.array([[[1.0, 0.0, 1.0]]])), truth, jnp.array([True])
    )
    assert found.tolist() == [False]
