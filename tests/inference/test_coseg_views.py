"""What CoSeg sees of pictures that are no squares."""

import pathlib
from typing import Any

import numpy as np
import pytest
import tiny_prompted

from ovs_jax import Segmenter
from ovs_jax.core.errors import UserError
from ovs_jax.inference.coseg_views import NOWHERE, VIEWS, slots_of
from ovs_jax.inference.load import load_system

SIDE = 8


class Seen:
  """Keeps squares; gives a slot each for where they are red, and everywhere."""

  def __init__(self, cells: int = SIDE) -> None:
    self.squares: list[np.ndarray] = []
    self._cells = cells

  def __call__(self, square: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    assert square.shape == (SIDE, SIDE, 3) and square.dtype == np.uint8
    self.squares.append(square)
    step = SIDE // self._cells
    red = square[::step, ::step, 0].astype(np.float32) / 255
    number = np.float32(len(self.squares))
    return np.array([[number, 0], [number, 1]], np.float32), np.stack([red, 0 * red])


def wide() -> np.ndarray:
  """Eight rows of twenty columns, of which each fifth has its own red."""
  image = np.zeros((SIDE, 20, 3), np.uint8)
  for part in range(5):
    image[:, 4 * part : 4 * part + 4, 0] = 51 * part
  return image


def test_squares_are_seen_alike() -> None:
  square = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
  found = [slots_of(square, SIDE, view, Seen()) for view in VIEWS]
  for tokens, logits in found:
    np.testing.assert_array_equal(tokens, found[0][0])
    np.testing.assert_array_equal(logits, found[0][1])


@pytest.mark.parametrize('turned', [False, True])
def test_padding_keeps_the_aspect_and_is_cut_off(turned: bool) -> None:
  image = np.full((3, 6, 3), 200, np.uint8)
  image = image.transpose(1, 0, 2) if turned else image
  see = Seen()
  tokens, logits = slots_of(image, SIDE, 'pad', see)
  [square] = see.squares
  square = square.transpose(1, 0, 2) if turned else square
  assert (square[:4] == 200).all()
  assert (square[4:] == (124, 116, 104)).all()  # the mean: 0 for the network
  assert tokens.shape == (2, 2)
  assert logits.shape == ((2, 8, 4) if turned else (2, 4, 8))
  np.testing.assert_allclose(logits[0], 200 / 255)


def test_coarse_masks_are_cut_where_the_picture_ends() -> None:
  image = np.full((5, SIDE, 3), 255, np.uint8)
  _, logits = slots_of(image, SIDE, 'pad', Seen(cells=2))
  assert logits.shape == (2, 2, 2)  # five of eight rows are in both of two


@pytest.mark.parametrize('turned', [False, True])
def test_windows_are_where_they_were_cut_out(turned: bool) -> None:
  image = wide().transpose(1, 0, 2) if turned else wide()
  see = Seen()
  tokens, logits = slots_of(image, SIDE, 'windows', see)
  logits = logits.transpose(0, 2, 1) if turned else logits
  assert len(see.squares) == 3 and tokens[:, 0].tolist() == [1, 1, 2, 2, 3, 3]
  assert logits.shape == (6, SIDE, 20)
  for window, start in enumerate((0, 6, 12)):
    inside = np.zeros(20, bool)
    inside[start : start + SIDE] = True
    for slot in (2 * window, 2 * window + 1):
      assert (logits[slot][:, ~inside] == NOWHERE).all()
    want = wide()[:, start : start + SIDE, 0] / 255
    np.testing.assert_allclose(logits[2 * window][:, inside], want, rtol=1e-6)
    assert (logits[2 * window + 1][:, inside] == 0).all()


def test_windows_cover_odd_sizes_with_coarse_masks() -> None:
  for size in ((7, 50), (13, 17), (31, 30)):
    see = Seen(cells=4)
    tokens, logits = slots_of(np.zeros((*size, 3), np.uint8), SIDE, 'windows', see)
    covered = (logits > NOWHERE).any(axis=0)
    assert covered.all() and len(tokens) == 2 * len(see.squares)
    height, width = logits.shape[1:]
    assert width / height == pytest.approx(size[1] / size[0], rel=0.15)


def test_what_is_too_long_for_windows() -> None:
  with pytest.raises(UserError, match='10x90 pixels, more than 8 times as long as wi'):
    slots_of(np.zeros((10, 90, 3), np.uint8), SIDE, 'windows', Seen())


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  return tiny_prompted.save(tmp_path_factory.mktemp('views'))['coseg']


def test_a_model_sees_as_it_is_told(checkpoint: pathlib.Path) -> None:
  photo = np.random.default_rng(1).integers(0, 256, (20, 44, 3)).astype(np.uint8)
  names = ['red ball', 'grass', 'sky', 'a cup']
  found: dict[str, Any] = {}
  for view in VIEWS:
    segmenter = Segmenter(load_system(checkpoint, view=view))
    found[view] = segmenter.segment(photo, names, threshold=0.0)
    assert found[view].labels.shape == (20, 44)
  assert (found['pad'].scores != found['squash'].scores).any()
  assert (found['windows'].scores != found['squash'].scores).any()
  kept = Segmenter.load(checkpoint, keep_aspect=True)
  again = kept.segment(photo, names, threshold=0.0)
  np.testing.assert_array_equal(again.labels, found['pad'].labels)
  with pytest.raises(ValueError, match="unknown view 'padded'.*Did you mean 'pad'"):
    load_system(checkpoint, view='padded')
