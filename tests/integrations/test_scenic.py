"""Our data sets and recipes in Scenic, of which a stand-in has the interfaces used."""

import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_configs

from ovs_jax.integrations import scenic
from ovs_jax.train.recipes import RECIPES

# Written after the interfaces of google-research/scenic.
FILES = {
  'dataset_lib/datasets.py': """
class DatasetRegistry:
  _known = {}
  @classmethod
  def add(cls, name, builder):
    if name in cls._known:
      raise KeyError(name)
    cls._known[name] = builder
  @classmethod
  def get(cls, name):
    return cls._known[name]
  @classmethod
  def list(cls):
    return list(cls._known)
""",
  'dataset_lib/dataset_utils.py': """
import dataclasses, jax
@dataclasses.dataclass(frozen=True)
class Dataset:
  train_iter: object = None
  valid_iter: object = None
  test_iter: object = None
  meta_data: dict = dataclasses.field(default_factory=dict)
def shard(tree, n_devices=None):
  return jax.tree.map(lambda x: x.reshape((n_devices, -1) + x.shape[1:]), tree)
""",
  'model_lib/base_models/base_model.py': """
class BaseModel:
  def __init__(self, config, dataset_meta_data):
    self.config = self.default_flax_model_config() if config is None else config
    self.dataset_meta_data = dataset_meta_data
    self.flax_model = self.build_flax_model()
""",
  'train_lib/__init__.py': '',
}


def forget() -> None:
  for name in [n for n in sys.modules if n == 'scenic' or n.startswith('scenic.')]:
    del sys.modules[name]


@pytest.fixture
def stand_in(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Any:
  """Puts the stand-in on the path."""
  for name, text in FILES.items():
    path = tmp_path / 'scenic' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
  for folder in (tmp_path / 'scenic').rglob('*'):
    if folder.is_dir():
      (folder / '__init__.py').touch()
  (tmp_path / 'scenic/__init__.py').touch()
  monkeypatch.syspath_prepend(str(tmp_path))
  forget()
  yield
  forget()


class TestLoad:
  def test_nothing_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenic.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(ImportError, match='not on PYTHONPATH; clone https'):
      scenic.register()

  def test_the_namesake_is_named(
    self, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
  ) -> None:
    (tmp_path / 'scenic').mkdir()
    (tmp_path / 'scenic/__init__.py').touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    forget()
    with pytest.raises(ImportError, match="PyPI's package of that name.*uninstall"):
      scenic.model_class()
    forget()


def test_data_sets_are_registered_once(stand_in: None) -> None:
  names = scenic.register()
  assert {'ovs_jax', 'ovs_jax/scenes', 'ovs_jax/voc_20'} <= set(names)
  assert 'ovs_jax/coco_captions_2017' not in names
  assert scenic.register() == names


def build(name: str, **settings: Any) -> Any:
  scenic.register()
  registry = scenic.load('scenic.dataset_lib.datasets').DatasetRegistry
  return registry.get(name)(
    batch_size=8, eval_batch_size=6, num_shards=2, dataset_configs=settings
  )


def test_label_maps_come_as_scenic_has_them(stand_in: None, data_dir: str) -> None:
  dataset = build('ovs_jax/scenes', variant='smoke', data_dir=data_dir, size=64)
  meta = dataset.meta_data
  assert (meta['num_classes'], meta['num_eval_examples']) == (72, 16)
  assert meta['input_shape'] == (-1, 64, 64, 3)
  batch = next(dataset.train_iter)
  assert batch['inputs'].shape == (2, 4, 64, 64, 3)
  assert batch['inputs'].dtype == np.float32 and 0.3 < batch['inputs'].max() <= 1
  assert batch['label'].shape == batch['batch_mask'].shape == (2, 4, 64, 64)
  assert 0 <= batch['label'].min() and batch['label'].max() < 72
  assert set(np.unique(batch['batch_mask'])) == {0, 1}  # unseen classes are void
  weights = [next(dataset.valid_iter)['batch_mask'] for _ in range(4)]
  weights = [w.reshape(6, -1).max(axis=1).sum() for w in weights]
  assert weights == [6, 6, 4, 6]  # sixteen, the last batch filled up, then again


def test_unknown_settings_are_refused(stand_in: None) -> None:
  with pytest.raises(ValueError, match="Did you mean 'variant'"):
    build('ovs_jax/scenes', varient='smoke')


def test_a_recipe_is_a_model(stand_in: None, data_dir: str) -> None:
  config = tiny_configs.pretraining(data_dir)
  scenic.register()
  registry = scenic.load('scenic.dataset_lib.datasets').DatasetRegistry
  dataset = registry.get('ovs_jax')(
    batch_size=8, eval_batch_size=8, num_shards=2, dataset_configs=config
  )
  batch = next(dataset.train_iter)
  assert batch['inputs']['image'].shape[:2] == (2, 4)
  local = jax.tree.map(lambda x: jnp.asarray(x.reshape(-1, *x.shape[2:])), batch)
  model = scenic.model_class()(config, dataset.meta_data)
  variables = jax.jit(model.flax_model.init)(jax.random.key(0), local['inputs'])

  recipe = RECIPES[config.recipe](config)
  expected, metrics = recipe.loss(
    variables['params']['recipe'], local['inputs'], jax.random.key(0)
  )
  logits = model.flax_model.apply(variables, local['inputs'], train=False, debug=False)
  np.testing.assert_allclose(model.loss_function(logits, local), expected, rtol=1e-6)
  sums = model.get_metrics_fn('train')(logits, local)
  assert sums['accuracy'][1] == 8
  np.testing.assert_allclose(sums['accuracy'][0] / 8, metrics['accuracy'], rtol=1e-6)

  rngs = {'dropout': jax.random.key(1)}
  trained = model.flax_model.apply(variables, local['inputs'], train=True, rngs=rngs)
  np.testing.assert_allclose(model.loss_function(trained, local), expected, rtol=1e-6)


def test_a_recipe_needs_its_configuration(stand_in: None) -> None:
  with pytest.raises(ValueError, match='not a configuration of configs/'):
    build('ovs_jax')
