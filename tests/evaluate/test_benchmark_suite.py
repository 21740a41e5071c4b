"""The evaluation of data sets: who counts, what is written, what is refused."""

import csv
import json
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image

from configs import common
from ovs_jax.core import preemption
from ovs_jax.core.types import VOID
from ovs_jax.core.workers import Workers
from ovs_jax.data import load_dataset, pipeline
from ovs_jax.evaluate import counted, predictions, suite, suite_files, tally
from ovs_jax.evaluate.counted import Counted
from ovs_jax.evaluate.judges import SAVED
from ovs_jax.evaluate.saved_judge import SavedJudge
from ovs_jax.evaluate.sources import Target
from ovs_jax.settings import Settings
from ovs_jax.text import vocabulary

ROOT = pathlib.Path(__file__).parents[2]
NAMES = vocabulary.load('scenes')
IMAGES = 16


@pytest.fixture
def config(data_dir: str) -> Any:
  """An evaluation of saved label maps on the smallest data set."""
  config = common.base('eval', 'benchmark')
  config.dataset.data_dir = data_dir
  config.suite.update(
    datasets=('scenes/smoke:val',), training='scenes', bootstrap=20, sheet=1
  )
  return config


@pytest.fixture(scope='module')
def truth(data_dir: str) -> dict[str, np.ndarray]:
  """The label maps by id."""
  config = common.base('eval', 'benchmark')
  config.dataset.update(name='scenes', variant='smoke', data_dir=data_dir)
  examples = pipeline.examples(load_dataset(Settings.of(config).dataset)[1], 'val')
  return {e['image_id'].decode(): e['label'].astype(int) for e in examples}


@pytest.fixture
def maps(config: Any, truth: dict[str, np.ndarray], tmp_path: pathlib.Path) -> Any:
  """A directory with the truth, void pixels of which have class 0."""
  directory = tmp_path / 'maps'
  for image_id, label in truth.items():
    filled = np.where(label == VOID, 0, label)
    predictions.save_map(directory, image_id, filled, NAMES.names)
  config.suite.predictions = str(directory)
  return directory


def blank(directory: pathlib.Path, image_id: str) -> None:
  """Takes all predictions of an image back."""
  path = directory / f'{image_id}.png'
  Image.fromarray(np.full((128, 128), 255, np.uint8)).save(path)


class TestTarget:
  @pytest.mark.parametrize(
    ('text', 'expected'),
    [
      ('voc_20', ('voc_20', 'default', 'val')),
      ('voc_20:train', ('voc_20', 'default', 'train')),
      ('ade20k_847/original', ('ade20k_847', 'original', 'val')),
      ('scenes/smoke:val[:50%]', ('scenes', 'smoke', 'val[:50%]')),
      ('folder//data/my pictures:test', ('folder', '/data/my pictures', 'test')),
    ],
  )
  def test_forms(self, text: str, expected: tuple[str, str, str]) -> None:
    target = Target.parse(text)
    assert (target.name, target.variant, target.split) == expected
    assert '/' not in target.folder

  @pytest.mark.parametrize('text', ['', 'voc 20', 'voc_20:', 'voc_20:val:val'])
  def test_others_are_refused(self, text: str) -> None:
    with pytest.raises(ValueError, match='expected NAME, NAME/VARIANT'):
      Target.parse(text)

  @pytest.mark.parametrize(
    ('split', 'test'),
    [('train', False), ('train[90%:]', False), ('val', True), ('train+val[:5]', True)],
  )
  def test_which_splits_are_test_splits(self, split: str, test: bool) -> None:
    assert Target('voc_20', 'default', split).is_test == test


def test_the_truth_scores_100(config: Any, maps: Any, tmp_path: pathlib.Path) -> None:
  out = tmp_path / 'out'
  summary = suite.benchmark(Settings.of(config), out)['scenes/smoke:val']
  scores = summary['methods'][SAVED]
  keys = ('miou', 'miou_predicted_too', 'fwiou', 'mean_accuracy', 'pixel_accuracy')
  for key in (*keys, 'miou_seen', 'miou_unseen', 'boundary_iou', 'miou_per_image'):
    assert scores[key] == 100, key
  assert scores['intervals']['miou'] == (100, 100)
  assert summary['images'] == IMAGES
  assert summary['vocabulary_sha256'] == NAMES.sha256
  assert summary['groups'] == {'seen': 46, 'unseen': 26}
  for key in ('soft', 'errors', 'distractors', 'single_concept', 'tuned'):
    assert summary[key] is None, key


def test_all_files(
  config: Any, maps: Any, truth: dict[str, np.ndarray], tmp_path: pathlib.Path
) -> None:
  worst = sorted(truth)[3]
  blank(maps, worst)
  summary = suite.benchmark(Settings.of(config), tmp_path / 'out')['scenes/smoke:val']
  scores = summary['methods'][SAVED]
  labelled = sum((x != VOID).sum() for x in truth.values())
  lost = (truth[worst] != VOID).sum()
  assert scores['unassigned'] == pytest.approx(100 * lost / labelled)
  assert scores['pixel_accuracy'] == pytest.approx(100 * (1 - lost / labelled))
  text = (tmp_path / 'out' / 'report.md').read_text()
  assert NAMES.sha256 in text and f'| {scores["miou"]:.1f} [' in text
  assert 'were searched' not in text and '(scenes_smoke_val/sheet.png)' in text
  report = json.loads((tmp_path / 'out' / 'report.json').read_text())
  stored = report['datasets']['scenes/smoke:val']['methods'][SAVED]
  assert stored['miou'] == scores['miou'] and None in stored['iou_per_class']
  folder = tmp_path / 'out' / 'scenes_smoke_val'
  with (folder / 'per_class.csv').open() as file:
    rows = list(csv.DictReader(file))
  assert [row['class'] for row in rows] == list(NAMES.names)
  for k, row in enumerate(rows):
    pixels = sum((x == k).sum() for x in truth.values())
    assert int(row['pixels']) == pixels
    assert (row[SAVED] == '') == (pixels == 0)
  with np.load(folder / 'confusion.npz') as stored:
    matrix = stored[SAVED]
    assert stored['names'].tolist() == list(NAMES.names)
  assert matrix.shape == (73, 73) and matrix[72, :72].sum() == lost
  lines = (folder / 'per_image.csv').read_text().splitlines()
  assert len(lines) == 1 + IMAGES and f'{worst},0.0000' in lines
  with Image.open(folder / 'sheet.png') as sheet:
    sheet.load()
    assert sheet.width >= 3 * 384


@pytest.mark.parametrize('hosts', [1, 2, 3])
def test_hosts_share_the_images(
  config: Any,
  maps: Any,
  truth: dict[str, np.ndarray],
  hosts: int,
  tmp_path: pathlib.Path,
) -> None:
  blank(maps, sorted(truth)[0])
  (source,) = suite.load_sources(
    Settings.of(config), [Target.parse('scenes/smoke:val')]
  )
  parts, seen = [], []
  for index in range(hosts):  # 16 images: with 3 hosts the last batch is ragged
    judge = SavedJudge(maps, NAMES, names_checked=True)
    counted = Counted(tmp_path, index=index, count=hosts)
    with Workers() as workers:
      suite.count_images(judge, source, counted, title='', every=4, workers=workers)
    seen += judge.tallies[SAVED].images
    parts.append(tally.pack(judge.tallies, judge.sums))
  assert sorted(seen) == sorted(truth)  # each once
  merged = tally.unpack(parts)[0][SAVED]
  expected = tally.Tally(72)
  for image_id in truth:
    _, guess = SavedJudge(maps, NAMES, names_checked=True).predict(
      suite.Sample(image_id, np.zeros((128, 128, 3), np.uint8), truth[image_id], 0)
    )
    expected.add(image_id, guess, truth[image_id])
  np.testing.assert_array_equal(merged.matrix, expected.matrix)
  np.testing.assert_array_equal(merged.bands, expected.bands)


def test_a_host_that_left_images_out_is_noticed(
  config: Any, maps: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  original = suite.count_images

  def half(judge: Any, source: Any, counted: Counted, **more: Any) -> None:
    counted.count = 2
    original(judge, source, counted, **more)

  monkeypatch.setattr(suite, 'count_images', half)
  with pytest.raises(ValueError, match='8 images of scenes/smoke:val were counted'):
    suite.benchmark(Settings.of(config), tmp_path / 'out')
  assert not (tmp_path / 'out' / 'report.md').exists()


def test_a_stopped_data_set_goes_on(
  config: Any, maps: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  config.eval.save_every = 4
  whole = suite.benchmark(Settings.of(config), tmp_path / 'whole')
  seen: list[str] = []
  original = SavedJudge.count

  def count(self: SavedJudge, sample: Any, **more: Any) -> Any:
    seen.append(sample.image_id)
    return original(self, sample, **more)

  monkeypatch.setattr(SavedJudge, 'count', count)
  with monkeypatch.context() as patch:
    for module in (counted, preemption):
      patch.setattr(module, 'asked', lambda: len(seen) >= 6)
    with pytest.raises(preemption.Stopped, match='[678] of 16 steps are counted'):
      suite.benchmark(Settings.of(config), tmp_path / 'broken')
  broken = suite.benchmark(Settings.of(config), tmp_path / 'broken')
  assert len(seen) == len(set(seen)) == IMAGES
  for summaries in (whole, broken):
    summaries['scenes/smoke:val'].pop('seconds')
  np.testing.assert_equal(broken, whole)


def test_finished_data_sets_are_not_evaluated_again(
  config: Any, maps: Any, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  first = suite.benchmark(Settings.of(config), tmp_path / 'out')
  for path in maps.glob('*.png'):
    path.unlink()
  second = suite.benchmark(Settings.of(config), tmp_path / 'out')
  assert 'finished earlier, skipped' in capsys.readouterr().out
  key = 'scenes/smoke:val'
  assert second[key]['methods'][SAVED]['miou'] == first[key]['methods'][SAVED]['miou']
  config.suite.bootstrap = 7
  with pytest.raises(ValueError, match='made with another configuration or class list'):
    suite.benchmark(Settings.of(config), tmp_path / 'out')


def test_a_missing_class_list_is_stated(
  config: Any, maps: Any, tmp_path: pathlib.Path
) -> None:
  said = 'No names.txt came with the label maps of scenes/smoke:val'
  suite.benchmark(Settings.of(config), tmp_path / 'with')
  assert said not in (tmp_path / 'with' / 'report.md').read_text()
  (maps / 'names.txt').unlink()
  suite.benchmark(Settings.of(config), tmp_path / 'without')
  assert said in (tmp_path / 'without' / 'report.md').read_text()


def test_what_is_kept_can_be_scored(
  config: Any, maps: Any, truth: dict[str, np.ndarray], tmp_path: pathlib.Path
) -> None:
  config.suite.save_predictions = True
  suite.benchmark(Settings.of(config), tmp_path / 'out')
  kept = tmp_path / 'out' / 'scenes_smoke_val' / 'predictions'
  assert len(list(kept.glob('*.png'))) == IMAGES
  assert predictions.check_names(kept, NAMES.names)


class TestMistakes:
  def test_missing_maps(
    self, config: Any, maps: Any, truth: Any, tmp_path: pathlib.Path
  ) -> None:
    gone = sorted(truth)[:2]
    for image_id in gone:
      (maps / f'{image_id}.png').unlink()
    with pytest.raises(ValueError, match=f'2 missing: {gone[0]}, {gone[1]}'):
      suite.benchmark(Settings.of(config), tmp_path / 'out')

  def test_another_class_list(
    self, config: Any, maps: Any, tmp_path: pathlib.Path
  ) -> None:
    (maps / 'names.txt').write_text('\n'.join(reversed(NAMES.names)))
    with pytest.raises(ValueError, match='is another class list'):
      suite.benchmark(Settings.of(config), tmp_path / 'out')

  def test_searching_on_test_images(
    self, config: Any, maps: Any, tmp_path: pathlib.Path
  ) -> None:
    config.suite.search = (0.3, 0.5)
    with pytest.raises(ValueError, match='test splits.*--i-know, which the report'):
      suite.benchmark(Settings.of(config), tmp_path / 'out')
    suite.check_search(Settings.of(config).suite, [Target.parse('scenes:train')])
    config.suite.i_know = True
    suite.check_search(Settings.of(config).suite, [Target.parse('scenes:val')])
    what = {
      'checkpoint': 'x',
      'settings': {},
      'training_note': None,
      'searched': True,
      'searched_on_test': True,
    }
    report = suite_files.write_report(tmp_path, what, {})
    assert '**Settings were searched on test splits (`--i-know`)' in report

  @pytest.mark.parametrize(
    ('datasets', 'error', 'message'),
    [
      ((), ValueError, r'is \(\), expected a tuple .* not empty'),
      (('scenes/smoke', 'scenes/smoke'), ValueError, 'names a data set twice'),
      (('scenes/smoke:vale',), ValueError, 'has no such split; known: '),
      (('scenes/smoke:val[:0]',), ValueError, 'has no images; there is nothing'),
      (('voc_21x',), ValueError, "Did you mean 'voc_21'"),
      (('voc_20', 'ade20k_150'), FileNotFoundError, '2 of 2 data sets are missing'),
    ],
  )
  def test_data_sets(
    self,
    config: Any,
    tmp_path: pathlib.Path,
    datasets: tuple[str, ...],
    error: type,
    message: str,
  ) -> None:
    config.suite.datasets = datasets
    with pytest.raises(error, match=message):
      suite.benchmark(Settings.of(config), tmp_path / 'out')

  def test_no_checkpoint(self, config: Any, tmp_path: pathlib.Path) -> None:
    config.eval.checkpoint = str(tmp_path / 'none')
    with pytest.raises(FileNotFoundError, match='/none not found'):
      suite.benchmark(Settings.of(config), tmp_path / 'out')


def test_pictures_are_the_best_the_middle_and_the_worst() -> None:
  counts = tally.Tally(2)
  for i in range(7):  # image i has i of 10 pixels wrong
    guess = np.ones((1, 10), int)
    guess[0, :i] = 0
    counts.add(f'{i}', guess, np.ones((1, 10), int))
  titles = [title for title, _, _ in suite_files.choose(counts, 1)]
  assert titles == ['best: 0, 100.0', 'median: 3, 70.0', 'worst: 6, 40.0']
  assert [i for _, i, _ in suite_files.choose(counts, 4)] == list('0123456')
  assert suite_files.choose(tally.Tally(2), 3) == []


def test_the_command_knows_both_flags(data_dir: str, tmp_path: pathlib.Path) -> None:
  line = [
    sys.executable,
    '-m',
    'ovs_jax.main',
    '--config=configs/eval_ovseg.py',
    "--config.suite.datasets=('scenes/smoke:val',)",
    '--config.suite.search=(0.5,)',
    f'--config.dataset.data_dir={data_dir}',
    f'--predictions={tmp_path / "none"}',
    f'--workdir={tmp_path / "out"}',
    '--i-know',  # without it the search is refused
  ]
  done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300)
  assert done.returncode == 2
  expected = f'error: {tmp_path}/none not found; --predictions= is the directory'
  assert done.stderr.splitlines()[-1].startswith(expected)
