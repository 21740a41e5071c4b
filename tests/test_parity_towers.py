"""Towers beside the libraries that they come from, where these are installed."""

import pytest

pytestmark = pytest.mark.libraries


def test_every_tower():
  import parity_towers  # needs what nothing here requires

  for name in parity_towers.CASES:
    for side in (4, 5):
      found = parity_towers.compare(name, parity_towers.Size(side=side))
      assert all(error <= parity_towers.BOUND for error in found.values()), (
        name,
        found,
      )
