"""What the proposer's recipe takes from its configuration."""

import pathlib
import sys
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_configs

from ovs_jax.core.types import VOID
from ovs_jax.settings import Settings
from ovs_jax.train import label_scores
from ovs_jax.train.recipes import proposer

sys.path.append(str(pathlib.Path(__file__).parents[1] / 'data'))
import test_mixed_sizes  # noqa: E402


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

  monkeypatch.setattr(proposer, 'load_clip', lambda directory: stored)
  monkeypatch.setattr(proposer, 'embed_names', embed)
  monkeypatch.setattr(proposer.Proposer, '_start', lambda self, key: {})
  recipe.prepare(jax.random.key(0))
  assert len(given[2]) == len(recipe.seen)
  assert given[3] == Settings.of(config).text.templates


def test_photos_of_any_size_choose_the_best_step(
  monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
  """Of a network whose masks are the truth, all pixels are right."""
  sizes = [(64, 96), (96, 64), (40, 64), (64, 64)]
  test_mixed_sizes.write_folder(tmp_path / 'mine', sizes)
  config = tiny_configs.proposer(str(tmp_path / 'data'), '')
  config.dataset.update(name='folder', variant=str(tmp_path / 'mine'))
  config.train.update(choose='train', choose_every=3, classes='all')
  config.test.update(shortest=64, longest=96)
  recipe = proposer.Proposer(Settings.of(config))
  assert recipe.evaluate_every == 3
  text = jnp.eye(4, 16)

  class Truth:
    """Reads the class of a pixel from its colour."""

    def __init__(self, model: Any) -> None:
      del model

    def apply(self, params: Any, image: Any, *, size: Any) -> Any:
      del params, size
      classes = jnp.round(image[0, ::4, ::4, 0] / 60)
      masks = jnp.where(classes[None] == jnp.arange(4)[:, None, None], 20.0, -20.0)
      return types.SimpleNamespace(
        embeddings=text[None, None],
        mask_logits=masks[None, None],
        no_object=jnp.eye(1, 16, 5),
      )

  monkeypatch.setattr(label_scores, 'MaskFormer', Truth)
  found = recipe.evaluate({}, {'text': text})
  assert list(found) == ['miou', 'pixel_accuracy']
  assert found['miou'] == pytest.approx(100, abs=8)  # resizing blurs borders
  shuffled = recipe.evaluate({}, {'text': text[::-1]})
  assert shuffled['pixel_accuracy'] == pytest.approx(0, abs=4)
