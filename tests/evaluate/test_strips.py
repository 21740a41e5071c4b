"""Strips of an image, its truth and its prediction."""

import numpy as np
import pytest

from ovs_jax.core.types import VOID
from ovs_jax.evaluate import strips
from ovs_jax.ops.colours import palette
from ovs_jax.text import vocabulary

NAMES = vocabulary.load('scenes')


def test_what_the_legend_says(monkeypatch: pytest.MonkeyPatch) -> None:
  said = {}

  def legend(names, areas, colours, *, width, told):  # noqa: ANN001, ANN202
    said.update(names=names, told=told, colours=colours)
    return real(names, areas, colours, width=width, told=told)

  real = strips.legend
  monkeypatch.setattr(strips, 'legend', legend)
  truth = np.full((8, 10), VOID, np.uint8)
  truth[:4] = 3
  found = np.full((8, 10), 5, np.int16)
  found[:2] = 3
  picture = strips.strip(np.zeros((8, 10, 3), np.uint8), truth, found, NAMES)
  three, five = NAMES.names[3], NAMES.names[5]
  assert [name.removesuffix(' (unseen)') for name in said['names']] == [three, five]
  # Each column sums to 100 % with what has no name.
  assert said['told'] == [
    '50.0 % true, 25.0 % found',
    '0.0 % true, 75.0 % found',
    '50.0 % true, 0.0 % found',
  ]
  # Colours are those of the vocabulary in every picture.
  np.testing.assert_array_equal(said['colours'], palette(len(NAMES))[[3, 5]])
  pixels = np.asarray(picture).reshape(-1, 3)
  assert (pixels == palette(6)[5]).all(axis=1).any()  # its box in the legend
