"""Masks out of label maps."""

import jax
import numpy as np
import pytest

from ovs_jax.ops.targets import target_masks


@pytest.mark.parametrize('kind', [np.uint8, np.uint16])
def test_one_mask_per_target(kind: type) -> None:
  void = np.iinfo(kind).max
  label = np.array([[[5, 5, void], [2, 5, 0]], [[void] * 3] * 2], kind)
  ids = np.array([[0, 2, 5, 0], [0, 0, 0, 0]], np.int32)
  valid = np.array([[True, True, True, False], [False] * 4])
  masks = np.asarray(jax.jit(target_masks)(label, ids, valid))
  assert masks[0].astype(int).tolist() == [
    [[0, 0, 0], [0, 0, 1]],
    [[0, 0, 0], [1, 0, 0]],
    [[1, 1, 0], [0, 1, 0]],
    [[0, 0, 0], [0, 0, 0]],
  ]
  assert not masks[1].any() and masks.dtype == bool
