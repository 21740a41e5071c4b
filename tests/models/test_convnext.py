"""ConvNeXts as image towers: maps of any size, whose parts are pooled."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ovs_jax.core.types import Array, Params
from ovs_jax.inference import one_pass
from ovs_jax.models import maskformer, ovseg
from ovs_jax.models.clip import PRESETS, init_clip, make_vision
from ovs_jax.ops.regions import RegionConfig, normalise

CONFIG = dataclasses.replace(
  PRESETS['tiny_convnext'], vision_width=32, embed_dim=8, vocab_size=30, text_layers=1
)


@functools.cache
def drawn() -> Params:
  shapes = jax.eval_shape(lambda k: init_clip(CONFIG, k), jax.random.key(0))
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: (0.3 * rng.normal(size=x.shape)).astype(x.dtype), shapes
  )


def draw_image(height: int, width: int) -> Array:
  rng = np.random.default_rng(1)
  return jnp.asarray(rng.normal(size=(1, height, width, 3)), jnp.float32)


@functools.partial(jax.jit, static_argnames=('method', 'resize'))
def run(method: str, *args: Array, **options: bool) -> Array:
  vision = make_vision(CONFIG)
  return vision.apply({'params': drawn()['visual']}, *args, method=method, **options)


@pytest.fixture(scope='module')
def places() -> Array:
  """The map of a picture of 64 x 96 pixels."""
  return run('encode', draw_image(64, 96), resize=True)


def test_a_place_is_of_32_pixels_a_side(places) -> None:
  assert places.shape == (1, 6, 32)
  with pytest.raises(ValueError, match='sees 64x64 pixels, got 64x96'):
    run('encode', draw_image(64, 96))
  with pytest.raises(ValueError, match='multiples of the patch, 32'):
    run('encode', draw_image(64, 80), resize=True)


def test_parts_are_means_of_their_places(places) -> None:
  seen = np.zeros((1, 3, 6), bool)
  seen[0, 0, [1, 2, 5]] = True
  seen[0, 1] = True
  got = run('pooled', places, jnp.asarray(seen))[0]
  part = jnp.mean(places[0, jnp.array([1, 2, 5])], axis=0)
  want = run('project', jnp.stack([part, *2 * [jnp.mean(places[0], axis=0)]]))
  np.testing.assert_allclose(got, want, rtol=2e-4, atol=1e-5)  # nothing seen: all
  assert np.abs(got[0] - got[1]).max() > 1e-2


def test_a_picture_is_pooled_at_the_size_of_the_proposer(places) -> None:
  """FC-CLIP's way: nothing is resized where the sides are whole places."""
  region = RegionConfig(size=64, threshold=0.4, fill='mean', expand=1.0, matting=False)
  proposer = dataclasses.replace(maskformer.PRESETS['tiny'], embed_dim=8)
  config = ovseg.OvSegConfig(proposer, CONFIG, region, chunk=8)
  image = draw_image(64, 96)[0]
  pixels = CONFIG.pixels
  mean, std = (255 * np.asarray(x, np.float32) for x in (pixels.mean, pixels.std))
  image = image * std.reshape(1, 1, 3) + mean.reshape(1, 1, 3)
  np.testing.assert_allclose(
    normalise(image, pixels), draw_image(64, 96)[0], rtol=1e-3, atol=1e-4
  )
  masks = np.zeros((2, 64, 128), np.float32)  # padded
  masks[0, :32, 32:96] = 0.9  # places 1 and 2
  masks[1, 40:50, 3:9] = 0.9  # less than half of place 3: that all the same
  got = one_pass.embed_masks(config, drawn(), image, jnp.asarray(masks), enlarge=False)
  want = [jnp.mean(places[0, 1:3], axis=0), places[0, 3]]
  want = run('project', jnp.stack(want))
  np.testing.assert_allclose(got, want, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'prompt_depth': 1}, 'a ConvNeXt .image_tower.stages. has none.*fine-tune it'),
    ({'patch': 16}, 'patch 16.*expected patch 32'),
    ({'vision_layers': 3}, 'vision_layers 3.*expected.*vision_layers 4'),
    ({'vision_heads': 2}, 'vision_heads 2'),
    ({'vision_width': 36}, r'stages \(1, 1, 1, 1\) of vision_width 36'),
  ],
)
def test_what_is_no_convnext_is_refused(changes, message) -> None:
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(CONFIG, **changes)


@pytest.mark.parametrize(
  'kind', [{'pool': 'class', 'class_token': True}, {'projection': 'bias'}]
)
def test_kinds_of_transformers_are_no_convnexts(kind) -> None:
  tower = dataclasses.replace(CONFIG.image_tower, **kind)
  with pytest.raises(ValueError, match='this is no ConvNeXt of 4 stages'):
    dataclasses.replace(CONFIG, image_tower=tower)
  plain = dataclasses.replace(PRESETS['b16'].image_tower, projection='mlp')
  with pytest.raises(ValueError, match="'mlp' is that of a ConvNeXt"):
    dataclasses.replace(PRESETS['b16'], image_tower=plain)
