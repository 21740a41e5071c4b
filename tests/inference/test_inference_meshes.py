"""Inference computes the same on every mesh as on one device."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_coseg
import tiny_ovseg

from ovs_jax.core import sharding
from ovs_jax.core.types import Array, Batch, Params
from ovs_jax.inference.ovseg import OvSegSystem
from ovs_jax.inference.segmenter import Segmenter
from ovs_jax.inference.settings import Settings
from ovs_jax.models import coseg, ovseg
from ovs_jax.ops.regions import crop_regions

MESHES = [(8, 1, False), (4, 2, False), (2, 4, False), (1, 8, False), (4, 2, True)]
# The tiny OVSeg, with heads for eight devices and few proposals.
OVSEG = dataclasses.replace(
  tiny_ovseg.CONFIG,
  proposer=dataclasses.replace(tiny_ovseg.CONFIG.proposer, heads=8, num_queries=6),
  clip=dataclasses.replace(tiny_ovseg.CONFIG.clip, vision_heads=8, text_heads=8),
)
SETTINGS = Settings(
  shortest=64,
  longest=256,
  templates='single',
  classifier='ensemble',
  weight=0.7,
  mode='exact',
)


@pytest.fixture(scope='module')
def params() -> Params:
  return tiny_ovseg.draw_params(OVSEG)


def draw_images(height: int, width: int) -> np.ndarray:
  """Eight with shapes that are large enough for proposals."""
  noise = np.random.default_rng(2).integers(0, 256, (8, height // 16, width // 16, 3))
  return noise.repeat(16, axis=1).repeat(16, axis=2).astype(np.uint8)


def text() -> Array:
  rows = np.random.default_rng(3).normal(size=(5, OVSEG.clip.embed_dim))
  rows /= np.linalg.norm(rows, axis=1, keepdims=True)
  return jnp.asarray(rows, jnp.float32)


def assert_close(got: Any, expected: Any, *, to: float = 1e-5) -> None:
  """To a share of the largest number of each array: sums run in another order."""
  for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
    largest = float(np.abs(np.asarray(other, np.float64)).max())
    np.testing.assert_allclose(one, other, rtol=to, atol=to * largest)


def compare(
  run: Callable[[Params, Batch], Any],
  params: Params,
  batch: dict[str, np.ndarray],
  meshes: list[tuple[int, int, bool]],
) -> Any:
  """Returns the outputs of one device, after a look at those of the meshes."""
  program = jax.jit(run)
  expected = program(params, batch)
  for data, model, fsdp in meshes:
    mesh = sharding.make_mesh(data, model)
    placement = sharding.parameter_shardings(mesh, params, fsdp=fsdp)
    placed = jax.device_put(params, placement)
    size = len(next(iter(batch.values())))
    split = sharding.shard_batch(mesh, batch, size=size)
    assert_close(program(placed, split), expected)
  return expected


def classify_crops(params: Params, batch: Batch) -> Any:
  """CLIP's part, for crops of given masks."""
  return ovseg.embed_crops(OVSEG, params, batch['pixels'], batch['masks']) @ text().T


def segment(params: Params, batch: Batch) -> Any:
  """Proposes masks, embeds the crops of given ones, and classifies them.

  A pixel at the threshold would be inside on one mesh and outside on another.
  """

  def one(image: Array, masks: Array) -> Any:
    proposed = ovseg.propose(OVSEG, params, image)
    regions = crop_regions(image, masks, OVSEG.region)
    encoded = ovseg.Encoded(
      embeddings=proposed.embeddings,
      regions=ovseg.embed_regions(OVSEG, params['clip'], regions),
      masks=proposed.mask_logits,
      boxes=regions.boxes,
      valid=regions.valid,
      no_object=proposed.no_object,
    )
    return encoded, ovseg.classify(encoded, text())

  return jax.vmap(one)(batch['image'], batch['masks'])


def test_crops_of_a_mesh(params: Params) -> None:
  draw = np.random.default_rng(1)
  side = OVSEG.region.size
  batch = {
    'pixels': draw.normal(size=(8, side, side, 3)).astype(np.float32),
    'masks': (draw.random((8, side, side)) < 0.01).astype(np.float32),
  }
  logits = compare(classify_crops, params['clip'], batch, [(2, 4, False)])
  assert np.std(logits) > 0.01


@pytest.mark.slow
def test_pictures_of_every_mesh(params: Params) -> None:
  corner = np.random.default_rng(4).integers(0, 60, (8, 6, 1, 2))
  place = np.stack(np.mgrid[:64, :96], axis=-1).reshape(1, 1, -1, 2)
  masks = (abs(place - corner) < 20).all(axis=-1).reshape(8, 6, 64, 96)
  masks[:, 5] = False
  batch = {'image': draw_images(64, 96), 'masks': 0.9 * masks.astype(np.float32)}
  encoded, (proposer, by_clip) = compare(segment, params, batch, MESHES)
  assert encoded.valid.tolist() == [[True] * 5 + [False]] * 8
  assert np.std(proposer) > 0.01 and np.std(by_clip) > 0.01


@pytest.mark.slow
@pytest.mark.parametrize('mode', ['exact', 'one_pass'])
def test_a_segmenter_takes_parameters_from_a_mesh(params: Params, mode: str) -> None:
  settings = dataclasses.replace(SETTINGS, mode=mode)
  picture = draw_images(64, 96)[0]

  def run(params: Params) -> tuple[Any, Any]:
    system = OvSegSystem(OVSEG, params, settings=settings, text_cache='off')
    made = Segmenter(system)
    encoded = made.encode(picture)
    return encoded.encoded, made.segment(encoded, 'ball, grass, sky')

  expected, result = run(params)
  for data, model in ((4, 2), (1, 8)):
    mesh = sharding.make_mesh(data, model)
    placement = sharding.parameter_shardings(mesh, params)
    got, labels = run(jax.device_put(params, placement))
    # On one device, masks in float32 are 5e-5 from those in float64.
    assert_close(got, expected, to=1e-4)
    np.testing.assert_array_equal(labels.labels, result.labels)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['prefix', 'cross'])
def test_slots_of_every_mesh(kind: str) -> None:
  model = tiny_coseg.tiny(kind, size_embedding='area')
  model = dataclasses.replace(
    model,
    language=dataclasses.replace(model.language, heads=8),
    clip=dataclasses.replace(model.clip, embed_dim=16, vision_heads=8, text_heads=8),
    decoder=dataclasses.replace(model.decoder, heads=8, mlp=16),
  )
  params = coseg.init_coseg(model, jax.random.key(0))

  def predict(params: Params, batch: Batch) -> Any:
    found = coseg.CoSeg(model).apply({'params': params}, batch['image'])
    return found.tokens, found.logits, found.log_areas

  tokens, logits, _ = compare(predict, params, {'image': draw_images(16, 16)}, MESHES)
  assert np.std(tokens) > 0.01 and np.std(logits) > 1e-4
