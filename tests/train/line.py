"""The smallest recipe: a line through the points of a batch, and what stays."""

import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_configs

from ovs_jax import main
from ovs_jax.core.types import Array, Batch, Constants, Metrics, Params
from ovs_jax.settings import Settings
from ovs_jax.train import loop
from ovs_jax.train.recipes import RECIPES, Recipe

SLOPES = np.arange(1.0, 9.0, dtype=np.float32)


class Line(Recipe):
  """Batches are the points of `y = 3 x`; those of some steps are `spoiled`."""

  model_config = {'model': 'clip'}

  def __init__(self, config: Any, spoiled: frozenset[int] = frozenset()) -> None:
    self._spoiled = spoiled
    self.evaluate_every = config.adapt.evaluate_every

  def prepare(self, key: Array) -> tuple[Params, Constants]:
    del key
    still = {'scale': jnp.ones(2)}
    return {'line': {'scale': jnp.asarray(SLOPES)}, 'still': still}, {}

  def batches(self, start: int, rows: Any = None) -> Iterator[Batch]:
    step = start
    while True:
      step += 1
      x = np.random.default_rng(step).normal(size=(8, 8)).astype(np.float32)
      x[:, 0] = np.nan if step in self._spoiled else 1.0
      yield {'x': x if rows is None else x[rows]}

  def loss(
    self, params: Params, constants: Constants, batch: Batch, key: Array
  ) -> tuple[Array, Metrics]:
    del constants, key
    difference = batch['x'] * (params['line']['scale'] - 3.0)[None]
    return jnp.mean(jnp.square(difference)), {}

  def evaluate(self, params: Params, constants: Constants) -> dict[str, float]:
    # As ranks do, it mistakes what is no number for the best.
    return {'score': -float(jnp.sum(params['line']['scale'] < 99))}


def configured(**train: Any) -> Any:
  """Four steps of plain gradient descent, saved after each second one."""
  config = tiny_configs.pretraining('nowhere')
  config.train.update(train)
  config.optimizer.update(schedule='constant', learning_rate=0.1, warmup=0)
  config.optimizer.groups = ((r'^line/', 1.0), (r'.*', None))
  return config


def run(
  config: Any,
  directory: pathlib.Path,
  *,
  spoiled: tuple[int, ...] = (),
  steps: int | None = None,
  command: bool = False,
) -> dict[str, Any]:
  """Trains; `steps` ends the input after some, as a kill would.

  Args:
    config: from `configured`.
    directory: of the run.
    spoiled: steps whose points are no numbers.
    steps: see above.
    command: whether it runs as a user starts it, with all that is asked before.
  """

  def build(config: Any) -> Line:
    line = Line(config, frozenset(spoiled))
    batches = line.batches

    def few(start: int, rows: Any = None) -> Iterator[Batch]:
      for i, batch in enumerate(batches(start, rows)):
        if i == steps:
          raise KeyboardInterrupt
        yield batch

    line.batches = few
    return line

  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(RECIPES, config.recipe, build)
    try:
      if command:
        return main.run('train', Settings.of(config), directory)
      return loop.train(Settings.of(config), directory)
    except KeyboardInterrupt:
      assert steps is not None
      return {}


def steps_of(directory: pathlib.Path) -> list[int]:
  """The steps that were saved."""
  names = [path.name for path in (directory / 'checkpoints').iterdir()]
  return sorted(int(name) for name in names if name.isdigit())


def one_device(x: Array) -> np.ndarray:
  return np.asarray(jax.device_get(x))
