"""The best step of any recipe that can be evaluated."""

import json
import pathlib
from typing import Any

import jax.numpy as jnp
import pytest
import tiny_configs

from ovs_jax.core.checkpoint import load_model
from ovs_jax.core.types import Constants, Params
from ovs_jax.settings import Settings
from ovs_jax.train.keeping import Keeping
from ovs_jax.train.recipes import RECIPES, Recipe, make_recipe


class Own(Recipe):
  """Scores are the parameter in what the constants count in, and its negative."""

  model_config = {'model': 'clip'}

  def __init__(self, every: int) -> None:
    self.evaluate_every = every

  def evaluate(self, params: Params, constants: Constants) -> dict[str, float]:
    value = float(params['a']['x'] * constants['unit'])
    return {'score': value, 'other': -value}


def run(every: int, directory: pathlib.Path, start: int, values: list[float]) -> None:
  """Steps after which the parameter has these values."""
  keeping = Keeping(Own(every), {'unit': jnp.ones(())}, directory, steps=5)
  keeping.start(start, {'a': {'x': jnp.zeros(())}})
  for step, value in enumerate(values, start + 1):
    keeping.evaluate(step, {'a': {'x': jnp.full((), value)}})


def steps(directory: pathlib.Path) -> list[int]:
  lines = (directory / 'evaluations.jsonl').read_text().splitlines()
  return [json.loads(line)['step'] for line in lines]


def best(directory: pathlib.Path) -> tuple[float, Any]:
  params, config = load_model(directory / 'best')
  return float(params['a']['x']), config['evaluation']


def test_the_highest_first_score_is_kept(tmp_path: pathlib.Path) -> None:
  run(2, tmp_path, 0, [9.0, 2.0, 9.0, 3.0, 1.0])
  # Before the first step, every second one, and the last.
  assert steps(tmp_path) == [0, 2, 4, 5]
  assert best(tmp_path) == (3.0, {'step': 4, 'score': 3.0, 'other': -3.0})


def test_a_resumed_run_forgets_what_it_does_again(tmp_path: pathlib.Path) -> None:
  run(1, tmp_path, 0, [1.0, 4.0, 2.0])
  run(1, tmp_path, 2, [5.0, 3.0, 0.0])
  assert steps(tmp_path) == [0, 1, 2, 3, 4, 5]
  assert best(tmp_path)[0] == 5.0


def test_patience_counts_evaluations_without_a_better_one(
  tmp_path: pathlib.Path,
) -> None:
  def at(values: list[float]) -> bool:
    keeping = Keeping(Own(1), {'unit': jnp.ones(())}, tmp_path, steps=9, patience=2)
    rests = keeping.start(len(values), {'a': {'x': jnp.zeros(())}})
    assert rests == keeping.at_rest()
    return rests

  def line(step: int, score: float) -> str:
    return json.dumps({'step': step, 'score': score}) + '\n'

  for values, rests in (
    ([1.0, 2.0, 1.0], False),
    ([1.0, 2.0, 1.0, 2.0], True),  # as good is not better
    ([1.0, 2.0, 1.0, 3.0], False),
  ):
    lines = [line(step, score) for step, score in enumerate(values)]
    (tmp_path / 'evaluations.jsonl').write_text(''.join(lines))
    assert at(values) == rests


def test_what_cannot_be_chosen_by_is_refused() -> None:
  config = tiny_configs.of_recipe('clip_regions', '-', '-', '-', heads=2)
  config.train.patience = 2
  with pytest.raises(ValueError, match='patience counts evaluations'):
    make_recipe(Settings.of(config))
  config.train.choose = 'train'
  with pytest.raises(ValueError, match='of the recipes proposer and clipseg, and not'):
    make_recipe(Settings.of(config))


@pytest.mark.parametrize('name', sorted(RECIPES.keys() - {'clip_regions'}))
def test_a_recipe_without_scores_is_refused(name: str) -> None:
  config = tiny_configs.of_recipe(name, '-', '-', '-', heads=2)
  assert make_recipe(Settings.of(config)).evaluate_every == 0
  config.adapt.evaluate_every = 1
  with pytest.raises(ValueError, match=f"recipe '{name}' has no evaluation"):
    make_recipe(Settings.of(config))
