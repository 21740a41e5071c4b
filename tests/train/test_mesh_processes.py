"""Processes with a mesh over all of them train what one with all devices does."""

import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
import tiny_configs
from two_processes import run_together

from ovs_jax.core.checkpoint import load_model
from ovs_jax.core.tree import flatten
from ovs_jax.core.types import Params
from ovs_jax.settings import Settings
from ovs_jax.train.recipes import RECIPES

PROGRAM = """
import pathlib, sys
sys.path.insert(0, 'tests/support')
import jax
import tiny_configs
from ovs_jax.core import hosts
from ovs_jax.settings import Settings
from ovs_jax.train.loop import train
address, index, count, data, model, names, out, *inputs = sys.argv[1:]
if count != '1':
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  jax.distributed.initialize(address, num_processes=int(count), process_id=int(index))
for name in names.split(','):
  config = tiny_configs.of_recipe(name, *inputs, heads=max(2, int(model)))
  config.train.steps = 3
  # Some parameters, as biases of keys, have no gradient but rounding, of which Adam and
  # Muon would make whole steps; these are in proportion, and too short to amplify it.
  # (Gradients of a drawn ResNet are large, those of the others are not.)
  eps, rate = (1e6, 1e-2) if name == 'proposer' else (1.0, 1e-4)
  config.optimizer.update(eps=eps, muon=(), learning_rate=rate)
  config.mesh.update(data=int(data), model=int(model))
  if name == 'clip_regions' and '/' in inputs[2]:
    config.init.labelled = inputs[2]
    config.adapt.evaluate_every, config.adapt.evaluate_batch = 3, 8
  train(Settings.of(config), pathlib.Path(out) / name)
"""


def losses(run: pathlib.Path) -> list[float]:
  lines = (run / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line)['loss'] for line in lines]


def assert_equal_runs(run: pathlib.Path, expected: pathlib.Path, rtol: float) -> None:
  assert len(losses(expected)) == 3
  np.testing.assert_allclose(losses(run), losses(expected), rtol=rtol, err_msg=str(run))
  got, want = (flatten(load_model(x)[0]) for x in (run, expected))
  for path in want:
    np.testing.assert_allclose(
      got[path], want[path], rtol=rtol, atol=rtol, err_msg=path
    )


def draw_params(recipe: Any) -> Params:
  draw = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: draw.normal(0, 0.2, x.shape).astype(np.float32),
    jax.eval_shape(recipe.prepare, jax.random.key(0))[0],
  )


LOSS = """
import sys
sys.path.insert(0, 'tests/train')
sys.path.insert(0, 'tests/support')
import jax
jax.config.update('jax_cpu_collectives_implementation', 'gloo')
address, index, data_dir = sys.argv[1:]
jax.distributed.initialize(address, num_processes=2, process_id=int(index))
import tiny_configs
from test_mesh_processes import draw_params
from ovs_jax.core import sharding
from ovs_jax.settings import Settings
from ovs_jax.train import loop
from ovs_jax.train.recipes import make_recipe
config = tiny_configs.pretraining(data_dir)
mesh = sharding.make_mesh(1, 2)
recipe = make_recipe(Settings.of(config))
params = draw_params(recipe)
params = jax.device_put(params, sharding.parameter_shardings(mesh, params))
batch = next(loop.global_batches(recipe, mesh, config.train.batch_size, 0))
print('loss', float(jax.jit(recipe.loss)(params, {}, batch, jax.random.key(0))[0]))
"""


def test_processes_of_a_model_axis_have_the_same_rows(data_dir: str) -> None:
  config = tiny_configs.pretraining(data_dir)
  recipe = RECIPES[config.recipe](Settings.of(config))
  batch = next(recipe.batches(0))
  given = draw_params(recipe), {}, batch, jax.random.key(0)
  expected, _ = jax.jit(recipe.loss)(*given)
  for said in run_together(LOSS, data_dir, count=2):
    loss = float(said.split('loss ')[1].split()[0])
    assert loss == pytest.approx(float(expected), rel=1e-5)


@pytest.fixture(scope='session')
def clip_of_heads(
  data_dir: str, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], str]:
  """Returns what trains a CLIP whose towers have so many heads."""
  from ovs_jax.train.loop import train

  @functools.cache
  def directory(heads: int) -> str:
    config = tiny_configs.pretraining(data_dir)
    config.clip.update(vision_heads=heads, text_heads=heads)
    config.train.steps = 1
    made = tmp_path_factory.mktemp(f'clip_of_{heads}_heads')
    train(Settings.of(config), made)
    return str(made)

  return directory


@pytest.mark.slow
@pytest.mark.parametrize(
  ('count', 'devices', 'data', 'model', 'rtol'),
  [(2, 1, 1, 2, 0.0), (2, 2, 2, 2, 1e-6), (4, 1, 2, 2, 1e-6), (2, 2, 1, 4, 1e-6)],
)
def test_every_recipe_on_every_mesh(
  count: int,
  devices: int,
  data: int,
  model: int,
  rtol: float,
  data_dir: str,
  clip_of_heads: Callable[[int], str],
  pairs_dir: pathlib.Path,
  tmp_path: pathlib.Path,
) -> None:
  names = sorted(RECIPES)
  inputs = (data_dir, clip_of_heads(max(2, model)), pairs_dir)
  for n, d in ((count, devices), (1, count * devices)):
    arguments = (n, data, model, ','.join(names), tmp_path / str(n), *inputs)
    run_together(PROGRAM, *arguments, count=n, devices=d, timeout=1800)
  for name in names:
    assert_equal_runs(tmp_path / str(count) / name, tmp_path / '1' / name, rtol)
