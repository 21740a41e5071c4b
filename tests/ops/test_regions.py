"""Crops: boxes, fill, resize, and the mask of patches."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ovs_jax.ops.regions import (
  CLIP_MEAN,
  CLIP_STD,
  Pixels,
  RegionConfig,
  expand_boxes,
  map_valid,
  normalise,
  patch_mask,
  tight_boxes,
)
from ovs_jax.ops.regions import crop_regions as crop_eagerly

crop_regions = functools.partial(
  jax.jit, static_argnames=('config', 'statistics', 'size', 'chunk')
)(crop_eagerly)

CONFIG = RegionConfig(size=8, threshold=0.5, fill='mean', expand=1.0, matting=False)


def masks_of(*boxes, size=(12, 10), value=1.0):
  masks = np.zeros((len(boxes), *size), np.float32)
  for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
    mask[y0:y1, x0:x1] = value
  return jnp.asarray(masks)


def test_boxes_are_tight_with_exclusive_ends():
  boxes = [(2, 3, 7, 11), (0, 0, 10, 12), (9, 11, 10, 12)]
  got, valid = tight_boxes(masks_of(*boxes) > 0)
  np.testing.assert_array_equal(got, boxes)
  assert valid.all()


def test_empty_masks_stay_in_place_and_are_invalid():
  masks = masks_of((1, 1, 3, 3), (0, 0, 0, 0), (4, 4, 6, 9))
  regions = crop_regions(jnp.ones((12, 10, 3)), masks, CONFIG)
  np.testing.assert_array_equal(regions.valid, [True, False, True])
  assert np.isfinite(regions.pixels).all()
  assert not regions.masks[1].any()


def test_threshold_is_strict():
  masks = masks_of((1, 1, 3, 3), value=0.5)
  above = jnp.nextafter(jnp.float32(0.5), jnp.float32(1))
  for value, valid in ((0.5, False), (above, True)):
    got = crop_regions(jnp.ones((12, 10, 3)), masks * 2 * value, CONFIG)
    assert bool(got.valid[0]) == valid


def test_expansion_truncates_and_clips():
  boxes = jnp.array([[2, 2, 5, 6], [0, 0, 4, 4], [7, 9, 10, 12]])
  # Centre (3.5, 4), half sizes 1.5 * (1.5, 2): 1.25..5.75 and 1..7.
  want = [[1, 1, 5, 7], [0, 0, 5, 5], [6, 8, 10, 12]]
  np.testing.assert_array_equal(expand_boxes(boxes, 1.5, (12, 10)), want)
  np.testing.assert_array_equal(expand_boxes(boxes, 1.0, (12, 10)), boxes)


def test_filled_background_is_exactly_zero():
  masks = masks_of((0, 0, 4, 8)).at[0, 2:6, 1:3].set(0.0)
  image = jax.random.uniform(jax.random.key(0), (12, 10, 3)) * 255
  config = dataclasses.replace(CONFIG, size=8)
  regions = crop_regions(image, masks, config)
  inside = np.asarray(regions.masks[0])
  # Columns 2..5, rows 2..5 of the crop; bicubic taps reach two pixels.
  assert inside[3, 3] == 0 and inside[0, 0] == 1
  full = crop_regions(image, jnp.ones((1, 12, 10)), config)
  assert np.abs(full.pixels).min() > 0
  empty = crop_regions(image, masks_of((0, 0, 10, 12)) * 0, config)
  np.testing.assert_array_equal(empty.pixels, np.zeros_like(empty.pixels))


@pytest.mark.parametrize('fill', ['mean', 'zero', 'none'])
def test_fill_colours(fill):
  # Two corners keep the box at the whole image; the middle is background.
  masks = jnp.zeros((1, 8, 8)).at[0, 0, 0].set(1.0).at[0, 7, 7].set(1.0)
  image = jnp.full((8, 8, 3), 200.0)
  config = dataclasses.replace(CONFIG, fill=fill)
  middle = crop_regions(image, masks, config).pixels[0, 4, 3]
  colour = {'mean': 255 * np.array(CLIP_MEAN), 'zero': 0.0, 'none': 200.0}[fill]
  want = (colour - 255 * np.array(CLIP_MEAN)) / (255 * np.array(CLIP_STD))
  np.testing.assert_allclose(middle, want, atol=1e-5)


def test_crop_of_the_same_size_is_the_image():
  image = jax.random.uniform(jax.random.key(0), (8, 8, 3)) * 255
  regions = crop_regions(image, jnp.ones((1, 8, 8)), CONFIG)
  np.testing.assert_allclose(regions.pixels[0], normalise(image), atol=1e-5)
  np.testing.assert_array_equal(regions.masks, np.ones((1, 8, 8)))


def test_matting_blends():
  masks = jnp.full((1, 8, 8), 0.75)
  image = jnp.full((8, 8, 3), 200.0)
  config = dataclasses.replace(CONFIG, matting=True)
  regions = crop_regions(image, masks, config)
  want = 0.75 * normalise(image[0, 0])
  np.testing.assert_allclose(regions.pixels[0, 5, 5], want, atol=1e-5)
  np.testing.assert_allclose(regions.masks[0], np.full((8, 8), 0.75))


def test_chunks_change_nothing():
  image = jax.random.uniform(jax.random.key(0), (12, 10, 3)) * 255
  masks = masks_of((2, 3, 7, 11), (0, 0, 10, 12), (9, 11, 10, 12))
  a = crop_regions(image, masks, CONFIG, chunk=2)
  b = crop_regions(image, masks, CONFIG, chunk=8)
  np.testing.assert_allclose(a.pixels, b.pixels, atol=1e-5)
  np.testing.assert_array_equal(a.masks, b.masks)


def test_valid_rows_go_together_by_their_order():
  order = jnp.array([5, 1, 9, 4, 2])
  valid = jnp.array([True, True, False, True, True])

  def most(places):
    return jnp.broadcast_to(jnp.max(order[places]), places.shape)

  got = map_valid(most, valid, jnp.zeros(5, jnp.int32), chunk=2, order=order)
  np.testing.assert_array_equal(got, [5, 2, 0, 5, 2])  # rows 1 and 4, then 3 and 0
  got = map_valid(most, valid, jnp.zeros(5, jnp.int32), chunk=2)
  np.testing.assert_array_equal(got, [5, 5, 0, 4, 4])  # as they are


def test_padding_changes_nothing():
  image = jax.random.uniform(jax.random.key(0), (12, 10, 3)) * 255
  masks = masks_of((2, 3, 7, 11), (0, 0, 10, 12))
  config = dataclasses.replace(CONFIG, expand=1.5)
  want = crop_regions(image, masks, config)
  pad = ((0, 4), (0, 6))
  got = crop_regions(
    jnp.pad(image, (*pad, (0, 0))),
    jnp.pad(masks, ((0, 0), *pad)),
    config,
    size=(12, 10),
  )
  np.testing.assert_array_equal(got.boxes, want.boxes)
  np.testing.assert_allclose(got.pixels, want.pixels, atol=1e-5)


def test_patch_mask_keeps_patches_with_any_foreground():
  masks = jnp.zeros((1, 224, 224)).at[0, 20:30, 20:30].set(1.0)  # L/14
  kept = np.argwhere(np.asarray(patch_mask(masks, 14)).reshape(16, 16))
  np.testing.assert_array_equal(kept, [[1, 1], [1, 2], [2, 1], [2, 2]])
  one = jnp.zeros((2, 8, 8)).at[1, 3, 4].set(0.1)
  np.testing.assert_array_equal(
    patch_mask(one, 4), [[False] * 4, [False, True, False, False]]
  )


def test_unknown_fill_is_an_error():
  with pytest.raises(ValueError, match='unknown fill .*known: mean, zero, none'):
    dataclasses.replace(CONFIG, fill='blur')


def test_crops_are_normalised_with_the_towers_statistics():
  image = jnp.asarray(np.random.default_rng(0).integers(0, 256, (12, 10, 3)))
  masks = masks_of((2, 3, 8, 9))
  pixels = Pixels((0.5, 0.25, 0.0), (0.5, 1.0, 0.25))
  usual = crop_regions(image, masks, CONFIG).pixels
  got = crop_regions(image, masks, CONFIG, statistics=pixels).pixels
  colours = np.asarray(usual) * np.asarray(CLIP_STD) + np.asarray(CLIP_MEAN)  # 0..1
  want = (colours - np.asarray(pixels.mean)) / np.asarray(pixels.std)
  np.testing.assert_allclose(got, want, atol=2e-5)
