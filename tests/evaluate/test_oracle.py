"""The oracle analyses on masks drawn by hand."""

import jax.numpy as jnp
import numpy as np
from tiny_ovseg import handmade

from ovs_jax.core.types import VOID
from ovs_jax.evaluate import oracle
from ovs_jax.evaluate.network import Picture
from ovs_jax.models.clip_mix import Mix

LABEL = jnp.array([[3, 3, 1, 1], [3, 3, 1, VOID], [3, 3, 0, VOID]])
TRUTH = np.asarray(LABEL)


def pictured(
  masks: np.ndarray,
  valid: list[bool] | None = None,
  size: tuple[int, int] | None = None,
) -> Picture:
  """Returns proposals of given masks; nothing else matters here."""
  inner = handmade(masks, np.ones((len(masks), 2)), valid=valid).encoded
  content = masks.shape[1:]
  return Picture(size or content, content, np.zeros((*content, 3), np.float32), inner)


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


def test_true_masks_are_named() -> None:
  names = oracle.true_masks_named(TRUTH, np.array([0, 1, 3]), np.array([4, -1, 2]))
  assert names.tolist() == [[2, 2, -1, -1], [2, 2, -1, -1], [2, 2, 4, -1]]


class TestTrueClasses:
  def test_true_masks_give_the_truth(self) -> None:
    masks = np.stack([TRUTH == k for k in (0, 1, 3)])
    got = oracle.true_classes(pictured(masks), TRUTH, np.array([0, 1, 3]))
    np.testing.assert_array_equal(got, np.where(TRUTH == VOID, -1, TRUTH))

  def test_maps_have_the_size_of_the_image(self) -> None:
    masks = np.stack([TRUTH == k for k in (0, 1, 3)])
    large = np.repeat(np.repeat(TRUTH, 3, axis=0), 3, axis=1)
    picture = pictured(masks, size=(9, 12))
    got = oracle.true_classes(picture, large, np.array([0, 1, 3]))
    assert got.shape == (9, 12)
    assert got[::4, ::11].tolist() == [[3, 1], [3, -1], [3, -1]]

  def test_a_straddling_proposal_gives_way_to_a_clean_one(self) -> None:
    everything = np.ones((3, 4))  # six of ten pixels are class 3
    picture = pictured(np.stack([everything, TRUTH == 1]))
    got = oracle.true_classes(picture, TRUTH, np.array([0, 1, 3]))
    expected = np.full((3, 4), 3)
    expected[TRUTH == 1] = 1
    np.testing.assert_array_equal(got, expected)

  def test_invalid_proposals_do_not_count(self) -> None:
    picture = pictured(np.stack([TRUTH == 3, np.ones((3, 4))]), [False, True])
    got = oracle.true_classes(picture, TRUTH, np.array([0, 1, 3]))
    assert (got == 3).all()


class TestNameProposals:
  def name(self, *masks: np.ndarray) -> tuple[list[int], list[bool]]:
    """The first proposal shows class 1 to CLIP, the second class 3."""
    clip = jnp.eye(5)[jnp.array([1, 3])[: len(masks)]]
    picture = pictured(np.stack(masks))
    mix = Mix((1,), (100.0,))
    truth = TRUTH, np.array([0, 1, 3])
    got = oracle.name_proposals(mix, picture, (clip, clip[None]), *truth)
    return got[0].tolist(), got[1].tolist()

  def test_each_true_mask_takes_the_one_that_overlaps_it_most(self) -> None:
    left, corner = np.zeros((3, 4)), np.zeros((3, 4))
    left[:, :2] = 1  # all of class 3
    corner[0, 2] = 1  # one of the three pixels of class 1
    names, found = self.name(corner, left)
    assert names[1:] == [1, 3] and found == [False, False, True]

  def test_half_is_enough(self) -> None:
    half = np.zeros((3, 4))
    half[0, 2:] = half[0, 0] = 1  # two of three pixels, and one of another class
    assert self.name(half)[1] == [False, True, False]
    half[1, 0] = 1
    assert self.name(half)[1] == [False, False, False]
