"""Mode `benchmark` on a CLIPSeg and a CoSeg: the same evaluators, files and errors."""

import json
import pathlib
from typing import Any

import made_systems
import numpy as np
import pytest
import tiny_prompted

from configs import common
from ovs_jax.core import preemption
from ovs_jax.core.errors import UserError
from ovs_jax.evaluate import counted, subjects, suite
from ovs_jax.settings import Settings

TARGET = 'scenes/smoke:val[:5]'
RULES = {'A', 'A, threshold 0', 'B'}
ORACLES = {'oracle_vocabulary', 'oracle_masks', 'oracle_classes'}


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
  return tiny_prompted.save(tmp_path_factory.mktemp('systems'))


@pytest.fixture
def config(data_dir: str, checkpoints: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
  """An evaluation of made systems, whose checkpoints only say what they are."""

  def load_system(directory: str, *, kinds: Any, labels: int = 0, **_: Any) -> Any:
    return made_systems.Made(*kinds, labels)

  monkeypatch.setattr(subjects, 'load_system', load_system)
  config = common.base('eval', 'benchmark')
  config.dataset.data_dir = data_dir
  config.eval.checkpoint = str(checkpoints['coseg'])
  config.systems.labels = 6
  config.suite.update(
    datasets=(TARGET,),
    training='scenes',
    distractors=(3, 40),
    distractor_images=3,
    bootstrap=5,
    sheet=1,
    save_predictions=True,
  )
  return config


def right(workdir: pathlib.Path, method: str) -> int:
  """Returns how many pixels are right."""
  with np.load(workdir / 'scenes_smoke_val_5/confusion.npz') as stored:
    return int(np.diag(stored[method])[:-1].sum())


def test_a_coseg_has_all_that_an_ovseg_has(
  config: Any, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  summary = suite.benchmark(Settings.of(config), tmp_path)[TARGET]
  assert summary['headline'] == 'A' and summary['images'] == 5
  found = summary['methods']
  assert set(found) == RULES | ORACLES | {'C', 'D (binary masks)'}
  # What mode `evaluate_systems` counts, too; pixels at borders may round elsewhere.
  for method, count in (('A', 1308), ('C', 52), ('oracle_vocabulary', 8801)):
    assert right(tmp_path, method) == pytest.approx(count, rel=5e-3, abs=5), method
  assert sum(summary['errors'].values()) == pytest.approx(100)
  assert summary['labels']['per_image'] == 7.4
  assert summary['distractors']['images'] == 3
  assert list(summary['distractors']['miou_predicted_too']) == ['0', '3', '40']
  assert 0 <= summary['single_concept']['iou'] <= 100
  assert 0 < found['A']['miou'] < summary['soft']['open_miou'] < 100
  assert summary['groups']['seen'] == 46 and summary['kinds']['stuff'] == 8
  assert {'miou_seen', 'miou_stuff', 'boundary_iou'} <= set(found['A'])
  text = (tmp_path / 'report.md').read_text()
  assert '| data set | images | mIoU (detectron2 0.6) | mIoU, classes in the tr' in text
  assert f'- {TARGET}: 7.4 labels per image' in text
  assert '(scenes_smoke_val_5/sheet.png)' in text and 'model coseg' in text
  # Finished data sets are not counted again, and label maps are as good as the model.
  capsys.readouterr()
  assert (
    suite.benchmark(Settings.of(config), tmp_path)[TARGET]['methods'].keys()
    == found.keys()
  )
  assert 'finished earlier' in capsys.readouterr().out
  config.suite.predictions = str(tmp_path / 'scenes_smoke_val_5/predictions')
  again = suite.benchmark(Settings.of(config), tmp_path / 'again')[TARGET]
  saved = again['methods'][again['headline']]
  for key in ('miou', 'miou_predicted_too', 'boundary_iou', 'iou_per_class'):
    np.testing.assert_array_equal(saved[key], found['A'][key], err_msg=key)


def test_a_benchmark_of_centres(
  config: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  """The protocol `paper`: what is scored, kept and shown are central squares."""
  shown: list[tuple[int, ...]] = []
  original = suite.suite_files.write_sheet

  def write(directory: Any, drawn: Any, names: Any) -> None:
    for _, sample, labels in drawn:
      shown.extend((sample.image.shape[:2], sample.label.shape, labels.shape))
    original(directory, drawn, names)

  monkeypatch.setattr(suite.suite_files, 'write_sheet', write)
  config.systems.update(protocols=('paper',), side=32)
  config.suite.update(distractors=(), single_concepts=False, bootstrap=0)
  suite.benchmark(Settings.of(config), tmp_path)
  with np.load(tmp_path / 'scenes_smoke_val_5/confusion.npz') as stored:
    assert stored['A'].sum() == 5 * 32 * 32  # scenes have a label everywhere
  assert shown and set(shown) == {(32, 32)}
  assert 'protocol paper' in (tmp_path / 'report.md').read_text()
  config.systems.protocols = ('standard', 'paper')
  with pytest.raises(ValueError, match='a benchmark has one; choose'):
    suite.benchmark(Settings.of(config), tmp_path / 'both')


def test_a_stopped_clipseg_goes_on(
  config: Any,
  checkpoints: dict[str, pathlib.Path],
  tmp_path: pathlib.Path,
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  config.eval.update(checkpoint=str(checkpoints['clipseg']), save_every=1)
  config.suite.update(distractors=(), single_concepts=False, sheet=0, bootstrap=0)
  seen: list[str] = []
  original = subjects.SystemJudge.count

  def count(self: Any, sample: Any, **more: Any) -> Any:
    seen.append(sample.image_id)
    return original(self, sample, **more)

  monkeypatch.setattr(subjects.SystemJudge, 'count', count)
  with monkeypatch.context() as patch:
    for module in (counted, preemption):
      patch.setattr(module, 'asked', lambda: len(seen) >= 2)
    with pytest.raises(preemption.Stopped, match='of 5 steps are counted'):
      suite.benchmark(Settings.of(config), tmp_path)
  assert 2 <= len(seen) < 5
  summary = suite.benchmark(Settings.of(config), tmp_path)[TARGET]
  assert len(seen) == len(set(seen)) == 5 and summary['images'] == 5
  text = (tmp_path / 'scenes_smoke_val_5' / 'labels.jsonl').read_text()
  assert sorted(json.loads(x)['image_id'] for x in text.splitlines()) == sorted(seen)
  assert set(summary['methods']) == RULES | ORACLES | {'D (binary masks)'}
  assert right(tmp_path, 'A') == pytest.approx(398, rel=5e-3, abs=5)
  assert summary['distractors'] is summary['single_concept'] is None


@pytest.fixture
def labelled(config: Any, checkpoints: dict[str, pathlib.Path]) -> Any:
  """A CLIPSeg that is evaluated on the six labels that fit an image best."""
  config.eval.checkpoint = str(checkpoints['clipseg'])
  config.suite.update(distractors=(), single_concepts=False, bootstrap=0)
  return config


def test_labels_are_kept_and_taken_again(
  labelled: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  first = suite.benchmark(Settings.of(labelled), tmp_path / 'one')[TARGET]
  path = tmp_path / 'one' / 'scenes_smoke_val_5' / 'labels.jsonl'
  lines = [json.loads(text) for text in path.read_text().splitlines()]
  assert [x['image_id'] for x in lines] == sorted({x['image_id'] for x in lines})
  assert len(lines) == 5
  for entry in lines:
    assert len(set(entry['labels'])) == len(entry['cosines']) == 6
    assert entry['cosines'] == sorted(entry['cosines'], reverse=True)
  labelled.systems.labels_from = str(tmp_path / 'one')
  # Another choice would show: CLIP's is not asked for.
  monkeypatch.setattr(made_systems.Made, 'cosines', lambda *_: None)
  again = suite.benchmark(Settings.of(labelled), tmp_path / 'two')[TARGET]
  with (
    np.load(path.with_name('confusion.npz')) as one,
    np.load(tmp_path / 'two' / 'scenes_smoke_val_5' / 'confusion.npz') as two,
  ):
    for method in RULES:
      np.testing.assert_array_equal(one[method], two[method])
  assert first['labels'] == again['labels']
  assert 'labels per image of ' in (tmp_path / 'two' / 'report.md').read_text()
  assert not (tmp_path / 'two' / 'scenes_smoke_val_5' / 'labels.jsonl').exists()
  # Other labels are other masks.
  for entry in lines:
    entry['labels'] = entry['labels'][:1]
  path.write_text(''.join(json.dumps(x) + '\n' for x in lines))
  fewer = suite.benchmark(Settings.of(labelled), tmp_path / 'three')[TARGET]
  assert fewer['labels']['per_image'] == 1


def test_labels_that_cannot_be_taken(labelled: Any, tmp_path: pathlib.Path) -> None:
  folder = tmp_path / 'one' / 'scenes_smoke_val_5'
  folder.mkdir(parents=True)
  labelled.systems.labels_from = str(tmp_path / 'one')

  def fails(message: str) -> None:
    with pytest.raises(UserError, match=message):
      suite.benchmark(Settings.of(labelled), tmp_path / 'run')

  fails(r'labels\.jsonl was not found: config\.systems\.labels_from is the directory')
  good = {'image_id': 'a', 'labels': ['grass'], 'cosines': [0.1]}
  for text, message in (
    ('{', 'line 1 is damaged'),
    ('[]', 'line 1 is damaged'),
    (json.dumps({'image_id': 'a', 'labels': 3}), 'line 1 is damaged'),
    (json.dumps({'image_id': 'a', 'labels': 'sky'}), 'labels is no list of names'),
    (json.dumps({'image_id': 'a', 'labels': [['sky']]}), 'labels is no list of names'),
    (json.dumps({'image_id': ['a'], 'labels': []}), 'line 1 is damaged'),
    ('"\udcff"', 'line 1 is damaged'),
    (json.dumps({**good, 'labels': ['a whale']}), "'a whale', which is no class"),
    (f'{json.dumps(good)}\n{json.dumps(good)}', "line 2 has the image 'a' once more"),
    (json.dumps(good), 'has no labels of the image'),
  ):
    (folder / 'labels.jsonl').write_bytes(text.encode(errors='surrogateescape'))
    fails(message)
  labelled.suite.distractors = (3,)
  fails(r'config\.suite\.distractors \(3,\): no labels were chosen')


def test_what_a_coseg_sees_is_told(
  config: Any,
  checkpoints: dict[str, pathlib.Path],
  tmp_path: pathlib.Path,
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  asked: list[str] = []

  def load_system(directory: str, *, kinds: Any, view: str = '', **_: Any) -> Any:
    asked.append(view)
    return made_systems.Made(*kinds)

  monkeypatch.setattr(subjects, 'load_system', load_system)
  config.suite.update(distractors=(), single_concepts=False, bootstrap=0, sheet=0)
  config.systems.view = 'windows'
  suite.benchmark(Settings.of(config), tmp_path)
  assert asked == ['windows']
  assert 'view windows' in (tmp_path / 'report.md').read_text()
  config.eval.checkpoint = str(checkpoints['clipseg'])
  with pytest.raises(UserError, match=r'config\.systems\.view is what a CoSeg sees'):
    suite.benchmark(Settings.of(config), tmp_path / 'other')


def test_a_coseg_takes_no_labels(config: Any, tmp_path: pathlib.Path) -> None:
  config.systems.labels_from = str(tmp_path)
  config.suite.distractors = ()
  with pytest.raises(UserError, match="'coseg' model .* chooses labels by itself"):
    suite.benchmark(Settings.of(config), tmp_path / 'run')


def test_what_a_system_cannot_do(
  config: Any, checkpoints: dict[str, pathlib.Path], tmp_path: pathlib.Path
) -> None:
  def refused(message: str) -> None:
    with pytest.raises(ValueError, match=message):
      suite.benchmark(Settings.of(config), tmp_path)

  config.systems.rules = ('A', 'E')
  refused("is 'E', expected one of 'A', 'B'")
  config.systems.rules = ('A', 'B')
  config.suite.update(search=(0.5,), i_know=True)
  refused(r"weigh the classifiers of an OVSeg, and the 'coseg' model .* has none")
  config.suite.search = ()
  config.eval.update(templates='vild', shortest=100)
  config.init.prompts = 'prompts'
  refused(r'nothing that config\.init\.prompts, .*templates, config\.eval\.shortest wo')
  config.eval.update(templates='', shortest=0)
  config.init.prompts = ''
  config.eval.checkpoint = str(checkpoints['clipseg'])
  config.systems.labels = 0
  refused(r'a mask of each of 40 irrelevant names; .* config\.systems\.labels, such as')
  config.eval.checkpoint = str(checkpoints['clip'])
  refused("holds a 'clip' model; a 'ovseg' model was expected")
