"""Pictures of several sizes in one batch: every recipe makes them one, or says why not.

The class of a pixel is told by its colour, so that a label map that was read in the
wrong rows does not fit its image.
"""

import pathlib
from typing import Any

import numpy as np
import pytest
import tiny_configs
import tiny_layouts
from PIL import Image

from ovs_jax.settings import Settings
from ovs_jax.train.recipes import RECIPES

SIZES = [(48, 64), (64, 48), (48, 64), (64, 48), (40, 64), (64, 40)]
SAME_COUNT = SIZES[:4]
CLASSES = 4


def write_folder(root: pathlib.Path, sizes: list[tuple[int, int]]) -> None:
  """Pictures in whose upper left lies a class, and another one below and beside."""
  for i, (height, width) in enumerate(sizes):
    label = np.full((height, width), i % CLASSES, np.uint8)
    label[height // 3 :, : width // 2] = (i + 1) % CLASSES
    tiny_layouts.grey(root / f'masks/train/{i}.png', label)
    (root / 'images/train').mkdir(parents=True, exist_ok=True)
    grey = np.repeat(60 * label[..., None], 3, axis=2)
    Image.fromarray(grey).save(root / f'images/train/{i}.png')
  (root / 'names.txt').write_text('\n'.join(f'class {k}' for k in range(CLASSES)))
  lines = [
    f'{{"image": "train/{i}.png", "captions": ["a"]}}' for i in range(len(sizes))
  ]
  (root / 'captions.jsonl').write_text('\n'.join(lines) + '\n')


def config_of(name: str, root: pathlib.Path, sizes: list[tuple[int, int]]) -> Any:
  write_folder(root / 'mine', sizes)
  config = tiny_configs.of_recipe(name, str(root / 'data'), '', '', heads=2)
  config.dataset.update(name='folder', variant=str(root / 'mine'))
  config.train.update(batch_size=len(sizes), split='train')
  return config


def batch_of(config: Any, name: str) -> dict[str, np.ndarray]:
  return next(iter(RECIPES[name](Settings.of(config)).batches(0)))


@pytest.mark.parametrize('sizes', [SIZES, SAME_COUNT], ids=['mixed', 'same count'])
@pytest.mark.parametrize('name', ['coseg', 'proposer', 'clipseg'])
def test_labels_fit_their_images(
  name: str, sizes: list[tuple[int, int]], tmp_path: pathlib.Path
) -> None:
  config = config_of(name, tmp_path, sizes)
  if name == 'proposer':
    config.train.update(
      shortest=(16,), longest=32, crop=16, colour=False, paste_scenes=0
    )
  if name == 'clipseg':
    config.phrases.negative = 0.0
  batch = batch_of(config, name)
  assert batch['image'].shape == (len(sizes), 16, 16, 3)
  shown = np.round(batch['image'][..., 0] / 60)
  if name == 'clipseg':
    count = len(config.phrases.templates)
    labels = batch['mask']
    shown = shown == (batch['phrase'] // count)[:, None, None]
    assert labels.any(axis=(1, 2)).all()
  else:
    labels = batch['label']
  assert labels.shape == shown.shape
  # Antialiasing blurs the borders.
  assert ((labels == shown).mean(axis=(1, 2)) > 0.85).all()


def test_captioned_pictures_become_one_size(tmp_path: pathlib.Path) -> None:
  batch = batch_of(config_of('clip_pretrain', tmp_path, SIZES), 'clip_pretrain')
  assert batch['image'].shape == (len(SIZES), 16, 16, 3)


@pytest.mark.parametrize('sizes', [SIZES, SAME_COUNT], ids=['mixed', 'same count'])
def test_what_stays_of_different_sizes_is_refused(
  sizes: list[tuple[int, int]], tmp_path: pathlib.Path
) -> None:
  config = config_of('proposer', tmp_path, sizes)
  config.train.update(shortest=(), crop=0, paste_scenes=0)
  with pytest.raises(
    ValueError, match=r"'image' has shape \(\d+, \d+, 3\) in one"
  ) as e:
    batch_of(config, 'proposer')
  assert '(64, 48, 3)' in str(e.value) and '\n' not in str(e.value)
