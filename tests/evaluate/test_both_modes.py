"""Modes `evaluate` and `benchmark` on a folder of photographs of odd sizes."""

import json
import pathlib
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_ovseg import STORED, draw_params

from configs import common, scenes
from ovs_jax import Segmenter
from ovs_jax.core.checkpoint import load_model, save_model
from ovs_jax.data import load_dataset, pipeline
from ovs_jax.evaluate import runner, suite
from ovs_jax.models.mask_prompts import KIND
from ovs_jax.settings import Settings

NAMES = ('sky', 'grass', 'red ball')
SIZES = ((37, 61), (101, 47))


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  path = tmp_path_factory.mktemp('both') / 'model'
  save_model(path, draw_params(), STORED)
  return path


@pytest.fixture(scope='module')
def prompts(checkpoint: pathlib.Path) -> pathlib.Path:
  """Other mask prompts for the CLIP of the checkpoint."""
  clip = load_model(checkpoint)[0]['clip']
  path = checkpoint.parent / 'prompts'
  save_model(
    path,
    {'visual': {'mask_prompt': 3 - clip['visual']['mask_prompt']}},
    {'model': KIND},
  )
  return path


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  root = tmp_path_factory.mktemp('photos')
  # Pictures in which rounding moves no mask's pixel over the threshold: a crop that is
  # cut otherwise may have another class.
  draw = np.random.default_rng(9)
  for kind in ('images', 'masks'):
    (root / kind / 'val').mkdir(parents=True)
  for i, (h, w) in enumerate(SIZES):
    coarse = Image.fromarray(draw.integers(0, 256, (4, 5, 3)).astype(np.uint8))
    coarse.resize((w, h)).save(root / f'images/val/{i}.png')
    label = np.full((h, w), 255, np.uint8)
    label[h // 9 :] = draw.integers(0, 3, (h - h // 9, w))
    label[:, : w // 2] = i
    Image.fromarray(label).save(root / f'masks/val/{i}.png')
  (root / 'names.txt').write_text('\n'.join(NAMES) + '\n')
  return root


def configured(
  base: Any, checkpoint: pathlib.Path, folder: pathlib.Path, data_dir: str
) -> Any:
  base.eval.checkpoint = str(checkpoint)
  base.dataset.update(name='folder', variant=str(folder), data_dir=data_dir)
  return base


def benchmark(config: Any, folder: pathlib.Path, workdir: pathlib.Path) -> Any:
  config.suite.update(
    datasets=(f'folder/{folder}:val',),
    training='scenes',
    distractors=(),
    single_concepts=False,
    bootstrap=2,
    sheet=0,
    save_predictions=True,
  )
  [summary] = suite.benchmark(Settings.of(config), workdir).values()
  return summary


def test_both_count_the_same(
  checkpoint: pathlib.Path,
  prompts: pathlib.Path,
  folder: pathlib.Path,
  data_dir: str,
  tmp_path: pathlib.Path,
) -> None:
  found = {}
  for asked in ('', str(prompts)):
    config = configured(scenes.evaluate(''), checkpoint, folder, data_dir)
    config.init.prompts = asked
    settings = Settings.of(config)
    one = runner.evaluate(settings, tmp_path / f'one{bool(asked)}')['methods']
    config = configured(common.base('both', 'benchmark'), checkpoint, folder, data_dir)
    config.eval.methods = scenes.evaluate('').eval.methods
    config.init.prompts = asked
    other = benchmark(config, folder, tmp_path / f'other{bool(asked)}')['methods']
    assert set(one) == set(other)
    for name in one:
      for key in ('iou_per_class', 'pixel_accuracy', 'unassigned'):
        np.testing.assert_array_equal(one[name][key], other[name][key], err_msg=name)
    found[asked] = other
  crops = [x['clip']['iou_per_class'] for x in found.values()]
  assert crops[0] != crops[1]  # the prompts are used
  np.testing.assert_equal(found['']['proposer'], found[str(prompts)]['proposer'])


def test_labels_are_those_of_prediction(
  checkpoint: pathlib.Path, folder: pathlib.Path, data_dir: str, tmp_path: pathlib.Path
) -> None:
  config = configured(scenes.evaluate(''), checkpoint, folder, data_dir)
  scores = runner.evaluate(Settings.of(config), tmp_path)
  segmenter = Segmenter.load(checkpoint)
  examples = list(
    pipeline.examples(load_dataset(Settings.of(config).dataset)[1], 'val')
  )
  right, labelled = 0, 0
  with np.load(tmp_path / 'pictures.npz') as kept:
    assert kept['image'].shape == (2, 101, 61, 3)
    for i, example in enumerate(examples):
      h, w = example['label'].shape
      expected = segmenter.segment(
        segmenter.encode(example['image']), list(NAMES)
      ).labels
      np.testing.assert_array_equal(kept['ensemble_0.70'][i, :h, :w], expected)
      np.testing.assert_array_equal(kept['image'][i, :h, :w], example['image'])
      assert (kept['label'][i, h:] == 2**16 - 1).all()
      right += (expected == example['label']).sum()
      labelled += (example['label'] < 3).sum()
  accuracy = scores['methods']['ensemble_0.70']['pixel_accuracy']
  assert accuracy == pytest.approx(100 * right / labelled)
  stored = json.loads((tmp_path / 'scores.json').read_text())
  assert stored['settings']['shortest_side'] == 40 and stored['images'] == 2
