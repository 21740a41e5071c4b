"""Resampling against PyTorch's published numbers and a plain formula."""

import jax.numpy as jnp
import numpy as np
import pytest

from ovs_jax.ops.resize import (
  cubic_matrix,
  cubic_weights,
  linear_matrix,
  nearest_indices,
  resize_bilinear,
  resize_nearest,
  resize_positions,
)


def cubic(row, start, stop, size):
  x = jnp.asarray(row, jnp.float32)
  matrix = cubic_matrix(jnp.int32(start), jnp.int32(stop), len(row), size)
  return np.asarray(matrix @ x)


# Computed with PyTorch: bicubic, align_corners=False, no antialiasing.
@pytest.mark.parametrize(
  'row, want',
  [
    (
      [0, 0, 255, 255],
      [0, -8.9648, -26.8945, 57.7734, 197.2266, 281.8945, 263.9648, 255],
    ),
    ([0, 10, 20, 30], [4.0625, 25.9375]),
  ],
)
def test_bicubic_rows(row, want):
  np.testing.assert_allclose(cubic(row, 0, 4, len(want)), want, atol=1e-4)


def test_bicubic_of_a_span_ignores_what_lies_outside():
  row = [99, -99, 0, 0, 255, 255, 99]
  np.testing.assert_allclose(
    cubic(row, 2, 6, 8), cubic([0, 0, 255, 255], 0, 4, 8), atol=1e-4
  )
  np.testing.assert_allclose(cubic([5, 7, 5], 1, 2, 4), [7] * 4, rtol=1e-6)


@pytest.mark.parametrize('num_in, num_out', [(1, 3), (7, 4), (4, 9), (5, 5)])
def test_weights_sum_to_one(num_in, num_out):
  matrix = cubic_matrix(jnp.int32(0), jnp.int32(num_in), num_in, num_out)
  np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-6)
  np.testing.assert_allclose(linear_matrix(num_in, num_out).sum(axis=1), 1, atol=1e-6)


def test_same_size_is_the_identity():
  for matrix in (cubic_matrix(jnp.int32(0), jnp.int32(5), 5, 5), linear_matrix(5, 5)):
    np.testing.assert_allclose(matrix, np.eye(5), atol=1e-6)


def test_cubic_weights_halfway():
  # a = -0.75: (4a, ...) / 8 gives -0.09375 and 0.59375; Keys' a = -0.5 gives -0.0625.
  np.testing.assert_allclose(
    cubic_weights(jnp.float32(0.5)), [-0.09375, 0.59375, 0.59375, -0.09375], rtol=1e-6
  )


@pytest.mark.parametrize(
  'num_in, num_out, want', [(5, 3, [0, 1, 3]), (3, 5, [0, 0, 1, 1, 2])]
)
def test_nearest_indices(num_in, num_out, want):
  got = nearest_indices(jnp.int32(2), jnp.int32(2 + num_in), num_out)
  np.testing.assert_array_equal(got - 2, want)
  x = jnp.arange(num_in)[None, :] * jnp.ones((num_in, 1), jnp.int32)
  np.testing.assert_array_equal(resize_nearest(x, (num_out, num_out))[0], want)


def test_stride_four_takes_every_fourth_pixel():
  x = jnp.arange(16)[None, :] + 100 * jnp.arange(8)[:, None]
  np.testing.assert_array_equal(resize_nearest(x, (2, 4)), x[::4, ::4])


def test_bilinear():
  x = jnp.array([[0.0, 10.0]])
  np.testing.assert_allclose(resize_bilinear(x, (1, 5))[0], [0, 1, 5, 9, 10], atol=1e-5)
  # Shrinking does not antialias: 8 -> 2 reads the pixels 1, 2 and 5, 6 only.
  x = jnp.array([[9.0, 1, 3, 9, 9, 5, 7, 9]])
  np.testing.assert_allclose(resize_bilinear(x, (1, 2))[0], [2, 6], atol=1e-5)


def test_bilinear_keeps_leading_axes():
  x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
  y = resize_bilinear(jnp.asarray(x), (7, 6))
  assert y.shape == (2, 3, 7, 6)
  one = resize_bilinear(jnp.asarray(x[1, 2]), (7, 6))
  np.testing.assert_allclose(y[1, 2], one, rtol=1e-5, atol=1e-6)


def test_positions_of_another_grid():
  table = np.random.default_rng(0).normal(size=(17, 3)).astype(np.float32)
  assert resize_positions(jnp.asarray(table), (4, 4)).tolist() == table.tolist()
  # Each axis on its own: what is constant along one stays so.
  rows = np.repeat(np.arange(4.0, dtype=np.float32), 4)[:, None]
  rows = jnp.asarray(np.concatenate([[[9.0]], rows]), jnp.float32)
  wide = resize_positions(rows, (4, 7))
  assert wide.shape == (29, 1) and wide[0, 0] == 9
  np.testing.assert_allclose(wide[1:, 0].reshape(4, 7)[2], 2, atol=1e-6)
