"""Label maps that follow the photograph, against the filter written out in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from ovs_jax.ops.guided import box_sums, refine


def windows(size: tuple[int, int], radius: int) -> list[list[tuple[slice, slice]]]:
  """The pixels around each pixel, as slices."""
  h, w = size
  return [
    [
      (
        slice(max(y - radius, 0), min(y + radius + 1, h)),
        slice(max(x - radius, 0), min(x + radius + 1, w)),
      )
      for x in range(w)
    ]
    for y in range(h)
  ]


def written_out(
  votes: np.ndarray, image: np.ndarray, radius: int, epsilon: float
) -> np.ndarray:
  """The guided filter of one map: a regression in every window, and means of them."""
  guide = image.astype(np.float64) / 255
  around = windows(votes.shape, radius)
  slopes, offsets = np.zeros_like(guide), np.zeros(votes.shape)
  for y, row in enumerate(around):
    for x, window in enumerate(row):
      colours, values = guide[window].reshape(-1, 3), votes[window].ravel()
      spread = np.cov(colours.T, bias=True) + epsilon * np.eye(3)
      joint = ((colours - colours.mean(0)) * (values - values.mean())[:, None]).mean(0)
      slopes[y, x] = np.linalg.solve(spread, joint)
      offsets[y, x] = values.mean() - slopes[y, x] @ colours.mean(0)
  result = np.zeros(votes.shape)
  for y, row in enumerate(around):
    for x, window in enumerate(row):
      slope = slopes[window].reshape(-1, 3).mean(0)
      result[y, x] = slope @ guide[y, x] + offsets[window].mean()
  return result


@pytest.mark.parametrize('radius', [1, 2, 5])
def test_sums_are_those_of_windows(radius: int) -> None:
  x = np.random.default_rng(0).normal(size=(13, 9, 2)).astype(np.float32)
  want = [
    [x[window].sum((0, 1)) for window in row] for row in windows(x.shape[:2], radius)
  ]
  np.testing.assert_allclose(box_sums(jnp.asarray(x), radius), want, atol=1e-5)


@pytest.mark.parametrize(('radius', 'epsilon'), [(2, 1e-2), (4, 1e-3)])
def test_votes_are_the_filter_written_out(radius: int, epsilon: float) -> None:
  draw = np.random.default_rng(1)
  image = draw.integers(0, 256, (17, 23, 3)).astype(np.uint8)
  labels = draw.choice([-1, 4, 7], (17, 23)).astype(np.int32)
  got, votes = refine(labels, image, radius=radius, epsilon=epsilon)
  maps = [
    written_out((labels == k).astype(float), image, radius, epsilon) for k in (-1, 4, 7)
  ]
  np.testing.assert_allclose(votes, np.max(maps, axis=0), atol=2e-4)
  top = np.sort(maps, axis=0)
  sure = top[-1] - top[-2] > 1e-3
  assert sure.mean() > 0.9
  want = np.array([-1, 4, 7])[np.argmax(maps, axis=0)]
  np.testing.assert_array_equal(got[sure], want[sure])


def test_borders_go_where_the_photo_has_them() -> None:
  """A border that is three pixels off, and a speck, in a photo of two colours."""
  image = np.full((40, 50, 3), (200, 60, 30), np.uint8)
  image[:, 25:] = (20, 90, 200)
  truth = np.zeros((40, 50), np.int32)
  truth[:, 25:] = 3
  labels = np.roll(truth, 3, axis=1)
  labels[:, :3] = 0
  labels[20, 40] = 9
  got, votes = refine(labels, image, radius=8)
  np.testing.assert_array_equal(got, truth)
  assert (votes > 0.5).all()


def test_the_size_that_is_compiled_does_not_show() -> None:
  draw = np.random.default_rng(2)
  image = draw.integers(0, 256, (64, 70, 3)).astype(np.uint8)
  labels = draw.integers(0, 3, (64, 70)).astype(np.int32)
  image[:, 40:], labels[:, 40:] = image[:, :30], labels[:, :30]
  whole, _ = refine(labels, image, radius=3)
  part, _ = refine(labels[:, :64], image[:, :64], radius=3)  # nothing is padded
  np.testing.assert_array_equal(part[:, :57], whole[:, :57])


def test_what_it_cannot_do_is_said() -> None:
  labels, image = np.zeros((4, 5), np.int32), np.zeros((4, 6, 3), np.uint8)
  with pytest.raises(ValueError, match='give the photo that was segmented'):
    refine(labels, image)
  for given in ({'radius': 0}, {'epsilon': 0.0}, {'epsilon': float('nan')}):
    with pytest.raises(ValueError, match='at least 1 pixel and more than 0'):
      refine(labels, image[:, :5], **given)


def test_no_window_is_larger_than_the_picture() -> None:
  rng = np.random.default_rng(5)
  labels = rng.integers(0, 3, (6, 9))
  image = rng.integers(0, 256, (6, 9, 3)).astype(np.uint8)
  want = refine(labels, image, radius=9)
  for radius in (30, 10**9):
    for a, b in zip(refine(labels, image, radius=radius), want, strict=True):
      np.testing.assert_array_equal(a, b)
