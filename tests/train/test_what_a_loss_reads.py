"""A recipe holds settings: its loss reads its arguments, and it prepares anew."""

import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_configs

from ovs_jax.core.types import Batch, Constants, Params
from ovs_jax.settings import Settings
from ovs_jax.train.loop import make_step
from ovs_jax.train.recipes import RECIPES, Recipe, make_recipe
from ovs_jax.train.state import TrainState, split_params

MOST = 300  # elements of what the step may have of its own
WEIGHTS = {(64, 32)}  # and what its model resizes by
CONSTANTS = {
  'clip_pretrain': set(),
  'clip_regions': set(),
  'clip_regions, cached': {'labels', 'nouns'},
  'clipseg': {'phrases'},
  'coseg': {'anchors'},
  'proposer': {'text'},
}

Prepared = tuple[Any, Recipe, Params, Constants, Batch]


@pytest.fixture(scope='module', params=CONSTANTS)
def prepared(
  request: pytest.FixtureRequest,
  data_dir: str,
  clip_run: pathlib.Path,
  pairs_dir: pathlib.Path,
) -> tuple[str, Prepared]:
  """Returns a recipe's name, and what training begins with."""
  name, *cached = request.param.split(', ')
  inputs = data_dir, str(clip_run), str(pairs_dir)
  config = tiny_configs.of_recipe(name, *inputs, heads=2)
  if cached:
    config.adapt.update(cache_text=True, evaluate_every=1)
    config.init.labelled = str(pairs_dir)
  recipe = make_recipe(Settings.of(config))
  batch = next(recipe.batches(0))
  return request.param, (config, recipe, *recipe.prepare(jax.random.key(0)), batch)


def test_every_recipe_is_here() -> None:
  assert {name.split(',')[0] for name in CONSTANTS} == set(RECIPES)


def captured(program: Any) -> Iterator[Any]:
  """Arrays in a program that are not among its arguments, however deep."""
  yield from getattr(program, 'consts', ())
  program = getattr(program, 'jaxpr', program)
  for equation in program.eqns:
    for value in equation.invars:
      if isinstance(value, jax.extend.core.Literal):
        yield np.asarray(value.val)
    for part in jax.tree.leaves(
      equation.params, is_leaf=lambda x: hasattr(x, 'eqns') or hasattr(x, 'jaxpr')
    ):
      if hasattr(part, 'eqns') or hasattr(part, 'jaxpr'):
        yield from captured(part)


def test_a_step_reads_its_arguments_alone(prepared: tuple[str, Prepared]) -> None:
  name, (config, recipe, params, constants, batch) = prepared
  assert constants.keys() == CONSTANTS[name]
  step, optimizer, trainable = make_step(recipe, Settings.of(config), params)
  moments = optimizer.init(split_params(params, trainable)[0])
  state = TrainState(jnp.int32(0), params, moments)
  program = jax.make_jaxpr(step)(state, constants, batch)
  large = {np.shape(x) for x in captured(program) if np.size(x) > MOST}
  assert large <= (WEIGHTS if name == 'proposer' else set())


def test_a_recipe_holds_no_arrays(prepared: tuple[str, Prepared]) -> None:
  _, (_, recipe, *_) = prepared
  held = jax.tree.leaves(vars(recipe))
  assert held and not any(isinstance(x, np.ndarray | jax.Array) for x in held)


def test_prepare_gives_the_same_again(prepared: tuple[str, Prepared]) -> None:
  _, (_, recipe, params, constants, _) = prepared
  again = recipe.prepare(jax.random.key(0))
  assert jax.tree.structure(again) == jax.tree.structure((params, constants))
  for want, got in zip(
    jax.tree.leaves((params, constants)), jax.tree.leaves(again), strict=True
  ):
    assert want.dtype == got.dtype
    np.testing.assert_array_equal(got, want)
