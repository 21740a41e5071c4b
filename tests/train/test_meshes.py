"""Every recipe computes the same on every mesh."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_configs

from ovs_jax.core import sharding
from ovs_jax.core.tree import flatten
from ovs_jax.core.types import Array, Batch, Constants, Params
from ovs_jax.settings import Settings
from ovs_jax.train.recipes import RECIPES

HEADS = 8
MESHES = [(8, 1, False), (4, 2, False), (2, 4, False), (1, 8, False), (4, 2, True)]


@pytest.fixture(scope='session')
def clip_of_eight_heads(data_dir: str, tmp_path_factory: pytest.TempPathFactory) -> str:
  """Returns a CLIP checkpoint whose heads can be split over eight devices."""
  from ovs_jax.train.loop import train

  config = tiny_configs.pretraining(data_dir)
  config.clip.update(vision_heads=HEADS, text_heads=HEADS)
  config.train.steps = 1
  directory = tmp_path_factory.mktemp('clip_of_eight_heads')
  train(Settings.of(config), directory)
  return str(directory)


def assert_close(got: Params, expected: Params) -> None:
  got, expected = flatten(got), flatten(expected)
  largest = max(float(jnp.max(jnp.abs(x))) for x in expected.values())
  for path in expected:
    # Sums run in another order, and a key's bias has no gradient but rounding.
    np.testing.assert_allclose(
      got[path], expected[path], rtol=1e-5, atol=1e-5 * largest, err_msg=path
    )


@pytest.mark.slow
@pytest.mark.parametrize('name', sorted(RECIPES))
def test_losses_and_gradients_are_those_of_one_device(
  name: str, data_dir: str, clip_of_eight_heads: str, pairs_dir: pathlib.Path
) -> None:
  config = tiny_configs.of_recipe(
    name, data_dir, clip_of_eight_heads, str(pairs_dir), heads=HEADS
  )
  recipe = RECIPES[name](Settings.of(config))
  prepared = jax.tree.map(np.asarray, recipe.prepare(jax.random.key(0)))
  params, constants = prepared
  batch = next(recipe.batches(0))

  @jax.jit
  def run(params: Params, constants: Constants, batch: Batch) -> tuple[Array, Params]:
    # Integers, such as the numbers of templates, are nobody's to train.
    (value, _), grads = jax.value_and_grad(recipe.loss, has_aux=True)(
      params, constants, batch, jax.random.key(0)
    )
    return value, grads

  expected_loss, expected = run(params, constants, batch)
  for data, model, fsdp in MESHES:
    mesh = sharding.make_mesh(data, model)
    placement = sharding.parameter_shardings(mesh, params, fsdp=fsdp)
    placed = jax.device_put(params, placement)
    with jax.set_mesh(mesh):  # as the training loop
      given = sharding.replicate(mesh, constants)
      loss, got = run(placed, given, sharding.shard_batch(mesh, batch, size=8))
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
    assert_close(got, expected)
