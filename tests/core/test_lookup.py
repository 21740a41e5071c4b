"""Names looked up in tables."""

import pytest

from ovs_jax.core.lookup import did_you_mean, lookup

TABLE = {'evaluate': 1, 'train': 2}


def test_known_names_are_found() -> None:
  assert lookup(TABLE, 'train', 'mode') == 2


def test_a_near_miss_is_suggested() -> None:
  with pytest.raises(ValueError) as error:
    lookup(TABLE, 'trian', 'mode')
  assert str(error.value) == (
    "unknown mode 'trian'; known: evaluate, train. Did you mean 'train'?"
  )


def test_a_far_miss_lists_what_is_known_only() -> None:
  with pytest.raises(ValueError, match=r"unknown mode 'x'; known: evaluate, train\.$"):
    lookup(TABLE, 'x', 'mode')
  assert did_you_mean('x', TABLE) == ''
  assert did_you_mean('x', []) == ''
