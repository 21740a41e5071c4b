"""Bands along borders, by hand and against erosion of one mask after the other."""

import numpy as np
import pytest
from scipy import ndimage

from ovs_jax.ops import boundary


def erosion_band(labels: np.ndarray, distance: int) -> np.ndarray:
  """The definition: each mask without what `distance` erosions leave of it."""
  band = np.zeros(labels.shape, bool)
  for k in np.unique(labels):
    mask = labels == k
    inner = ndimage.binary_erosion(mask, np.ones((3, 3)), distance, border_value=0)
    band |= mask & ~inner
  return band


def test_a_row_by_hand() -> None:
  labels = np.array([[0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1]]).repeat(9, axis=0)
  band = boundary.boundary_band(labels, 2)
  assert band[4].tolist() == [1, 1, 1, 1, 1, 1, 0, 0, 0, 1, 1]
  assert band[:2].all() and band[-2:].all()  # the image's end is a border


@pytest.mark.parametrize('distance', [1, 2, 3, 5, 8])
def test_bands_of_all_classes_equal_erosion(distance: int) -> None:
  rng = np.random.default_rng(distance)
  labels = rng.integers(0, 4, (5, 7)).repeat(6, axis=0).repeat(5, axis=1)
  got = boundary.boundary_band(labels, distance)
  np.testing.assert_array_equal(got, erosion_band(labels, distance))
  assert 0 < got.sum() < got.size or distance > 3


@pytest.mark.parametrize('seed', range(40))
def test_bands_of_any_shape_equal_erosion(seed: int) -> None:
  rng = np.random.default_rng(seed)
  shape = tuple(rng.integers(1, 40, 2))
  coarse = rng.integers(0, 3, (shape[0] // 9 + 1, shape[1] // 9 + 1))
  labels = coarse.repeat(9, axis=0).repeat(9, axis=1)[: shape[0], : shape[1]]
  labels[rng.random(shape) < 0.01] = 7
  for distance in (1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 17):
    got = boundary.boundary_band(labels, distance)
    expected = erosion_band(labels, distance)
    np.testing.assert_array_equal(got, expected, err_msg=f'{shape}, {distance}')


@pytest.mark.parametrize(
  ('num_classes', 'dtype'), [(4, np.uint8), (4, np.int64), (847, np.uint16)]
)
def test_counts_are_those_of_the_bands(num_classes: int, dtype: type) -> None:
  rng = np.random.default_rng(num_classes)
  low = 0 if np.iinfo(dtype).min == 0 else -1
  maps = [
    rng.integers(low, num_classes + 2, (5, 6)).astype(dtype).repeat(13, 0).repeat(11, 1)
    for _ in range(2)
  ]
  maps[1][:30] = maps[0][:30]
  wide = [x.astype(int) for x in maps]
  guess, truth = (np.where((x < 0) | (x >= num_classes), -1, x) for x in wide)
  of_guess, of_truth = (erosion_band(x, 4) for x in (guess, truth))
  of_guess &= truth >= 0
  got = boundary.boundary_counts(*maps, num_classes, ratio=4 / np.hypot(65, 66))
  for k in range(num_classes):
    both = of_guess & of_truth & (guess == k) & (truth == k)
    bands = (both, of_guess & (guess == k), of_truth & (truth == k))
    assert got[:, k].tolist() == [int(x.sum()) for x in bands], k
  assert (got.sum(axis=1) > 0).all()


def test_width_is_two_percent_of_the_diagonal() -> None:
  assert boundary.band_width((480, 640)) == 16
  assert boundary.band_width((10, 10)) == 1


def test_counts_of_a_shifted_square() -> None:
  label = np.zeros((30, 40), np.int64)
  label[10:20, 10:20] = 1
  guess = np.roll(label, 1, axis=1)
  both, predicted, true = boundary.boundary_counts(guess, label, 2, ratio=0.02)
  assert predicted[1] == true[1] == 36  # the ring of one pixel
  assert both[1] == 18  # two rows of nine; the vertical sides miss each other
  perfect = boundary.boundary_counts(label, label, 2)
  np.testing.assert_array_equal(perfect[0], perfect[1])
  np.testing.assert_array_equal(perfect[0], perfect[2])


def test_void_and_unassigned_pixels_count_for_nothing() -> None:
  label = np.full((20, 20), 255)
  label[5:15, 5:15] = 0
  both, predicted, true = boundary.boundary_counts(np.zeros((20, 20), int), label, 1)
  assert true[0] == 36  # its border with void is one
  assert predicted[0] == both[0] == 0  # the band of the guess lies in the void
  nothing = boundary.boundary_counts(np.full((20, 20), -1), label, 1)
  assert nothing[:2].sum() == 0 and nothing[2, 0] == 36
