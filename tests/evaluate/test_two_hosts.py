"""An evaluation of two processes that really exchange their counts."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tiny_prompted
from two_processes import ROOT, run_both

from configs import common
from ovs_jax.core.types import VOID
from ovs_jax.data import load_dataset, pipeline
from ovs_jax.evaluate import predictions
from ovs_jax.settings import Settings
from ovs_jax.text import vocabulary

PROGRAM = """
import pathlib, sys
import jax
jax.config.update('jax_cpu_collectives_implementation', 'gloo')
address, index, data_dir, maps, out = sys.argv[1:]
jax.distributed.initialize(address, num_processes=2, process_id=int(index))
from configs import common
from ovs_jax.evaluate import suite
from ovs_jax.settings import Settings
config = common.base('eval', 'benchmark')
config.dataset.data_dir = data_dir
config.suite.update(datasets=('scenes/smoke:val[:9]',), training='scenes',
                    bootstrap=0, sheet=1, predictions=maps)
try:
  suite.benchmark(Settings.of(config), pathlib.Path(out) / index)
except ValueError as error:
  print('refused:', error)
"""


@pytest.mark.slow
def test_two_processes_write_one_report(data_dir: str, tmp_path: pathlib.Path) -> None:
  config = common.base('eval', 'benchmark')
  config.dataset.update(name='scenes', variant='smoke', data_dir=data_dir)
  names = vocabulary.load('scenes').names
  builder = load_dataset(Settings.of(config).dataset)[1]
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


SYSTEMS = """
import pathlib, sys
import jax
address, index, data_dir, models, out = sys.argv[1:]
if address:
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  jax.distributed.initialize(address, num_processes=2, process_id=int(index))
from configs import common
from ovs_jax.evaluate.systems import evaluate_systems
from ovs_jax.settings import Settings
config = common.base('eval', 'evaluate_systems')
config.dataset.update(name='scenes', variant='smoke', data_dir=data_dir)
config.systems.clipseg = models + '/clipseg'
config.systems.coseg.prefix = models + '/coseg'
config.systems.update(images=5, labels=4, resamples=5, distractors=(2,))
config.suite.save_predictions = True
evaluate_systems(Settings.of(config), pathlib.Path(out))
"""


@pytest.mark.slow
def test_two_processes_evaluate_systems_as_one(
  data_dir: str, tmp_path: pathlib.Path
) -> None:
  tiny_prompted.save(tmp_path)
  run_both(SYSTEMS, data_dir, tmp_path, tmp_path / 'two')
  line = [sys.executable, '-c', SYSTEMS, '', '0', data_dir, tmp_path, tmp_path / 'one']
  subprocess.run(list(map(str, line)), cwd=ROOT, check=True, timeout=540)
  one, two = (
    {p.relative_to(tmp_path / x): p for p in (tmp_path / x).rglob('*') if p.is_file()}
    for x in ('one', 'two')
  )
  assert set(one) == set(two)
  maps = [path for path in one if path.suffix == '.png']
  assert len(maps) == 5 * 2  # of 5 images by two systems
  for path in [*maps, pathlib.Path('per_class.csv')]:
    assert one[path].read_bytes() == two[path].read_bytes(), path
  scores = []
  for x in ('one', 'two'):
    scores.append(json.loads((tmp_path / x / 'scores.json').read_text()))
    scores[-1].pop('seconds')
  np.testing.assert_equal(*scores)
