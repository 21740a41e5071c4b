"""Masks of other programs in place of proposals, through mode `benchmark`."""

import pathlib
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_ovseg import STORED, draw_params

from configs import common
from ovs_jax import Segmenter
from ovs_jax.core.checkpoint import save_model
from ovs_jax.core.files import read_json
from ovs_jax.core.types import NO_LABEL, VOID
from ovs_jax.data import load_dataset, pipeline
from ovs_jax.evaluate import runner, suite
from ovs_jax.settings import Settings
from ovs_jax.text import vocabulary

NAMES = vocabulary.load('scenes').names
SIDE = 128  # of the scenes


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  path = tmp_path_factory.mktemp('named') / 'model'
  test = {'shortest': SIDE, 'longest': SIDE}
  save_model(path, draw_params(), {**STORED, 'test': test})
  return path


@pytest.fixture(scope='module')
def examples(data_dir: str) -> list[dict[str, Any]]:
  """Two drawn scenes."""
  config = common.base('masks', 'benchmark')
  config.dataset.update(name='scenes', variant='smoke', data_dir=data_dir)
  found = load_dataset(Settings.of(config).dataset)[1]
  return list(pipeline.examples(found, 'val[:2]'))


@pytest.fixture
def masks(examples: list[dict[str, Any]], tmp_path: pathlib.Path) -> pathlib.Path:
  """A folder of the true masks, each a value of a PNG; no mask where nothing is true.

  In the second scene the last class shares the mask of the one before it.
  """
  folder = tmp_path / 'masks'
  folder.mkdir()
  for i, example in enumerate(examples):
    values = np.where(example['label'] == VOID, 0, example['label'] + 1)
    if i == 1:
      *_, before, last = np.unique(values)
      values[values == last] = before
    path = folder / f'{example["image_id"].decode()}.png'
    Image.fromarray(values.astype(np.uint8)).save(path)
  return folder


@pytest.fixture
def config(checkpoint: pathlib.Path, masks: pathlib.Path, data_dir: str) -> Any:
  config = common.base('masks', 'benchmark')
  config.dataset.data_dir = data_dir
  config.eval.checkpoint = str(checkpoint)
  config.suite.update(
    datasets=('scenes/smoke:val[:2]',),
    masks=str(masks),
    training='scenes',
    distractors=(),
    single_concepts=False,
    bootstrap=2,
    sheet=0,
    save_predictions=True,
  )
  return config


def test_masks_are_named_and_compared(
  config: Any, examples: list[dict[str, Any]], tmp_path: pathlib.Path
) -> None:
  [summary] = suite.benchmark(Settings.of(config), tmp_path / 'out').values()
  assert set(summary['methods']) == {
    'clip',
    'oracle_vocabulary',
    'oracle_masks',
    'oracle_classes',
  }
  told = read_json(tmp_path / 'out' / 'report.json')['settings']
  assert told['masks'] == config.suite.masks and told['classifier'] == 'clip'
  assert 'lambda' not in told
  # With the true class of each mask, all but what shares a mask is right.
  labels = [example['label'].astype(int) for example in examples]
  before, last = np.unique(labels[1][labels[1] != VOID])[-2:]
  smaller = min((labels[1] == k).sum() for k in (before, last))
  whole = sum((label != VOID).sum() for label in labels)
  found = summary['methods']['oracle_classes']['pixel_accuracy']
  assert found == pytest.approx(100 * (1 - smaller / whole))
  there = sum(len(set(np.unique(x)) - {VOID}) for x in labels)
  shown = summary['recall']['all']
  assert shown['masks'] == there
  assert there - 2 <= round(shown['0.5'] * there / 100) <= there - 1


def test_labels_are_those_of_the_segmenter(
  config: Any,
  checkpoint: pathlib.Path,
  masks: pathlib.Path,
  examples: list[dict[str, Any]],
  tmp_path: pathlib.Path,
) -> None:
  suite.benchmark(Settings.of(config), tmp_path / 'out')
  segmenter = Segmenter.load(checkpoint)
  for example in examples:
    name = example['image_id'].decode()
    values = np.asarray(Image.open(masks / f'{name}.png'))
    given = [values == k for k in np.unique(values) if k]
    encoded = segmenter.encode(example['image'], masks=given)
    want = segmenter.segment(encoded, NAMES).labels
    (path,) = (tmp_path / 'out').rglob(f'predictions/**/{name}.png')
    found = np.asarray(Image.open(path)).astype(int)
    found = np.where(found == np.iinfo(np.uint8).max, NO_LABEL, found)
    np.testing.assert_array_equal(found, want)


def test_what_cannot_be_is_said(
  config: Any, masks: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  with pytest.raises(ValueError, match=r"take config\.mode='benchmark'"):
    runner.evaluate(Settings.of(config), tmp_path / 'out')
  next(masks.iterdir()).unlink()
  with pytest.raises(FileNotFoundError, match='has no masks of'):
    suite.benchmark(Settings.of(config), tmp_path / 'out')
  config.suite.update(search=(0.1, 0.2), i_know=True)
  with pytest.raises(ValueError, match='leave them out'):
    suite.benchmark(Settings.of(config), tmp_path / 'other')
  config.suite.update(search=(), predictions=str(masks))
  with pytest.raises(ValueError, match='saved label maps would not look at them'):
    suite.benchmark(Settings.of(config), tmp_path / 'other')
