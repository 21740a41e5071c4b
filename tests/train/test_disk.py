"""Every configuration asks for the space that its checkpoints take."""

import math
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import pytest

from configs import scenes
from ovs_jax.bench import drawn
from ovs_jax.settings import Settings
from ovs_jax.train.optimizer import build_optimizer, learning_rate_scales
from ovs_jax.train.recipes import make_recipe
from ovs_jax.train.state import split_params

# Of shared settings, not of a run; or of networks that a checkpoint brings.
SHARED = ('__init__', 'adaptation', 'coco_stuff', 'common', 'paper', 'scenes')
SHARED += ('photos_adapt', 'photos_clipseg', 'scenes_coseg', 'towers')
FILES = sorted(p.stem for p in pathlib.Path('configs').glob('*.py'))
FILES += [f'scenes:{stage}' for stage in scenes.ALONE]
# Small models, with the default space; many stages.
SMALL = ('scenes:', 'quickstart', 'replicate')
CASES = [
  pytest.param(name, marks=pytest.mark.slow if name.startswith(SMALL) else ())
  for name in FILES
  if name not in SHARED
]


def trainings(name: str) -> Iterator[Any]:
  config = drawn.configuration(name)
  stages = config.stages.values() if 'stages' in config else [config]
  yield from (stage for stage in stages if stage.get('recipe'))


def megabytes(config: Any) -> float:
  """What one checkpoint takes, from the shapes of the parameters and moments."""
  recipe = make_recipe(Settings.of(config))
  params = jax.eval_shape(drawn.initializer(recipe), jax.random.key(0))
  scales = learning_rate_scales(Settings.of(config).optimizer, params)
  optimizer, _ = build_optimizer(
    Settings.of(config).optimizer, scales, config.train.steps
  )
  moments = jax.eval_shape(optimizer.init, split_params(params, set(scales))[0])
  kept = recipe.stored(params)
  leaves = jax.tree.leaves((kept, moments))
  return sum(math.prod(x.shape) * x.dtype.itemsize for x in leaves) / 1e6


@pytest.mark.parametrize('name', CASES)
def test_there_must_be_room_for_all_that_are_kept_and_the_next(name: str) -> None:
  for config in trainings(name):
    needed = (config.train.keep + 1) * megabytes(config)
    assert config.train.disk_megabytes > needed, config.name
