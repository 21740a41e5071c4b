"""Colours, tinted pictures and legends."""

import numpy as np
import pytest
from PIL import Image

from ovs_jax.ops import colours as colouring
from ovs_jax.ops import fonts
from ovs_jax.ops.colours import palette
from ovs_jax.ops.name_places import main_parts, room
from ovs_jax.ops.overlay import (
  blend,
  borders,
  legend,
  overlay,
  percent,
  shares,
  write_names,
)

COLOURS = np.array([[200, 0, 0], [0, 100, 0]], np.uint8)


def distances(colours):
  lab = colouring.to_lab(colours.astype(float))
  distance = np.linalg.norm(lab[:, None] - lab[None], axis=2)
  return distance + 1000 * np.eye(len(lab))


def legend_of(areas, *, names=None, width=400):
  areas = np.asarray(areas, float)
  names = names or [f'name {k}' for k in range(len(areas))]
  return np.asarray(legend(names, areas, palette(len(areas)), width=width))


class TestPalette:
  def test_first_colours_are_far_apart(self):
    # In CIELAB 2.3 is just noticeable.
    assert distances(palette(20)).min() > 20

  def test_many_colours_differ(self):
    assert distances(palette(150)).min() > 9
    assert len(np.unique(palette(2048), axis=0)) == 2048

  def test_first_eight_differ_for_the_colour_blind(self):
    # Viénot, Brettel and Mollon (1999): what remains without M cones.
    to_lms = [
      [17.8824, 43.5161, 4.1194],
      [3.4557, 27.1554, 3.8671],
      [0.03, 0.184, 1.467],
    ]
    lms = (palette(8) / 255.0) ** 2.2 @ np.array(to_lms).T
    lms[:, 1] = 0.494207 * lms[:, 0] + 1.24827 * lms[:, 2]
    rgb = np.clip(lms @ np.linalg.inv(to_lms).T, 0, 1) ** (1 / 2.2)
    assert distances(255 * rgb).min() > 8

  def test_colour_does_not_depend_on_count(self):
    for count in (0, 1, 20, 64, 65, 500):
      np.testing.assert_array_equal(palette(count), palette(1000)[:count])

  def test_repeats_in_the_end(self):
    np.testing.assert_array_equal(palette(2050)[2048:], palette(2))


class TestBlend:
  def test_hand_computed(self):
    # Grey is (77 * 100 + 150 * 50 + 29 * 200 + 128) // 256 = 82 (82.5 cut).
    image = np.tile(np.array([100, 50, 200], np.uint8), (3, 4, 1))
    labels = np.array([[0, 0, 0, -1]] * 3)
    got = blend(image, labels, COLOURS, alpha=0.5)
    # Red is dark, so the last red column, which touches no label, is outlined in white.
    tinted = [(200 + 82) // 2, 41, 41]
    np.testing.assert_array_equal(got[1], [tinted] * 2 + [[255] * 3, [82] * 3])

  def test_outlines_stand_out_on_both_sides(self):
    colours = np.array([[240, 228, 66], [20, 40, 255]], np.uint8)  # yellow, blue
    labels = np.array([[0] * 5 + [1] * 5] * 4)
    got = blend(np.zeros((4, 10, 3), np.uint8), labels, colours, alpha=1.0)
    want = [colours[0]] * 4 + [[0] * 3] + [[255] * 3] + [colours[1]] * 4
    np.testing.assert_array_equal(got, [want] * 4)

  def test_two_pixels_at_a_thousand(self):
    labels = np.repeat([0, 1], 500)[None].repeat(2, 0)
    assert borders(labels, width=1).sum(1).tolist() == [2, 2]
    got = blend(np.zeros((2, 1000, 3), np.uint8), labels, COLOURS, alpha=1.0)
    assert (got == 255).all(2).sum(1).tolist() == [2, 2]

  @pytest.mark.parametrize('value', [-1, 2, 255])
  def test_other_values_are_grey(self, value):
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    got = blend(image, np.full((4, 5), value), COLOURS, alpha=0.7)
    grey = np.asarray(Image.fromarray(image).convert('L')).astype(int)
    assert (got == got[..., :1]).all() and abs(got[..., 0] - grey).max() <= 1

  def test_extremes_of_alpha_and_value(self):
    image = np.array([[[255, 255, 255]]], np.uint8)
    labels = np.zeros((1, 1), np.int32)
    for alpha, colour in ((0.0, 0), (1.0, 255)):
      got = blend(image, labels, np.full((1, 3), colour, np.uint8), alpha=alpha)
      np.testing.assert_array_equal(got, [[[255] * 3]])

  def test_errors(self):
    image = np.zeros((2, 2, 3), np.uint8)
    with pytest.raises(ValueError, match=r'\(2, 2\).*\(3, 2\)'):
      blend(image, np.zeros((3, 2), int), COLOURS, alpha=0.5)
    with pytest.raises(ValueError, match=r'alpha.*0\.\.1'):
      blend(image, np.zeros((2, 2), int), COLOURS, alpha=1.5)


def test_borders():
  labels = np.array([[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0], [2, 0, 0, 0]])
  expected = [[0, 0, 1, 1], [0, 0, 1, 1], [1, 0, 0, 1], [1, 1, 0, 0]]
  np.testing.assert_array_equal(borders(labels, width=1), np.array(expected, bool))
  wide = borders(np.array([[0, 0, 0, 0, 1, 1, 1, 1]]), width=2)
  assert wide[0].tolist() == [False] * 2 + [True] * 4 + [False] * 2
  assert not borders(np.zeros((1, 1), int), width=3).any()


def white_boxes(picture):
  """Boxes of the letters, which alone are white in a dark picture."""
  return (np.asarray(picture) > 250).all(axis=2)


class TestNames:
  def picture_of(self, labels, names):
    picture = Image.new('RGB', labels.shape[::-1], (40, 40, 40))
    write_names(picture, labels, names)
    return white_boxes(picture)

  def test_every_letter_lies_in_its_own_segment(self):
    labels = np.zeros((300, 400), np.int32)
    labels[100:200, 50:350] = 1
    labels[:, 360:] = 2
    names = ['sky', 'red ball', 'w' * 40]
    letters = self.picture_of(labels, names)
    alone = {k: self.picture_of(np.where(labels == k, k, -1), names) for k in (0, 1, 2)}
    assert alone[0].any() and alone[1].any() and not alone[2].any()  # no room for it
    for k, found in alone.items():
      assert (labels[found] == k).all()
    np.testing.assert_array_equal(letters, alone[0] | alone[1])

  def test_it_lies_where_there_is_most_room(self):
    # In a ring with one broad side, and in the middle of a square.
    labels = np.full((200, 400), -1)
    labels[:, 200:] = 0
    labels[:15, :] = 0
    y, x = np.nonzero(self.picture_of(labels, ['dog']))
    assert abs(y.mean() - 100) < 10 and abs(x.mean() - 300) < 10

  def test_the_largest_part_has_it(self):
    labels = np.full((200, 400), -1)
    labels[50:100, 20:120] = labels[50:180, 200:390] = 0
    _, x = np.nonzero(self.picture_of(labels, ['dog']))
    assert x.min() > 200

  def test_boxes_of_any_place_and_size_fit(self):
    rng = np.random.default_rng(0)
    for _ in range(100):
      shape = rng.integers(1, 900, 2)
      labels = np.full(shape, -1)
      y, x = (np.sort(rng.integers(0, n + 1, 2)) for n in shape)
      labels[y[0] : y[1], x[0] : x[1]] = 0
      for _, mask, step in main_parts(labels, 1):
        box = tuple(rng.integers(1, 80, 2).tolist())
        if (corner := room(mask, step, box)) is not None:
          inside = labels[corner[1] :, corner[0] :][: box[1], : box[0]]
          assert inside.shape == box[::-1] and (inside == 0).all()
        else:  # a cell at each side may be lost
          assert x[1] - x[0] < box[0] + 3 * step or y[1] - y[0] < box[1] + 3 * step


def test_shares():
  labels = np.array([[0, 0, 1, -1], [255, 0, 3, 7]])
  np.testing.assert_allclose(shares(labels, 4), [3 / 8, 1 / 8, 0, 1 / 8])


class TestOverlay:
  def test_picture_keeps_its_size_above_the_legend(self):
    image = np.full((300, 400, 3), 90, np.uint8)
    labels = np.zeros((300, 400), np.int32)
    picture = overlay(image, labels, ['', 'grass'], alpha=0.0)
    assert picture.mode == 'RGB' and picture.width == 400 and picture.height > 320
    np.testing.assert_array_equal(np.asarray(picture)[:300], image)

  def test_names_are_written(self):
    image = np.full((300, 400, 3), 90, np.uint8)
    made = [
      np.asarray(overlay(image, np.zeros((300, 400), int), [name]))[:300]
      for name in ('', 'grass')
    ]
    assert (made[0] != made[1]).any()

  @pytest.mark.parametrize('shape', [(1, 1), (3, 2000), (2000, 3)])
  def test_extreme_shapes(self, shape):
    image = np.zeros((*shape, 3), np.uint8)
    picture = overlay(image, np.zeros(shape, np.int32), ['red ball'])
    assert picture.width >= 320 and picture.height > shape[0]

  def test_deterministic(self):
    image = np.zeros((20, 30, 3), np.uint8)
    labels = np.random.default_rng(0).integers(0, 3, (20, 30))
    first, second = (np.asarray(overlay(image, labels, ['a', 'b', 'c'])) for _ in '12')
    np.testing.assert_array_equal(first, second)


class TestLegend:
  def test_shows_only_what_occurs(self):
    picture = legend_of([0.25, 0, 0.75])
    for k, shown in enumerate([True, False, True]):
      assert (picture == palette(3)[k].reshape(1, 1, 3)).all(-1).any() == shown

  def test_largest_comes_first(self):
    picture = legend_of([0.25, 0.75])
    small, large = (
      (picture == colour.reshape(1, 1, 3)).all(-1).any(0).argmax()
      for colour in palette(2)
    )
    assert large < small  # in the column to the left

  def test_many_names_come_in_columns(self):
    picture = legend_of([1 / 150] * 150, width=800)
    one_column = 150 * 20
    assert picture.shape[1] == 800 and picture.shape[0] < one_column / 3

  def test_one_long_name_leaves_the_columns(self):
    names = ['word ' * 40, *(f'name {k}' for k in range(29))]
    picture = legend_of([1 / 30] * 30, names=names, width=800)
    one_column = 30 * 20
    assert picture.shape[0] < one_column

  def test_nothing_is_cut_off_at_the_right(self):
    for name in ('word ' * 50, 'w' * 300, 'ш' * 200):
      for count in (1, 7):
        picture = legend_of(
          [1 / count] * count, names=[f'{name}{k}' for k in range(count)]
        )
        assert (picture[:, -3:] == 255).all()

  def test_absent_names_are_limited(self):
    names = [f'absent thing {k}' for k in range(800)]
    picture = legend_of([1.0] + [0.0] * 799, names=names)
    assert picture.shape[0] < 250

  @pytest.mark.parametrize('name', ['Straße', 'мяч', '犬', '😀', 'كرة', 'a\udc80', ''])
  def test_any_script(self, name):
    picture = legend_of([1.0], names=[name])
    assert (picture != 255).any()

  @pytest.mark.parametrize(
    ('share', 'text'),
    [(0.0, '0.0 %'), (1.0, '100.0 %'), (0.1234, '12.3 %'), (1e-5, '< 0.1 %')],
  )
  def test_percent(self, share, text):
    assert percent(share) == text

  def test_fonts(self):
    assert fonts.font_of('é ж', 13).getname()[0] == 'DejaVu Sans'
    assert fonts.lacks('DejaVuSans.ttf', 13, '犬')
    assert not fonts.lacks('DejaVuSans.ttf', 13, ' aé')

  def test_what_no_font_has_is_told(self):
    private = '\U000ffffe'  # of no font
    assert fonts.undrawn(['dog', 'мяч', f'a{private}', 'كرة']) == [f'a{private}']

  def test_fonts_of_the_system_are_searched(self, monkeypatch, tmp_path):
    asked = []

    def system():
      asked.append(True)
      return ()

    monkeypatch.setattr('matplotlib.font_manager.findSystemFonts', system)
    fonts.undrawn(['dog', '\U000ffffd'])
    fonts.undrawn(['\U000ffffd'])
    assert len(asked) <= 1  # and once at most

  def test_what_is_told_of_names(self):
    areas = np.array([0.5, 0.25])
    made = [
      np.asarray(legend(['a', 'b'], areas, palette(2), width=500, told=told))
      for told in (None, ['50.0 %', '25.0 %', '25.0 %'], ['x', 'y', 'z'])
    ]
    np.testing.assert_array_equal(made[0], made[1])
    assert made[2].shape != made[0].shape or (made[2] != made[0]).any()


def test_image_is_drawn_over_not_changed():
  image = np.asarray(Image.new('RGB', (8, 8), 'white')).copy()
  overlay(image, np.zeros((8, 8), np.int32), ['a'])
  assert (image == 255).all()
