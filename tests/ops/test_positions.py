"""Position tables: hand-computed weights and what must not change."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ovs_jax.ops.resize import resize_grid, resize_positions


def test_weights_of_the_first_outputs():
  # From 14 to 22, as PyTorch computes it: taps 0 0 0 1 and 0 0 1 2.
  weights = resize_grid(jnp.eye(196), (22, 22)).reshape(22, 22, 14, 14)
  rows = weights.sum(axis=(1, 3)) / 22  # each column's weights sum to 1
  np.testing.assert_allclose(rows[0, :3], [1.091285, -0.091285, 0], atol=2e-6)
  np.testing.assert_allclose(rows[1, :4], [0.551090, 0.533434, -0.084523, 0], atol=2e-6)
  np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-6)


def test_rows_and_columns_are_not_mixed_up():
  y, x = np.mgrid[:6, :6].astype(np.float32)
  small = jnp.stack([y, x], -1).reshape(36, 2)
  large = resize_grid(small, (12, 12)).reshape(12, 12, 2)
  # With a=-0.75 straight lines stay so only nearly: 3/64 beside, whatever the axis.
  inside = np.arange(4, 8)
  want = (inside + 0.5) / 2 - 0.5
  np.testing.assert_allclose(large[inside, 5, 0], want, atol=0.05)
  np.testing.assert_allclose(large[5, inside, 1], want, atol=0.05)


def test_the_class_token_and_the_own_size_stay():
  rng = np.random.default_rng(0)
  table = jnp.asarray(rng.normal(size=(1 + 9, 4)), jnp.float32)
  np.testing.assert_array_equal(resize_positions(table, (5, 5))[0], table[0])
  assert resize_positions(table, (5, 5)).shape == (26, 4)
  assert resize_positions(table, (3, 3)) is table
  with pytest.raises(ValueError, match='8 positions are not a square grid'):
    resize_positions(table[:-1], (5, 5))


@pytest.mark.parametrize('method', ['bicubic', 'bilinear'])
@pytest.mark.parametrize('grid', [(16, 16), (27, 31), (10, 9), (3, 24)])
def test_antialiased_as_pillow_does_it(method: str, grid: tuple[int, int]) -> None:
  """PyTorch's antialiased filters, which open_clip and timm use, are Pillow's."""
  table = np.random.default_rng(0).normal(size=(1 + 16 * 16, 3)).astype(np.float32)
  square = table[1:].reshape(16, 16, 3)
  want = [
    Image.fromarray(square[..., i]).resize(grid[::-1], Image.Resampling[method.upper()])
    for i in range(3)
  ]
  got = resize_positions(jnp.asarray(table), grid, method, antialias=True)
  np.testing.assert_array_equal(got[0], table[0])
  want = np.stack([np.asarray(channel) for channel in want], axis=-1)
  np.testing.assert_allclose(got[1:].reshape(*grid, 3), want, atol=1e-5)
  plain = resize_positions(jnp.asarray(table), grid, method)
  differs = np.abs(np.asarray(got - plain)).max()
  if grid == (16, 16):
    assert differs == 0
  elif method == 'bilinear' and min(grid) > 16:
    assert differs < 1e-5  # larger grids are the same
  else:
    assert differs > 0.1


def test_antialiased_weights_by_hand() -> None:
  """From 4 to 2: the tent is four wide, and what hangs over is left out."""
  weights = resize_grid(jnp.eye(16), (2, 2), 'bilinear', antialias=True)
  rows = weights.reshape(2, 2, 4, 4).sum(axis=(1, 3)) / 2
  # At 1 with half width 2: distances 0.5, 0.5, 1.5 of the centres 0.5, 1.5, 2.5.
  np.testing.assert_allclose(rows[0], [3 / 7, 3 / 7, 1 / 7, 0], rtol=1e-5)
  np.testing.assert_allclose(rows[1], [0, 1 / 7, 3 / 7, 3 / 7], rtol=1e-5)
