"""ADE20K-847 from its official files to the report, with labels of 16 bits."""

import csv
import json
import pathlib
from typing import Any

import numpy as np
import pytest
import tiny_layouts
import tiny_ovseg
from PIL import Image

from configs import common
from ovs_jax.core.checkpoint import save_model
from ovs_jax.data import prepare
from ovs_jax.evaluate import suite
from ovs_jax.settings import Settings
from ovs_jax.text import vocabulary

NAMES = vocabulary.load('ade20k_847')
TARGET = 'ade20k_847/partial:val'
# Train ids that need more than 8 bits.
LARGE = (846, 300, 256)


@pytest.fixture
def config(tmp_path: pathlib.Path) -> Any:
  """An evaluation on two images, in which 256 and 300 stand beside 44 and 0."""
  top = tmp_path / 'source/ADE20K_2021_17_01/images/ADE/validation/urban/street'
  classes = {'ADE_val_00000001': (*LARGE, 44), 'ADE_val_00000002': (0, 300)}
  for name, ids in classes.items():
    tiny_layouts.photo(top / f'{name}.jpg')
    values = tiny_layouts.values([NAMES.source_values[k] for k in ids], np.uint16)
    colours = np.stack([values // 256 * 10, values % 256, values * 0], axis=-1)
    Image.fromarray(colours.astype(np.uint8)).save(top / f'{name}_seg.png')
  prepare.prepare('ade20k_847', tmp_path / 'source', tmp_path / 'data', 'partial')
  save_model(tmp_path / 'model', tiny_ovseg.draw_params(), tiny_ovseg.STORED)
  config = common.base('eval', 'benchmark')
  config.dataset.data_dir = str(tmp_path / 'data')
  config.eval.checkpoint = str(tmp_path / 'model')
  config.suite.update(
    datasets=(TARGET,),
    save_predictions=True,
    distractors=(),
    single_concepts=False,
    bootstrap=0,
    sheet=1,
  )
  return config


@pytest.mark.slow
def test_labels_beyond_8_bits_are_counted(config: Any, tmp_path: pathlib.Path) -> None:
  summary = suite.benchmark(Settings.of(config), tmp_path / 'out')[TARGET]
  assert summary['classes'] == 847 and summary['images'] == 2
  scores = summary['methods'][summary['headline']]
  assert scores['classes_present'] == 5
  folder = tmp_path / 'out' / 'ade20k_847_partial_val'
  with np.load(folder / 'confusion.npz') as stored:
    matrix = stored[summary['headline']]
  assert matrix.shape == (848, 848)
  # Columns of the tiny maps: one each, the last to the right edge.
  rows, rest = tiny_layouts.HEIGHT, tiny_layouts.WIDTH
  wanted = dict.fromkeys(LARGE, rows) | {44: (rest - 3) * rows, 0: rows}
  wanted[300] += (rest - 1) * rows
  truth = matrix[:, :-1].sum(axis=0)
  assert {int(k): int(truth[k]) for k in np.flatnonzero(truth)} == wanted
  with (folder / 'per_class.csv').open() as file:
    table = list(csv.DictReader(file))
  assert len(table) == 847 and int(table[300]['pixels']) == wanted[300]
  assert table[846]['class'] == NAMES.names[846]
  report = json.loads((tmp_path / 'out' / 'report.json').read_text())
  assert 'does not say with which names' in report['training_note']
  # What was saved is the same when it is read again.
  config.suite.predictions = str(folder / 'predictions')
  again = suite.benchmark(Settings.of(config), tmp_path / 'again')[TARGET]
  saved = again['methods'][again['headline']]
  for key in ('miou', 'fwiou', 'pixel_accuracy', 'boundary_iou', 'iou_per_class'):
    np.testing.assert_array_equal(saved[key], scores[key], err_msg=key)
  with np.load(tmp_path / 'again/ade20k_847_partial_val/confusion.npz') as stored:
    np.testing.assert_array_equal(stored[again['headline']], matrix)
  assert matrix[256:847].sum() > 0  # some predictions need 16 bits, too
