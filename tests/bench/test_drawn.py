"""Drawn parameters and batches have the shapes and types of the real ones."""

from typing import Any

import jax
import numpy as np
import pytest

from ovs_jax.bench import drawn
from ovs_jax.settings import Settings
from ovs_jax.train.recipes import make_recipe


def shapes(tree: Any) -> Any:
  return jax.tree.map(lambda x: (x.shape, np.dtype(x.dtype).name), dict(tree))


@pytest.mark.parametrize(
  'name', ['scenes:clip', 'scenes:proposer', 'scenes:clipseg', 'scenes:coseg_prefix']
)
def test_batches_are_those_of_the_recipes(name: str, data_dir: str) -> None:
  config = drawn.configuration(name)
  config.dataset.update(variant='smoke', data_dir=data_dir)
  config.train.batch_size = 8
  recipe = make_recipe(Settings.of(config))
  key = jax.random.key(0)
  batch = jax.eval_shape(lambda key: drawn.draw_batch(recipe, 8, key), key)
  assert shapes(batch) == shapes(next(recipe.batches(0)))


def test_parameters_keep_what_passes_through_in_range() -> None:
  recipe = make_recipe(Settings.of(drawn.configuration('scenes:proposer')))
  params = drawn.fill(drawn.initializer(recipe))
  assert shapes(params) == shapes(
    jax.eval_shape(drawn.initializer(recipe), jax.random.key(0))
  )
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))
  width = len(params['query_decoder']['query_embed'])
  assert 0.5 < np.std(params['query_decoder']['query_embed']) * width**0.5 < 1.5


def test_targets_are_bands_with_padding() -> None:
  config = drawn.configuration('proposer_swin_b')
  config.train.update(crop=32, max_targets=4)
  batch = drawn.draw_batch(make_recipe(Settings.of(config)), 2, jax.random.key(0))
  np.testing.assert_array_equal(batch['valid'], [[True, True, True, False]] * 2)
  for label, ids in zip(np.asarray(batch['label']), batch['ids'], strict=True):
    assert [np.sum(label == i) for i in ids] == [8 * 32] * 4


def test_a_configuration_that_is_not_here() -> None:
  with pytest.raises(
    ValueError, match='configs/mpt.py was not found; run .* in the ro'
  ):
    drawn.configuration('mpt')
