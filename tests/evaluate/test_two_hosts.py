"""An evaluation of two processes that really exchange their counts."""

import json
import pathlib

import numpy as np
import pytest
from two_processes import run_both

from configs import common
from ovs_jax.core.types import VOID
from ovs_jax.data import load_dataset, pipeline
from ovs_jax.evaluate import predictions
from ovs_jax.text import vocabulary

PROGRAM = """
import pathlib, sys
import jax
jax.config.update('jax_cpu_collectives_implementation', 'gloo')
address, index, data_dir, maps, out = sys.argv[1:]
jax.distributed.initialize(address, num_processes=2, process_id=int(index))
from configs import common
from ovs_jax.evaluate import suite
config = common.base('eval', 'benchmark')
config.dataset.data_dir = data_dir
config.suite.update(datasets=('scenes/smoke:val[:9]',), training='scenes',
                    bootstrap=0, sheet=1, predictions=maps)
try:
  suite.benchmark(config, pathlib.Path(out) / index)
except ValueError as error:
  print('refused:', error)
"""


@pytest.mark.slow
def test_two_processes_write_one_report(data_dir: str, tmp_path: pathlib.Path) -> None:
  config = common.base('eval', 'benchmark')
  config.dataset.update(name='scenes', variant='smoke', data_dir=data_dir)
  names = vocabulary.load('scenes').names
  builder = load_dataset(config.dataset)[1]
  examples = list(pipeline.examples(builder, 'val[:9]'))
  maps = tmp_path / 'maps'
  total = 0
  for i, example in enumerate(examples):
    label = example['label'].astype(int)
    total += int((label != VOID).sum())
    guess = np.where(label == VOID, 0, label)
    guess[: 10 * i] = -1
    predictions.save_map(maps, example['image_id'].decode(), guess, names)
  run_both(PROGRAM, data_dir, maps, tmp_path / 'out')
  report = json.loads((tmp_path / 'out' / '0' / 'report.json').read_text())
  summary = report['datasets']['scenes/smoke:val[:9]']
  wrong = sum(int((e['label'][: 10 * i] != VOID).sum()) for i, e in enumerate(examples))
  assert summary['images'] == 9
  scores = summary['methods']['predictions']
  assert scores['pixel_accuracy'] == pytest.approx(100 * (1 - wrong / total))
  assert not (tmp_path / 'out' / '1' / 'report.json').exists()
  # What one process cannot read, both report.
  gone = examples[1]['image_id'].decode()
  (maps / f'{gone}.png').unlink()
  for said in run_both(PROGRAM, data_dir, maps, tmp_path / 'again'):
    assert f'1 missing: {gone}' in said
