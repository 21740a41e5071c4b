"""Shorter ways through CLIP's image tower give what the plain forward gives."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ovs_jax.bench import plain
from ovs_jax.core.flops import count_flops
from ovs_jax.core.types import Array, Params
from ovs_jax.models import clip_fast
from ovs_jax.models.clip import PRESETS, Clip, ClipConfig, init_clip

CLOSE = {'rtol': 1e-5, 'atol': 1e-5}
PATCHES = 9


def sized(depth: int, layers: int = 3) -> ClipConfig:
  """A CLIP of 3 x 3 patches with 2 heads, and prompts so deep."""
  return dataclasses.replace(
    PRESETS['tiny'],
    image_size=12,
    patch=4,
    embed_dim=8,
    vision_width=16,
    vision_layers=layers,
    vision_heads=2,
    vocab_size=30,
    prompt_depth=depth,
  )


@functools.cache
def drawn(config: ClipConfig) -> Params:
  shapes = jax.eval_shape(lambda k: init_clip(config, k), jax.random.key(0))
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), x.dtype), shapes
  )


@functools.partial(jax.jit, static_argnums=0)
def embed(config: ClipConfig, params: Params, image: Array, keep: Array | None = None):
  """What is true: every token in every block."""
  return Clip(config).apply({'params': params}, image, keep, method='encode_image')


fast = {
  name: jax.jit(getattr(clip_fast, name), static_argnums=0)
  for name in ('encode_images', 'encode_crops', 'encode_masks')
}


def draw_images(count: int, height: int = 12, width: int = 12) -> Array:
  return jax.random.normal(jax.random.key(2), (count, height, width, 3))


def show(*counts: int) -> Array:
  """Shows so many patches of each image, drawn by lot."""
  rng = np.random.default_rng(sum(counts))
  keep = np.zeros((len(counts), PATCHES), bool)
  for row, count in zip(keep, counts, strict=True):
    row[rng.permutation(PATCHES)[:count]] = True
  return jnp.asarray(keep)


# Of nine patches at most 5, at most 7, or more go through the blocks. The last of the 3
# blocks is for the class token alone: prompts of depth 3 and 4 go on until there.
@pytest.mark.parametrize('shown', [0, 1, 5, 6, 7, 8, 9])
@pytest.mark.parametrize('depth', [1, 2, 3, 4])
def test_skipping_hidden_patches_changes_nothing(depth: int, shown: int) -> None:
  config, image = sized(depth), draw_images(3)
  params, keep = drawn(config), show(shown, shown // 2, 0)
  want = embed(config, params, image, keep)
  got = fast['encode_crops'](config, params, image, keep)
  assert got.shape == (3, 8) and got.dtype == jnp.float32
  np.testing.assert_allclose(got, want, **CLOSE)
  # Hidden pixels are not even read.
  pixels = jnp.repeat(jnp.repeat(keep.reshape(3, 3, 3), 4, axis=1), 4, axis=2)
  other = jnp.where(pixels[..., None], image, 7.0)
  same = fast['encode_crops'](config, params, other, keep)
  np.testing.assert_array_equal(same, got)


@pytest.mark.parametrize('way', ['encode_images', 'encode_crops'])
@pytest.mark.parametrize('depth', [0, 1, 3])
def test_the_last_block_for_the_class_token_alone(depth: int, way: str) -> None:
  config, image = sized(depth), draw_images(3)
  params = drawn(config)
  for keep in (None, show(0, 0, 0), show(9, 9, 9), show(4, 0, 9)):
    want = embed(config, params, image, keep)
    got = fast[way](config, params, image, keep)
    np.testing.assert_allclose(got, want, **CLOSE)


@pytest.mark.parametrize('way', ['encode_images', 'encode_crops'])
@pytest.mark.parametrize('depth', [0, 1, 2])
def test_a_tower_of_one_block(depth: int, way: str) -> None:
  config, image, keep = sized(depth, layers=1), draw_images(2), show(4, 0)
  params = drawn(config)
  want = embed(config, params, image, keep)
  np.testing.assert_allclose(fast[way](config, params, image, keep), want, **CLOSE)


@pytest.mark.parametrize('remat', [False, True])
@pytest.mark.parametrize('depth', [0, 3])
def test_gradients(depth: int, remat: bool) -> None:
  """Those of the plain forward, and of CLIP spelt out without Flax."""
  config = dataclasses.replace(sized(depth), remat=remat)
  params, image, keep = drawn(config), draw_images(2), show(5, 0)
  shown = keep if depth else None

  def gradient(encode: Callable[[Params], Array]) -> tuple[Array, Params]:
    loss = jax.jit(jax.value_and_grad(lambda p: jnp.sum(jnp.sin(encode(p)))))
    value, leaves = loss(params)
    return value, leaves['visual']

  got = gradient(lambda p: clip_fast.encode_images(config, p, image, keep))
  flax = gradient(lambda p: embed.__wrapped__(config, p, image, keep))
  spelt = gradient(lambda p: plain.encode_crops(config, p['visual'], image, shown))
  assert float(got[0]) != 0
  for want in (flax, spelt):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(
        a, b, rtol=1e-4, atol=1e-5 + 1e-4 * np.abs(b).max()
      ),
      got,
      want,
    )


@pytest.mark.parametrize('depth', [0, 3])
def test_a_part_that_is_everything_is_the_image(depth: int) -> None:
  config, image = sized(depth), draw_images(2)
  params = drawn(config)
  seen = jnp.ones((2, 4, PATCHES), bool)
  got = fast['encode_masks'](config, params, image, seen)
  assert got.shape == (2, 4, 8) and got.dtype == jnp.float32
  want = jnp.broadcast_to(embed(config, params, image)[:, None], got.shape)
  np.testing.assert_allclose(got, want, **CLOSE)


def test_parts_do_not_see_each_other_nor_what_is_not_theirs() -> None:
  config, image = sized(0, layers=1), draw_images(1, 8, 16)
  params = drawn(config)
  seen = np.zeros((1, 3, 8), bool)
  seen[0, 0, :4] = seen[0, 1, 4:] = True
  got = fast['encode_masks'](config, params, image, seen)
  alone = fast['encode_masks'](config, params, image, seen[:, :1])
  np.testing.assert_allclose(got[:, :1], alone, **CLOSE)
  # One block: what the second part holds reaches the first in no other way.
  other = image.at[:, 4:].set(7.0)
  changed = fast['encode_masks'](config, params, other, seen)
  np.testing.assert_allclose(changed[0, 0], got[0, 0], **CLOSE)
  assert np.abs(changed[0, 1] - got[0, 1]).max() > 1e-3
  # A part without patches sees itself alone.
  np.testing.assert_allclose(changed[0, 2], got[0, 2], **CLOSE)


def test_images_of_another_size() -> None:
  config = sized(3)
  params = drawn(config)
  image = draw_images(2, 8, 20)
  got = clip_fast.encode_images(config, params, image, resize=True)
  last = config.vision_layers - 1

  def plainly(clip: Clip, image: Array) -> Array:
    return clip.visual.project(clip.features(image, (last,))[last][:, 0])

  want = Clip(config).apply({'params': params}, image, method=plainly)
  np.testing.assert_allclose(got, want, **CLOSE)
  for way in (clip_fast.encode_images, clip_fast.encode_crops):
    with pytest.raises(ValueError, match='sees 12x12 pixels, got 8x20'):
      way(config, params, image, keep=None)
  with pytest.raises(ValueError, match='8x18 pixels; both sides must be multiples'):
    odd = draw_images(1, 8, 18)
    clip_fast.encode_masks(config, params, odd, jnp.ones((1, 1, 8), bool))


def test_parameters_may_be_of_numpy() -> None:
  config, image = sized(0), draw_images(2)
  params = drawn(config)
  given = jax.tree.map(np.asarray, params)
  found = clip_fast.encode_images(config, given, image)
  np.testing.assert_allclose(found, embed(config, params, image), **CLOSE)


def test_inference_does_not_copy_the_blocks() -> None:
  config = sized(0, layers=12)
  params, image = drawn(config), draw_images(1)
  blocks = sum(x.nbytes for x in jax.tree.leaves(params['visual']['blocks']))

  def held(**options: bool) -> int:
    run = functools.partial(clip_fast.encode_images, config, **options)
    return (
      jax.jit(run).lower(params, image).compile().memory_analysis().temp_size_in_bytes
    )

  assert held() < held(trained=True) - blocks / 2
  plain, trained = (
    clip_fast.encode_images(config, params, image, trained=x) for x in (False, True)
  )
  np.testing.assert_allclose(plain, trained, **CLOSE)


def test_they_compute_less() -> None:
  config = sized(3)
  params, image, keep = drawn(config), draw_images(8), show(*[4] * 8)

  def work(encode: Callable[..., Array], keep: Array | None) -> int:
    program = jax.jit(functools.partial(encode, config))
    return count_flops(program.trace(params, image, keep).jaxpr)

  whole = work(embed.__wrapped__, keep)
  assert work(clip_fast.encode_images, keep) < 0.8 * whole
  # Branches count as the dearest, that for all patches: nothing is lost even then.
  assert work(clip_fast.encode_crops, keep) < 0.9 * whole
