"""More classes than 8 bits number: 255 is one of them, and void none."""

import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_configs
import tiny_layouts
from PIL import Image

from ovs_jax.core.types import VOID_16
from ovs_jax.mining.candidates import true_masks
from ovs_jax.ops.targets import target_masks
from ovs_jax.settings import Settings
from ovs_jax.train.recipes import make_recipe

COUNT = 301
# Void is the largest part, and the last class is there as a column of its own.
CLASSES = [254, 255, 256, 300]
LABEL = np.full((16, 16), VOID_16, np.uint16)
LABEL[:, :9] = np.repeat(CLASSES, [3, 3, 2, 1])[None]


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """Returns a folder of two pictures with 16-bit masks."""
  root = tmp_path_factory.mktemp('many') / 'mine'
  for name in 'ab':
    tiny_layouts.grey(root / f'masks/train/{name}.png', LABEL)
    (root / 'images/train').mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.full((16, 16, 3), 99, np.uint8))
    image.save(root / f'images/train/{name}.png')
  (root / 'names.txt').write_text('\n'.join(f'thing {k}' for k in range(COUNT)))
  return root


def recipe_of(name: str, folder: pathlib.Path, **train: Any) -> Any:
  data = str(folder.parent / 'data')
  config = tiny_configs.of_recipe(name, data, '', '', heads=2)
  config.dataset.update(name='folder', variant=str(folder))
  config.train.update(batch_size=2, split='train', **train)
  if name == 'coseg':
    config.coseg.language.num_slots = 6
    config.train.paste_scenes, config.slots.flip = 0, False
  return make_recipe(Settings.of(config))


def test_coseg_orders_them_by_area(folder: pathlib.Path) -> None:
  recipe = recipe_of('coseg', folder)
  label = next(iter(recipe.batches(0)))['label']
  assert label.dtype == np.uint16
  ids, masks, ignore = recipe.targets(jnp.asarray(label))
  assert ids[0].tolist() == [*CLASSES, COUNT, COUNT]
  assert masks[0].sum(axis=(1, 2)).tolist() == [48, 48, 32, 16, 0, 0]
  np.testing.assert_array_equal(ignore[0], LABEL == VOID_16)


def test_clipseg_draws_every_one_and_no_void(folder: pathlib.Path) -> None:
  recipe = recipe_of('clipseg', folder)
  rng, found = np.random.default_rng(0), set()
  count = len(recipe.config.phrases.templates)
  for _ in range(60):
    mask, phrase = recipe.choose(LABEL, rng)
    np.testing.assert_array_equal(mask, LABEL == phrase // count)
    found |= {phrase // count} if mask.any() else set()
  assert found == set(CLASSES)


@pytest.mark.parametrize('crop', [0, 24], ids=['whole', 'padded'])
@pytest.mark.parametrize('scenes', [0, 1], ids=['', 'pasted'])
def test_the_proposer_has_a_target_for_each(
  crop: int, scenes: int, folder: pathlib.Path
) -> None:
  sizes = {'shortest': (16,) if crop else (), 'longest': 16, 'crop': crop}
  recipe = recipe_of('proposer', folder, paste_scenes=scenes, paste=0.2, **sizes)
  batch = next(iter(recipe.batches(0)))
  for row, (ids, valid) in enumerate(zip(batch['ids'], batch['valid'], strict=True)):
    assert set(ids[valid].tolist()) == set(CLASSES)
    assert batch['classes'][row][valid].tolist() == ids[valid].tolist()
  masks = target_masks(*(jnp.asarray(batch[x]) for x in ('label', 'ids', 'valid')))
  labels, known = batch['label'], np.isin(batch['label'], CLASSES)
  assert (labels[~known] == VOID_16).all()  # of the padding too
  np.testing.assert_array_equal(np.asarray(masks).sum(axis=1), known)
  if not scenes:
    assert (known.sum(axis=(1, 2)) == (LABEL != VOID_16).sum()).all()


def test_mining_sees_them() -> None:
  found = true_masks(np.zeros((16, 16, 3), np.uint8), LABEL)
  assert found.classes.tolist() == CLASSES
