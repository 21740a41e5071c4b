"""Every transform, eagerly and inside `tf.data`, against cases worked out by hand."""

import io
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ovs_jax.core.types import VOID
from ovs_jax.data import transforms
from ovs_jax.ops.regions import CLIP_MEAN, CLIP_STD, RegionConfig, crop_regions

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (20, 30, 3)).astype(np.uint8)
LABEL = RNG.integers(0, 3, (20, 30)).astype(np.uint8)
MASK = np.zeros((20, 30), np.uint8)
MASK[3:17, 5:28] = 255
MASK[8:12, 9:15] = 0


def png(array: np.ndarray) -> bytes:
  buffer = io.BytesIO()
  Image.fromarray(array).save(buffer, 'png')
  return buffer.getvalue()


def example(seed: int = 0, **more: Any) -> dict[str, Any]:
  fields = {'image': IMAGE, 'label': LABEL, 'mask': MASK, **more}
  fields['seed'] = np.array([7, 8 * seed], np.int64)
  return {name: tf.constant(value) for name, value in fields.items()}


def apply(transform: transforms.Transform, given: dict[str, Any]) -> dict[str, Any]:
  """Applies it eagerly and in a graph, and checks that the two agree."""
  eager = {name: np.asarray(x) for name, x in transform(given).items()}
  data = tf.data.Dataset.from_tensors(given)
  graph = next(data.map(transform).as_numpy_iterator())
  assert set(graph) == set(eager)
  for name, value in eager.items():
    # A graph may sum in another order; integers must be the same.
    if value.dtype == np.float32:
      np.testing.assert_allclose(graph[name], value, rtol=0, atol=1e-4, err_msg=name)
    else:
      np.testing.assert_array_equal(graph[name], value, err_msg=name)
  return eager


def test_decode_reads_images_and_maps() -> None:
  got = apply(
    transforms.decode,
    {'image': tf.constant(png(IMAGE)), 'label': tf.constant(png(LABEL))},
  )
  np.testing.assert_array_equal(got['image'], IMAGE)
  np.testing.assert_array_equal(got['label'], LABEL)


def test_decode_leaves_arrays_alone() -> None:
  np.testing.assert_array_equal(apply(transforms.decode, example())['image'], IMAGE)


def test_keep_and_chain() -> None:
  both = transforms.chain([transforms.random_flip, transforms.keep('label')])
  assert set(apply(both, example())) == {'label'}


def test_squash_keeps_constants_and_averages() -> None:
  halves = np.zeros((40, 20, 3), np.uint8)
  halves[:20] = 200
  got = apply(transforms.squash(4), {'image': tf.constant(halves)})['image']
  assert got.shape == (4, 4, 3) and got.dtype == np.uint8
  assert (got[0] == 200).all() and (got[-1] == 0).all()
  # Antialiasing: every pixel is the mean of a quarter of the noise.
  noise = RNG.integers(0, 256, (64, 64, 3)).astype(np.uint8)
  small = apply(transforms.squash(2), {'image': tf.constant(noise)})['image']
  np.testing.assert_allclose(small, 127.5, atol=12)


class TestRandomCrop:
  def test_sizes_and_places(self) -> None:
    grid = np.stack(np.meshgrid(np.arange(30), np.arange(20)), -1).astype(np.uint8)
    image = np.concatenate([grid, grid[..., :1]], -1)
    sizes = set()
    for seed in range(20):
      given = example(seed, image=image, mask=grid[..., 0])
      got = transforms.random_crop(0.5)(given)
      h, w = got['image'].shape[:2]
      x, y = (int(v) for v in got['image'][0, 0, :2])
      assert 10 <= h <= 20 and 15 <= w <= 30
      np.testing.assert_array_equal(got['image'], image[y : y + h, x : x + w])
      np.testing.assert_array_equal(got['mask'], grid[y : y + h, x : x + w, 0])
      sizes.add((h, w, y, x))
    assert len(sizes) > 10

  def test_is_the_same_in_a_graph(self) -> None:
    apply(transforms.random_crop(0.5), example(3))

  def test_a_whole_image_and_a_single_pixel(self) -> None:
    got = apply(transforms.random_crop(1.0), example(1))
    np.testing.assert_array_equal(got['image'], IMAGE)
    one = example(image=IMAGE[:1, :1], mask=MASK[:1, :1])
    assert apply(transforms.random_crop(0.1), one)['image'].shape == (1, 1, 3)


def test_random_flip_turns_both_or_none() -> None:
  flipped = 0
  for seed in range(30):
    got = transforms.random_flip(example(seed))
    turned = not np.array_equal(got['image'], IMAGE)
    flipped += turned
    step = -1 if turned else 1
    np.testing.assert_array_equal(got['image'], IMAGE[:, ::step])
    np.testing.assert_array_equal(got['label'], LABEL[:, ::step])
  assert 5 < flipped < 25
  apply(transforms.random_flip, example(0))


def test_random_caption_draws_all() -> None:
  captions = np.array([b'a', b'b', b'c'])
  drawn = [
    bytes(transforms.random_caption(example(s, captions=captions))['text'].numpy())
    for s in range(30)
  ]
  assert set(drawn) == {b'a', b'b', b'c'}
  apply(transforms.random_caption, example(captions=captions))


class TestLabelTargets:
  LABEL = np.array([[5, 5, VOID], [2, 5, 0]], np.uint8)

  def test_every_class_is_a_target(self) -> None:
    got = apply(transforms.label_targets(4), {'label': tf.constant(self.LABEL)})
    assert got['ids'].tolist() == [0, 2, 5, 0]
    assert got['valid'].tolist() == [True, True, True, False]
    np.testing.assert_array_equal(got['label'], self.LABEL)

  def test_the_lowest_ids_stay(self) -> None:
    got = apply(transforms.label_targets(2), {'label': tf.constant(self.LABEL)})
    assert got['ids'].tolist() == [0, 2] and got['valid'].all()

  def test_nothing_but_void(self) -> None:
    label = np.full((2, 2), VOID, np.uint8)
    got = apply(transforms.label_targets(3), {'label': tf.constant(label)})
    assert not got['valid'].any()


class TestRegionCrop:
  @pytest.mark.parametrize('fill', ['mean', 'zero', 'none'])
  @pytest.mark.parametrize('size', [16, 48])
  def test_equals_the_crop_of_a_proposal(self, fill: str, size: int) -> None:
    config = RegionConfig(
      size=size, threshold=0.5, fill=fill, expand=1.0, matting=False
    )
    regions = crop_regions(
      jnp.asarray(IMAGE), jnp.asarray(MASK[None] / 255, jnp.float32), config
    )
    scale, shift = 255 * np.array(CLIP_STD), 255 * np.array(CLIP_MEAN)
    cut = example(image=IMAGE[3:17, 5:28], mask=MASK[3:17, 5:28])
    got = apply(transforms.region_crop(size, fill), cut)
    np.testing.assert_allclose(
      got['image'], np.asarray(regions.pixels[0]) * scale + shift, atol=1e-3
    )
    np.testing.assert_array_equal(got['mask'], regions.masks[0])

  def test_a_single_pixel(self) -> None:
    one = example(image=IMAGE[:1, :1], mask=np.full((1, 1), 255, np.uint8))
    got = apply(transforms.region_crop(4, 'mean'), one)
    np.testing.assert_allclose(
      got['image'], np.broadcast_to(IMAGE[0, 0], (4, 4, 3)), atol=1e-3
    )
    assert (got['mask'] == 1).all()
