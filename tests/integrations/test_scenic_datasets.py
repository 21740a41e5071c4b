"""Our data sets in Scenic, asked for as its trainers do."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np
import pytest
import tiny_configs

from ovs_jax.integrations import scenic
from ovs_jax.integrations.scenic import checkout
from ovs_jax.settings import Settings
from ovs_jax.train.recipes import RECIPES


class TestLoad:
  def test_nothing_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkout.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(ImportError, match='not on PYTHONPATH; clone https'):
      scenic.register()

  def test_the_namesake_is_named(
    self,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    forget: Callable[[], None],
  ) -> None:
    (tmp_path / 'scenic').mkdir()
    (tmp_path / 'scenic/__init__.py').touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ImportError, match="PyPI's package of that name.*uninstall"):
      scenic.model_class()


def build(name: str, settings: Any, **more: Any) -> Any:
  """As Scenic does, which gives `shuffle_seed=None` unless the configuration has it."""
  scenic.register()
  config = ml_collections.ConfigDict(
    {'dataset_name': name, 'batch_size': 8, 'data_dtype_str': 'float32', **more}
  )
  config.dataset_configs = settings
  utils = checkout.load('scenic.train_lib.train_utils')
  return utils.get_dataset(config, jax.random.PRNGKey(0))


def test_data_sets_are_registered_once(stand_in: None) -> None:
  names = scenic.register()
  assert {'ovs_jax', 'ovs_jax/scenes', 'ovs_jax/voc_20'} <= set(names)
  assert 'ovs_jax/coco_captions_2017' not in names
  assert scenic.register() == names


def test_label_maps_come_as_scenic_has_them(stand_in: None, data_dir: str) -> None:
  settings = {'variant': 'smoke', 'data_dir': data_dir, 'size': 64}
  dataset = build('ovs_jax/scenes', settings, batch_size=16, eval_batch_size=24)
  meta = dataset.meta_data
  assert (meta['num_classes'], meta['num_eval_examples']) == (72, 16)
  assert meta['input_shape'] == (-1, 64, 64, 3)
  batch = next(dataset.train_iter)
  assert batch['inputs'].shape == (8, 2, 64, 64, 3)
  assert batch['inputs'].dtype == np.float32 and 0.3 < batch['inputs'].max() <= 1
  assert batch['label'].shape == batch['batch_mask'].shape == (8, 2, 64, 64)
  assert 0 <= batch['label'].min() and batch['label'].max() < 72
  assert set(np.unique(batch['batch_mask'])) == {0, 1}  # unseen classes are void
  weights = [next(dataset.valid_iter)['batch_mask'] for _ in range(2)]
  weights = [w.reshape(24, -1).max(axis=1).sum() for w in weights]
  assert weights == [16, 16]  # the batch is filled up; then again
  again = build('ovs_jax/scenes', settings, batch_size=16, shuffle_seed=0)
  np.testing.assert_array_equal(next(again.train_iter)['inputs'], batch['inputs'])
  other = build('ovs_jax/scenes', settings, batch_size=16, shuffle_seed=1)
  assert np.any(next(other.train_iter)['inputs'] != batch['inputs'])


def test_unknown_settings_are_refused(stand_in: None) -> None:
  with pytest.raises(ValueError, match="Did you mean 'variant'"):
    build('ovs_jax/scenes', {'varient': 'smoke'})


def test_a_recipe_has_the_batches_of_our_loop(stand_in: None, data_dir: str) -> None:
  config = tiny_configs.pretraining(data_dir)
  dataset = build('ovs_jax', config)
  meta = dataset.meta_data
  # Scenic's trainers start from these, and count no examples.
  assert (meta['input_shape'], meta['input_dtype']) == ((-1, 16, 16, 3), np.uint8)
  assert meta['num_eval_examples'] == 0
  expected = RECIPES[config.recipe](Settings.of(config)).batches(0)
  for _ in range(2):
    batch, own = next(dataset.train_iter), next(expected)
    assert batch['inputs']['image'].shape[:2] == (8, 1)
    for name, value in own.items():
      np.testing.assert_array_equal(batch['inputs'][name][:, 0], value)
    np.testing.assert_array_equal(batch['batch_mask'], np.ones((8, 1)))
  later = build('ovs_jax', config, shuffle_seed=1)
  assert np.any(next(later.train_iter)['inputs']['tokens'] != own['tokens'][:, None])


def test_a_recipe_needs_its_configuration(stand_in: None) -> None:
  with pytest.raises(ValueError, match='not a configuration of configs/'):
    build('ovs_jax', {})
