"""A proposer that finds masks and tells no classes apart."""

import dataclasses
import pathlib
from typing import Any

import drawn_photos
import jax
import numpy as np
import pytest
import tiny_configs
import tiny_ovseg

from configs import proposer_agnostic
from ovs_jax.core.checkpoint import save_model
from ovs_jax.core.types import VOID
from ovs_jax.data import load_names
from ovs_jax.inference.assemble import assemble
from ovs_jax.settings import Settings
from ovs_jax.train.recipes.proposer import Proposer


@pytest.fixture(scope='module')
def clip(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """A CLIP of the smallest sizes."""
  path = tmp_path_factory.mktemp('agnostic') / 'clip'
  config = tiny_ovseg.smallest()
  params = tiny_ovseg.draw_params(config)['clip']
  save_model(path, params, {'model': 'clip', 'clip': dataclasses.asdict(config.clip)})
  return path


def configured(data_dir: str, clip: Any = '', **train: Any) -> Settings:
  config = tiny_configs.proposer(data_dir, str(clip))
  config.train.update(**{'agnostic': True, **train})
  return Settings.of(config)


def test_all_masks_are_of_one_class(data_dir: str, clip: pathlib.Path) -> None:
  aware = configured(data_dir, clip)
  aware = dataclasses.replace(
    aware, train=dataclasses.replace(aware.train, agnostic=False)
  )
  expected = next(Proposer(aware).batches(0))
  recipe = Proposer(configured(data_dir, clip))
  batch = next(recipe.batches(0))
  for name in ('image', 'label', 'ids', 'valid'):  # what is held out stays void
    np.testing.assert_array_equal(batch[name], expected[name])
  assert expected['classes'][expected['valid']].max() > 0
  assert not batch['classes'].any()
  _, constants = recipe.prepare(jax.random.key(0))
  assert constants['text'].shape == (1, recipe.model.embed_dim)
  assert recipe.model_config['agnostic'] is True
  assert 'agnostic' not in Proposer(aware).model_config
  unseen = [
    k for k, split in enumerate(load_names(aware.dataset).splits) if split == 'unseen'
  ]
  assert not np.isin(batch['ids'][batch['valid']], unseen).any()


def folders(root: pathlib.Path) -> list[pathlib.Path]:
  """Two data sets of photographs, with other names."""
  found = []
  for name, count in (('one', 6), ('two', 8)):
    drawn_photos.write(root / name, count, side=48, alike=True)
    found.append(root / name)
  names = (root / 'two/names.txt').read_text().replace('sky', 'wall')
  (root / 'two/names.txt').write_text(names)
  return found


def test_masks_of_several_data_sets_train_together(
  tmp_path: pathlib.Path, clip: pathlib.Path
) -> None:
  one, two = folders(tmp_path)
  more = {'classes': 'all', 'paste_scenes': 0, 'also': (f'folder/{two}',)}
  config = configured(str(tmp_path / 'data'), clip, **more)
  config = dataclasses.replace(
    config, dataset=dataclasses.replace(config.dataset, name='folder', variant=str(one))
  )
  recipe = Proposer(config)
  alone = Proposer(
    dataclasses.replace(config, train=dataclasses.replace(config.train, also=()))
  )
  assert recipe.examples() > alone.examples() > 0
  batches = recipe.batches(0)
  count = recipe.examples() // config.train.batch_size
  seen = {x.tobytes() for _ in range(count) for x in next(batches)['label']}
  assert len(seen) > alone.examples()
  assert all(np.frombuffer(x, np.uint8).max() <= VOID for x in seen)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'agnostic': False, 'also': ('folder/x',)}, 'belongs to config.train.agnostic'),
    ({'choose': 'train'}, 'config.train.choose=train asks for classes'),
    ({'also': ('folder/x',), 'paste_scenes': 1}, 'paste_scenes asks for classes'),
    ({'also': ('folder/x',), 'classes': 'seen'}, 'train.classes=seen asks for'),
  ],
)
def test_what_asks_for_classes_is_refused(
  data_dir: str, changes: dict[str, Any], message: str
) -> None:
  given = {'classes': 'all', 'paste_scenes': 0, **changes}
  with pytest.raises(ValueError, match=message):
    Proposer(configured(data_dir, **given))


def test_other_fields_are_refused(
  data_dir: str, tmp_path: pathlib.Path, clip: pathlib.Path
) -> None:
  one, _ = folders(tmp_path)
  more = {'classes': 'all', 'paste_scenes': 0, 'also': (f'folder/{one}',)}
  recipe = Proposer(configured(data_dir, clip, **more))
  with pytest.raises(ValueError, match='they must be the same'):
    next(recipe.batches(0))


def test_clip_alone_names_its_masks(
  data_dir: str, clip: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  config = tiny_ovseg.smallest()
  params = tiny_ovseg.draw_params(config)['proposer']
  stored = {'model': 'proposer', 'proposer': config.to_dict()['proposer']}
  save_model(tmp_path / 'proposer', params, {**stored, 'agnostic': True})
  asked = tiny_configs.proposer(data_dir, str(clip))
  asked.init.proposer = str(tmp_path / 'proposer')
  with pytest.raises(ValueError, match="set config.test.classifier='clip', not 'ens"):
    assemble(Settings.of(asked), tmp_path / 'no')
  asked.test.classifier = 'clip'
  assemble(Settings.of(asked), tmp_path / 'yes')


@pytest.mark.parametrize('small', ['', 'smoke'])
def test_the_comparison_of_parts_reads_what_it_says(small: str) -> None:
  config = proposer_agnostic.get_config(f'parts:{small}'.rstrip(':'))
  stages = {name: Settings.of(stage) for name, stage in config.stages.items()}
  before = 'smoke_' if small else ''
  assert stages['backbone'].dataset.variant == (small or 'default')
  for name in ('aware', 'agnostic', 'parts', 'balanced'):
    train, data = stages[name].train, stages[name].dataset
    assert data.variant == f'{before}parted' and train.agnostic == (name != 'aware')
    also = (f'scenes/{before}parts',) * (name in ('parts', 'balanced'))
    assert train.also == also and train.size_balance == (name == 'balanced')
    asked = tuple(f'scenes/{before}{x}:val' for x in ('parted', 'parts'))
    assert stages[f'recall_{name}'].suite.datasets == asked
