"""Colours, tinted pictures and legends."""

import numpy as np
import pytest
from PIL import Image

from ovs_jax.ops import overlay as module
from ovs_jax.ops.overlay import blend, borders, legend, overlay, palette, shares

COLOURS = np.array([[200, 0, 0], [0, 100, 0]], np.uint8)


def distances(colours):
  lab = module.to_lab(colours.astype(float))
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
    image = np.full((3, 4, 3), 100, np.uint8)
    labels = np.array([[0, 0, 0, -1]] * 3)
    got = blend(image, labels, COLOURS, alpha=0.5)
    np.testing.assert_array_equal(
      got[1], [[150, 50, 50]] * 2 + [[200, 0, 0], [100] * 3]
    )

  @pytest.mark.parametrize('value', [-1, 2, 255])
  def test_other_values_stay(self, value):
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    got = blend(image, np.full((4, 5), value), COLOURS, alpha=0.7)
    np.testing.assert_array_equal(got, image)
    assert got is not image

  def test_extremes_of_alpha_and_value(self):
    image = np.array([[[0, 255, 128]]], np.uint8)
    labels = np.zeros((1, 1), np.int32)
    white = np.full((1, 3), 255, np.uint8)
    np.testing.assert_array_equal(blend(image, labels, white, alpha=0.0), image)
    np.testing.assert_array_equal(blend(image, labels, white, alpha=1.0), [[[255] * 3]])

  def test_errors(self):
    image = np.zeros((2, 2, 3), np.uint8)
    with pytest.raises(ValueError, match=r'\(2, 2\).*\(3, 2\)'):
      blend(image, np.zeros((3, 2), int), COLOURS, alpha=0.5)
    with pytest.raises(ValueError, match=r'alpha.*0\.\.1'):
      blend(image, np.zeros((2, 2), int), COLOURS, alpha=1.5)


def test_borders():
  labels = np.array([[0, 0, 1], [0, 0, 1], [2, 2, 2]])
  expected = [[0, 1, 0], [1, 1, 1], [0, 0, 0]]
  np.testing.assert_array_equal(borders(labels, width=1), np.array(expected, bool))
  assert not borders(np.zeros((1, 1), int), width=3).any()


def test_shares():
  labels = np.array([[0, 0, 1, -1], [255, 0, 3, 7]])
  np.testing.assert_allclose(shares(labels, 4), [3 / 8, 1 / 8, 0, 1 / 8])


class TestOverlay:
  def test_picture_keeps_its_size_above_the_legend(self):
    image = np.full((300, 400, 3), 90, np.uint8)
    labels = np.zeros((300, 400), np.int32)
    picture = overlay(image, labels, ['red ball', 'grass'], alpha=0.0)
    assert picture.mode == 'RGB' and picture.width == 400 and picture.height > 320
    np.testing.assert_array_equal(np.asarray(picture)[:300], image)

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
    assert module.percent(share) == text

  def test_fonts(self):
    assert module.font_of('é ж', 13).getname()[0] == 'DejaVu Sans'
    assert module.lacks('DejaVuSans.ttf', 13, '犬')
    assert not module.lacks('DejaVuSans.ttf', 13, ' aé')


def test_image_is_drawn_over_not_changed():
  image = np.asarray(Image.new('RGB', (8, 8), 'white')).copy()
  overlay(image, np.zeros((8, 8), np.int32), ['a'])
  assert (image == 255).all()
