"""Masks of a picture: what is taken, and how it is kept."""

import numpy as np
import pytest

from ovs_jax.core.errors import UserError
from ovs_jax.core.mask_set import mask_set

SIZE = (5, 7)


def some_masks() -> np.ndarray:
  masks = np.zeros((3, *SIZE), np.float32)
  masks[0, 1:3, 2:6] = 1
  masks[1, 4, 6] = 0.25
  return masks


class TestMaskSet:
  @pytest.mark.parametrize('kind', [np.asarray, list])
  def test_keeps_the_boxes_and_gives_the_masks_back(self, kind):
    masks = some_masks()
    found = mask_set(kind(masks), SIZE)
    assert [cut.source for cut in found.cuts] == [0, 1, 2]
    assert [cut.values.shape for cut in found.cuts] == [(2, 4), (1, 1), (0, 0)]
    np.testing.assert_array_equal(
      found.boxes(), [[2, 1, 6, 3], [6, 4, 7, 5], [0, 0, 0, 0]]
    )
    np.testing.assert_array_equal([found.full(i) for i in range(3)], masks)

  @pytest.mark.parametrize('kind', [bool, np.uint8, np.int64])
  def test_binary_masks_take_a_byte_a_pixel(self, kind):
    masks = some_masks().astype(kind)
    found = mask_set(masks, SIZE)
    assert {cut.values.dtype for cut in found.cuts} == {np.dtype(bool)}
    np.testing.assert_array_equal(found.full(0), masks[0])

  @pytest.mark.parametrize('box', [(0, 0, 7, 5), (3, 2, 7, 5), (0, 0, 2, 1)])
  def test_windows_are_parts(self, box):
    x0, y0, x1, y1 = box
    found = mask_set(some_masks(), SIZE)
    for i, mask in enumerate(some_masks()):
      np.testing.assert_array_equal(found.window(i, box), mask[y0:y1, x0:x1])

  @pytest.mark.parametrize(
    ('masks', 'message'),
    [
      (np.zeros((0, *SIZE)), 'there are no masks; give at least one'),
      ([], 'there are no masks; give at least one'),
      (np.zeros(SIZE), r'got the shape \(5, 7\); put a single mask into a list'),
      (np.zeros((2, 7, 5)), r'mask 0 has 7 x 5 pixels .* the photo 5 x 7; give'),
      ([np.zeros(SIZE), np.zeros((5, 6))], 'mask 1 has 5 x 6 pixels'),
      (np.full((1, *SIZE), 255, np.uint8), 'mask 0 has values from 255 to 255; give'),
      (np.full((1, *SIZE), -0.5), 'mask 0 has values from -0.5 to -0.5; give'),
      (np.full((1, *SIZE), np.nan), 'mask 0 has values from nan to nan; give'),
      (np.full((1, *SIZE), 'a'), 'mask 0 has values of the type <U1; give'),
      (5, 'a list of arrays .* got int'),
    ],
  )
  def test_refuses_other_masks_in_a_line(self, masks, message):
    with pytest.raises(UserError, match=message) as caught:
      mask_set(masks, SIZE)
    assert '\n' not in str(caught.value)
