"""What the proposer's recipe takes from its configuration."""

import types
from typing import Any

import jax
import numpy as np
import pytest
import tiny_configs

from ovs_jax.core.types import VOID
from ovs_jax.settings import Settings
from ovs_jax.train.recipes import proposer


def test_unseen_classes_of_a_split_become_void(data_dir: str) -> None:
  config = tiny_configs.proposer(data_dir, '')
  config.train.split = 'val'  # whose label maps have them
  recipe = proposer.Proposer(Settings.of(config))
  batch = next(recipe.batches(0))
  assert set(np.unique(batch['label']).tolist()) <= {*recipe.seen, VOID}
  assert (batch['classes'][batch['valid']] >= 0).all()


def test_names_are_embedded_in_the_templates_of_the_configuration(
  monkeypatch: pytest.MonkeyPatch, data_dir: str
) -> None:
  config = tiny_configs.proposer(data_dir, '')
  config.text.templates = 'vild'
  recipe = proposer.Proposer(Settings.of(config))
  stored = types.SimpleNamespace(config=config.clip, params={})
  given: list[Any] = []

  def embed(*args: Any) -> np.ndarray:
    given.extend(args)
    return np.zeros((len(recipe.seen), 16), np.float32)

  monkeypatch.setattr(proposer, 'load', lambda *args, **more: stored)
  monkeypatch.setattr(proposer, 'embed_names', embed)
  monkeypatch.setattr(proposer, 'draw_params', lambda *args: {})
  recipe.prepare(jax.random.key(0))
  assert len(given[2]) == len(recipe.seen)
  assert given[3] == Settings.of(config).text.templates
