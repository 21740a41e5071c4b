"""The best step of any recipe that can be evaluated."""

import json
import pathlib
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import ml_collections
import pytest

from ovs_jax.core.checkpoint import load_model
from ovs_jax.core.types import Params
from ovs_jax.train.keeping import Keeping


class Recipe:
  """Scores are the parameter, and its negative."""

  model_config = {'model': 'clip'}

  def evaluate(self, params: Params) -> dict[str, float]:
    value = float(params['a']['x'])
    return {'score': value, 'other': -value}


def configured(every: int) -> ml_collections.ConfigDict:
  return ml_collections.ConfigDict(
    {'recipe': 'own', 'adapt': {'evaluate_every': every}, 'train': {'steps': 5}}
  )


def run(keeping: Keeping, start: int, values: list[float]) -> None:
  """Steps after which the parameter has these values."""
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
  run(Keeping(Recipe(), configured(2), tmp_path), 0, [9.0, 2.0, 9.0, 3.0, 1.0])
  # Before the first step, every second one, and the last.
  assert steps(tmp_path) == [0, 2, 4, 5]
  assert best(tmp_path) == (3.0, {'step': 4, 'score': 3.0, 'other': -3.0})


def test_a_resumed_run_forgets_what_it_does_again(tmp_path: pathlib.Path) -> None:
  run(Keeping(Recipe(), configured(1), tmp_path), 0, [1.0, 4.0, 2.0])
  run(Keeping(Recipe(), configured(1), tmp_path), 2, [5.0, 3.0, 0.0])
  assert steps(tmp_path) == [0, 1, 2, 3, 4, 5]
  assert best(tmp_path)[0] == 5.0


def test_a_recipe_without_scores_is_refused(tmp_path: pathlib.Path) -> None:
  with pytest.raises(ValueError, match="recipe 'own' has no evaluation"):
    Keeping(SimpleNamespace(), configured(1), tmp_path)
  Keeping(SimpleNamespace(), configured(0), tmp_path)
