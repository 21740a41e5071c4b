"""Which trainings of CoSeg share what is kept of the frozen CLIP, and which do not."""

import pathlib
from typing import Any

import numpy as np
import pytest
import tiny_configs

from ovs_jax.core.checkpoint import load_model, save_model
from ovs_jax.settings import Settings
from ovs_jax.train.recipes.coseg import CoSegTraining


@pytest.fixture(scope='module')
def first(
  data_dir: str, clip_run: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> Any:
  """Returns a configuration whose first batch is in its cache, and what that is."""
  config = tiny_configs.of_recipe('coseg', data_dir, str(clip_run), '', heads=2)
  config.slots.cache = str(tmp_path_factory.mktemp('cache'))
  config.train.paste_scenes, config.slots.flip = 0, False
  return config, next(CoSegTraining(Settings.of(config)).batches(0))


def changed(config: Any, **more: Any) -> Any:
  config = config.copy_and_resolve_references()
  config.update_from_flattened_dict(more)
  return config


def folders(config: Any) -> list[str]:
  return sorted(x.name for x in pathlib.Path(config.slots.cache).iterdir())


def test_other_training_settings_share_it(
  first: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
  config, want = first
  other = changed(
    config,
    **{
      'optimizer.learning_rate': 0.5,
      'train.steps': 99,
      'train.batch_size': 4,
      'slots.matching': 'area',
      'slots.tau': 0.9,
      'coseg.language.encoder_layers': 2,
      'coseg.decoder.reduce_dim': 8,
      'coseg.decoder.film_position': 'before',
      'coseg.size_embedding': 'slot',
      'coseg.language_out': True,
      'clip.remat': True,
    },
  )

  # Half as large a batch has its pictures in the same order; none is computed.
  def refuse(*args: Any) -> Any:
    raise AssertionError('computed again')

  found, recipe = folders(config), CoSegTraining(Settings.of(other))
  make = recipe._cache

  def stored_alone(*args: Any) -> Any:
    cache = make(*args)
    monkeypatch.setattr(cache, '_encode', refuse)
    return cache

  monkeypatch.setattr(recipe, '_cache', stored_alone)
  batch = next(recipe.batches(0))
  assert folders(config) == found and len(found) == 1
  assert set(batch) == set(want)
  for name, value in batch.items():
    np.testing.assert_array_equal(value, want[name][:4], err_msg=name)


@pytest.mark.parametrize(
  'change',
  [
    {'coseg.image_size': 32},
    {'coseg.statistics': 'imagenet'},
    {'coseg.patch_norm': False},
    {'coseg.decoder.extract': (1,), 'coseg.decoder.film_steps': (0,)},
    {'init.clip': 'another'},
  ],
  ids=lambda change: next(iter(change)),
)
def test_what_activations_depend_on_has_a_folder_of_its_own(
  change: dict[str, Any],
  first: Any,
  clip_run: pathlib.Path,
  tmp_path: pathlib.Path,
) -> None:
  config, want = first
  if 'init.clip' in change:
    params, stored = load_model(clip_run)
    bias = np.asarray(params['visual']['ln_post']['bias'])
    params['visual']['ln_post'] = {**params['visual']['ln_post'], 'bias': bias + 0.25}
    save_model(tmp_path / 'another', params, stored)
    change = {'init.clip': str(tmp_path / 'another')}
  before = folders(config)
  batch = next(CoSegTraining(Settings.of(changed(config, **change))).batches(0))
  assert len(set(folders(config)) - set(before)) == 1
  assert batch['patches'].shape != want['patches'].shape or (
    'coseg.decoder.extract' in change or np.any(batch['patches'] != want['patches'])
  )
