"""Recipes in a trainer with Scenic's demands: what is learned is what we learn."""

import functools
import math
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest
import tiny_configs

from ovs_jax.core.checkpoint import load_model
from ovs_jax.core.tree import flatten
from ovs_jax.integrations import scenic
from ovs_jax.integrations.scenic import __main__ as command
from ovs_jax.integrations.scenic.config import get_config, wrap
from ovs_jax.integrations.scenic.model import (
  Held,
  RecipeModule,
  check_config,
  metrics_of,
)
from ovs_jax.integrations.scenic.optimizer import RecipeSchedule, recipe_optimizer
from ovs_jax.settings import Settings
from ovs_jax.train import loop
from ovs_jax.train.recipes import Recipe, make_recipe
from ovs_jax.train.recipes.clip_pretrain import clamp_scale

# A tower stands still, another has a rate of its own, gradients are clipped.
GROUPS = ((r'^text/', None), (r'^visual/', 0.5), (r'.*', 1.0))


class Writer:
  """Keeps what is logged."""

  def __init__(self) -> None:
    self.lines: dict[int, dict[str, float]] = {}

  def write_scalars(self, step: int, scalars: dict[str, float]) -> None:
    self.lines[step] = {k: float(v) for k, v in scalars.items()}


def settings(data_dir: str) -> ml_collections.ConfigDict:
  config = tiny_configs.pretraining(data_dir)
  config.optimizer.groups = GROUPS
  config.optimizer.gradient_clip = 1.0
  return config


def run(config: Any, workdir: pathlib.Path) -> dict[int, dict[str, float]]:
  writer = Writer()
  command.main(jax.random.PRNGKey(config.rng_seed), config, str(workdir), writer)
  return writer.lines


def test_training_equals_our_loop_and_goes_on(
  stand_in: None, data_dir: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
  config = settings(data_dir)
  expected = loop.train(Settings.of(config), tmp_path / 'ours')
  whole, _ = load_model(tmp_path / 'ours', kind='clip')
  lines = run(wrap(config), tmp_path / 'scenic')
  # Eight devices with a row each: without the others' no row has a negative.
  assert lines[4]['loss'] == pytest.approx(expected['loss'], rel=1e-4)
  assert lines[4]['learning_rate'] == pytest.approx(expected['learning_rate'])
  params, _ = load_model(tmp_path / 'scenic', kind='clip')
  start = flatten(make_recipe(Settings.of(config)).prepare(jax.random.key(0))[0])
  for path, x in flatten(params).items():
    np.testing.assert_allclose(x, flatten(whole)[path], atol=1e-4, err_msg=path)
    if path.startswith('text/'):
      np.testing.assert_array_equal(x, start[path])
    elif path.endswith('kernel'):
      assert np.any(x != start[path]), path

  (tmp_path / 'scenic/checkpoint_4').unlink()  # as if killed after step 3
  shutil.rmtree(tmp_path / 'scenic/model')
  again = run(wrap(config), tmp_path / 'scenic')
  assert list(again) == [4] and again[4] == pytest.approx(lines[4], rel=1e-6)
  assert run(wrap(config), tmp_path / 'scenic') == {}
  assert 'is trained to its end, step 4' in capsys.readouterr().out


def optimize(config: Any, params: dict[str, Any], gradient: float) -> dict[str, Any]:
  optimizer = recipe_optimizer(RecipeSchedule(Settings.of(config)))
  tree = {'recipe': params}
  gradients = jax.tree.map(lambda x: jnp.full_like(x, gradient), tree)
  updates, _ = optimizer.update(gradients, optimizer.init(tree), tree)
  return optax.apply_updates(tree, updates)['recipe']


def test_the_temperature_stays_within_its_bounds(data_dir: str) -> None:
  config = settings(data_dir)
  params = {'logit_scale': jnp.float32(4.605), 'visual': {'kernel': jnp.ones((2, 2))}}
  moved = optimize(config, params, -1.0)
  assert moved['logit_scale'] == pytest.approx(math.log(100), abs=1e-6)
  assert optimize(config, params, 1.0)['logit_scale'] < 4.605
  # Half the rate, as the group says, and no bound.
  rate = float(RecipeSchedule(Settings.of(config))(0))
  np.testing.assert_allclose(moved['visual']['kernel'], 1 + 0.5 * rate, atol=1e-4)
  del params['logit_scale']  # frozen, it is not Scenic's to move
  np.testing.assert_allclose(
    optimize(config, params, -1.0)['visual']['kernel'], moved['visual']['kernel']
  )


def test_another_schedule_is_refused() -> None:
  with pytest.raises(ValueError, match="learning_rate_schedule='ovs_jax'"):
    recipe_optimizer(lambda step: 0.1)


class Scale(Recipe):
  """A recipe that raises a temperature, and looks at no rows."""

  model_config: dict[str, Any] = {}

  def prepare(self, key: Any) -> Any:
    return {'logit_scale': jnp.zeros(())}, {}

  def loss(self, params: Any, constants: Any, batch: Any, key: Any) -> Any:
    return params['logit_scale'], {}

  def project(self, params: Any) -> Any:
    return clamp_scale(params)


def apply(scale: Any, batch: Any) -> Any:
  config = Settings('it', 'train', 'clip_pretrain')
  module = RecipeModule(Held(Scale(), {}, config, {}))
  return module.apply({'params': {'recipe': {'logit_scale': scale}}}, batch)[0]


def test_losses_over_the_batch_need_all_of_it() -> None:
  step = jax.pmap(functools.partial(apply, jnp.float32(2)), axis_name='batch')
  assert step({'image': jnp.zeros((1, 1, 4))}) == 2
  with pytest.raises(ValueError, match='is over the whole batch, of which'):
    step({'image': jnp.zeros((2, 1, 4))})


def test_bounds_hold_where_another_optimizer_trains() -> None:
  value, slope = jax.value_and_grad(apply)(7.0, {})
  assert value == pytest.approx(math.log(100)) and slope == 1


def test_metrics_are_those_of_all_devices() -> None:
  """Scenic reads them from the first one."""
  batch = {'batch_mask': jnp.array([[1.0, 1.0], [1.0, 0.0]])}
  logits = (jnp.array([3.0, 6.0]), {'accuracy': jnp.array([0.5, 1.0])})
  sums = jax.pmap(metrics_of, axis_name='batch')(logits, batch)
  loss, count = (float(x[0]) for x in sums['loss'])
  assert (loss, count) == (3 * 2 + 6 * 1, 3)
  assert float(sums['accuracy'][0][0]) == 0.5 * 2 + 1


@pytest.mark.parametrize(
  ('path', 'value', 'said'),
  [
    ('batch_size', 16, 'batch_size is 16 and config.dataset_configs.train.batch_size'),
    ('num_training_steps', None, 'dataset_configs.train.steps is 4'),
    ('rng_seed', 3, 'rng_seed is 3'),
    ('dataset_configs.train.accumulate', 2, 'a trainer of Scenic does not do'),
    ('dataset_configs.mesh.model', 2, 'set it to 1'),
    ('dataset_configs.train.ema', 0.9, 'train.ema is 0.9'),
    ('dataset_configs.train.skip_not_finite', 5, 'train.skip_not_finite is 5'),
    ('dataset_configs.adapt.evaluate_every', 2, 'adapt.evaluate_every is 2'),
    ('dataset_configs.recipe', '', 'cannot be on one level'),
  ],
)
def test_what_a_trainer_leaves_out_is_refused(
  data_dir: str, path: str, value: Any, said: str
) -> None:
  config = wrap(settings(data_dir))
  check_config(config)
  config = ml_collections.ConfigDict(config.copy_and_resolve_references())
  *parents, name = path.split('.')
  section = functools.reduce(lambda c, key: c[key], parents, config)
  section[name] = value
  with pytest.raises(ValueError, match=said):
    check_config(config)


def test_a_recipe_beside_scenics_keys_is_refused(stand_in: None, data_dir: str) -> None:
  """`checkpoint` is a directory here and a switch there, `optimizer` a section."""
  flat = settings(data_dir)
  with pytest.raises(ValueError, match='cannot be on one level'):
    scenic.model_class()(flat, {})
  with pytest.raises(ValueError, match="set config.dataset_name='ovs_jax'"):
    scenic.model_class()(wrap(flat), {'input_shape': (-1, 2, 2, 3)})
  assert wrap(flat).checkpoint is True


def test_keys_of_both_are_one() -> None:
  config = get_config('scenes:clip')
  assert (config.num_training_steps, config.experiment_name) == (1000, 'clip_scenes')
  config.dataset_configs.train.steps = 8
  config.dataset_configs.optimizer.learning_rate = 0.5
  assert config.num_training_steps == config.lr_configs.config.train.steps == 8
  assert config.lr_configs.base_learning_rate == 0.5
  check_config(config)
  with pytest.raises(ValueError, match="'clip_scenes_smoke' is not the training of a"):
    get_config('scenes:clip:smoke')
