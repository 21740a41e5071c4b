"""Systems whose masks are known, counted alone and by both modes that take them."""

import csv
import dataclasses
import json
import pathlib
from typing import Any

import made_systems
import numpy as np
import pytest

from configs import common
from ovs_jax.core import preemption
from ovs_jax.data import load_dataset, pipeline
from ovs_jax.evaluate import counted, judges, predictions, systems
from ovs_jax.evaluate.judges import Plan
from ovs_jax.evaluate.labelled_masks import centre_view
from ovs_jax.evaluate.sources import Sample
from ovs_jax.evaluate.system_judge import LABELS, Merging, SystemJudge
from ovs_jax.evaluate.systems import build_systems, evaluate_systems
from ovs_jax.inference.system import MaskChunk, MaskSystem, Texts
from ovs_jax.settings import Settings
from ovs_jax.text import vocabulary

TRUTH = np.zeros((8, 8), np.int32)
TRUTH[4:] = 1
TRUTH[:2, :2] = 3
TRUTH[7, 7] = 255
NAMES = vocabulary.Vocabulary(
  name='five',
  names=('cat', 'dog', 'cow', 'sky', 'sea'),
  source_values=tuple(range(5)),
  kinds=('thing',) * 3 + ('stuff',) * 2,
  splits=('',) * 5,
  synonyms=((),) * 5,
)
SAMPLE = Sample('one', np.zeros((8, 8, 3), np.uint8), TRUTH, 0)
RULES = Merging(rules=('A', 'B', 'C', 'D'), threshold=0.3, tau=0.08)
PLAN = Plan((), (2,), 0, near=None, single_concepts=True)


@dataclasses.dataclass
class Known(MaskSystem):
  """Masks of classes 0 and 3 as they are, of 1 called 2, and none for the rest."""

  kind: str = 'known'
  slots: bool = False

  def on(self, device: Any) -> 'Known':
    return self

  def embed(self, classes: Any, **options: Any) -> Texts:
    owner = np.arange(len(classes), dtype=np.int32)
    return Texts(len(classes), owner, 2 * np.eye(len(classes)), None)

  def encode(self, image: Any) -> Any:
    return image.shape[:2]

  def candidates(self, encoded: Any, texts: Any, allowed: Any = None) -> Any:
    return np.array([0, 3, 2])

  def masks(self, encoded: Any, texts: Any, allowed: Any = None) -> Any:
    names = {0: 0, 3: 3, 1: 2 if allowed is None else 1}
    names |= {0: 6} if texts.count > 5 else {}  # an irrelevant name wins
    if allowed is not None:
      names = {k: name for k, name in names.items() if allowed[name]}
    logits = np.stack([np.where(TRUTH == k, 9.0, -9.0) for k in names])
    labels = np.array(list(names.values()), np.int32)
    cosines = None
    if self.slots:
      cosines = np.where(labels[:, None] == np.arange(texts.count + 1), 0.9, 0.1)
      cosines = cosines.astype(np.float32)
    yield MaskChunk(logits.astype(np.float32), labels, cosines)


@pytest.mark.parametrize('slots', [False, True])
def test_known_masks_are_counted_in_every_way(slots: bool) -> None:
  judge = SystemJudge(Known(slots=slots), NAMES, PLAN, RULES, prefix='x/')
  [(folder, labels)] = judge.count(SAMPLE).items()
  assert folder == 'x/'
  np.testing.assert_array_equal(labels, judge.predict(SAMPLE)[1])
  right = {name: t.table()[:, 0].sum() for name, t in judge.tallies.items()}
  assert right.pop('x/C') == (32 if slots else 0)
  # 28 pixels of class 0, 31 of 1 and 4 of 3.
  assert right == {
    'x/A': 32,
    'x/A, threshold 0': 32,
    'x/B': 32,
    'x/D (binary masks)': 32,
    'x/distractors_0': 32,
    'x/distractors_2': 4,
    'x/oracle_vocabulary': 63,
    'x/oracle_masks': 32,
    'x/oracle_classes': 63,
  }
  for name, tally in judge.tallies.items():
    assert tally.bands.any() == (name == 'x/A'), name
  assert judge.sums[f'x/{LABELS}'].tolist() == [2, 3, 3, 1]
  assert judge.sums['x/errors'].tolist() == [32, 0, 31, 0]
  single = [[28, 31, 0, 4, 0], [28, 31, 0, 4, 0], [28, 31, 0, 4, 0]]
  assert judge.sums['x/single'].tolist() == single
  rows = judge.embed(('a', 'b'))
  np.testing.assert_array_equal(rows, np.eye(2))


def test_confidences_are_counted() -> None:
  plan = dataclasses.replace(PLAN, calibration=True)
  judge = SystemJudge(Known(), NAMES, plan, RULES, prefix='x/')
  judge.count(SAMPLE)
  counts = judge.sums['x/calibration']
  # Of 63 labelled pixels 32 are right; each has one mask of 0.9999 and two of 0.0001.
  assert counts[9, :2].tolist() == [63, 32] and counts[:9].sum() == 0
  sure = 1 / (1 + np.exp(-9.0))
  want = 63 * 2**16 * sure / (sure + 2 * (1 - sure))
  np.testing.assert_allclose(counts[9, 2], want, rtol=1e-5)


def test_the_papers_view_is_the_centre() -> None:
  image = np.zeros((4, 8, 3), np.uint8)
  image[:, 2:6] = 200
  label = np.arange(8)[None].repeat(4, 0)
  seen, truth = centre_view(image, label, 2)
  assert (seen == 200).all() and seen.shape == (2, 2, 3)
  assert truth.tolist() == [[2, 4], [2, 4]]


def test_mistakes() -> None:
  config = common.base('x', 'evaluate_systems')
  with pytest.raises(ValueError, match='nothing to evaluate: set config.systems'):
    build_systems(Settings.of(config).systems)
  for key, value, message in (
    ('labels_from', 'runs/eval', 'labels_from is of the mode benchmark'),
    ('view', 'pad', "view is 'pad', what a CoSeg sees, and there is none"),
  ):
    changed = config.copy_and_resolve_references()
    changed.systems[key] = value
    changed.systems.clipseg = 'checkpoints/clipseg'
    with pytest.raises(ValueError, match=message):
      build_systems(Settings.of(changed).systems)
  config.systems.clipseg = 'nowhere/clipseg'
  config.systems.coseg.cross = 'nowhere/cross'
  config.dataset.name = 'voc_20'
  config.dataset.data_dir = '/nonexistent'
  with pytest.raises(FileNotFoundError) as error:
    evaluate_systems(Settings.of(config), pathlib.Path('.'))
  for part in (
    '3 missing inputs',
    'ovs_jax.convert --download=clipseg-rd64-refined --output=nowhere/clipseg',
    'configs/coseg_prefix_vitb16.py --workdir=nowhere/cross',
    'ovs_jax.data.prepare --dataset=voc_20',
  ):
    assert part in str(error.value)
  config.systems.protocols = ('papers',)
  with pytest.raises(ValueError, match="Did you mean 'paper'"):
    evaluate_systems(Settings.of(config), pathlib.Path('.'))


@pytest.fixture
def config(data_dir: str, monkeypatch: pytest.MonkeyPatch) -> Any:
  """The evaluation of made systems on five scenes under both protocols."""
  monkeypatch.setattr(systems, 'build_systems', lambda _: made_systems.systems())
  config = common.base('x', 'evaluate_systems')
  config.dataset.update(name='scenes', variant='smoke', data_dir=data_dir)
  config.systems.update(
    protocols=('standard', 'paper'),
    side=96,
    distractors=(3, 40),
    images=5,
    resamples=20,
    many=5,
  )
  return config


def counts_of(workdir: pathlib.Path) -> dict[str, np.ndarray]:
  with np.load(workdir / 'counts.npz') as stored:
    return {name: stored[name] for name in stored.files}


# Pixels that are right and predicted, as the harness of before counted them.
COUNTED = {
  'no_training/standard/A': (398, 81189),
  'no_training/standard/A, threshold 0': (398, 81920),
  'no_training/standard/B': (405, 81189),
  'no_training/standard/D (binary masks)': (1742, 322237),
  'no_training/standard/A, 3 more names': (377, 80352),
  'no_training/standard/A, 40 more names': (233, 71885),
  'no_training/standard/oracle labels': (9261, 80959),
  'no_training/standard/oracle masks': (148, 81920),
  'no_training/paper/A': (234, 45660),
  'no_training/paper/D (binary masks)': (1008, 180811),
  'no_training/paper/oracle labels': (5147, 45534),
  'clipseg/standard/A': (987, 81920),
  'clipseg/standard/B': (1767, 81920),
  'clipseg/standard/oracle masks': (0, 81920),
  'clipseg/paper/oracle labels': (4488, 46080),
  'prefix/standard/A': (1308, 81920),
  'prefix/standard/B': (0, 81920),
  'prefix/standard/C': (52, 81920),
  'prefix/standard/D (binary masks)': (5993, 351222),
  'prefix/standard/A, 3 more names': (372, 73002),
  'prefix/standard/A, 40 more names': (0, 37906),
  'prefix/standard/oracle labels': (8801, 81920),
  'prefix/standard/oracle masks': (213, 81920),
  'prefix/paper/C': (42, 46080),
}


def test_numbers_and_label_maps(config: Any, tmp_path: pathlib.Path) -> None:
  config.suite.save_predictions = True
  evaluate_systems(Settings.of(config), tmp_path)
  counts = counts_of(tmp_path)
  for name, (right, predicted) in COUNTED.items():
    found, truth = counts[name].sum(axis=(0, 2))[[0, 2]], counts[name][:, 1].sum()
    assert truth == (81920 if 'standard' in name else 46080), name
    # Machines may round a few pixels at borders another way.
    np.testing.assert_allclose(
      found, (right, predicted), rtol=5e-3, atol=5, err_msg=name
    )
  left_out = ('clipseg/standard/D', 'clipseg/standard/A, 3', 'prefix/paper/A, 3')
  assert not [name for name in counts if name.startswith(left_out)]
  # The label maps that were kept, counted slowly, in the order of the data set.
  names = vocabulary.load('scenes').names
  examples = list(
    pipeline.examples(load_dataset(Settings.of(config).dataset)[1], 'val[:5]')
  )
  for system in made_systems.systems():
    kept = tmp_path / 'predictions' / system / 'standard'
    assert predictions.check_names(kept, names)
    for i, example in enumerate(examples):
      label = example['label'].astype(int)
      guess = predictions.SavedMaps(kept, 72).read(
        example['image_id'].decode(), label.shape
      )
      for k in range(72):
        called, true = (guess == k) & (label < 72), label == k
        slow = [(called & true).sum(), true.sum(), called.sum()]
        assert counts[f'{system}/standard/A'][i, :, k].tolist() == slow
  check_reports(tmp_path, counts)


def check_reports(workdir: pathlib.Path, counts: dict[str, np.ndarray]) -> None:
  report = json.loads((workdir / 'scores.json').read_text())
  found = report['systems']['prefix']['standard']
  assert found['labels']['per_image'] == 7.4 and sum(found['errors'].values()) == 100
  scores = found['methods']['A']
  # Denominators: 37 classes are true or predicted, 23 are true.
  right, true, predicted = counts['prefix/standard/A'].sum(axis=0)
  iou = right / np.maximum(true + predicted - right, 1)
  first = 100 * iou[true > 0].sum() / np.sum(true + predicted > 0)
  assert scores['miou_predicted_too'] == pytest.approx(first)
  assert scores['miou'] == pytest.approx(100 * iou[true > 0].mean())
  assert scores['miou_predicted_too'] < scores['miou']
  low, high = scores['miou_interval']
  assert low < scores['miou'] < high and scores['images_many'] == 5
  assert {'miou_seen', 'miou_unseen', 'miou_thing', 'miou_stuff'} <= set(scores)
  lines = (workdir / 'scores.md').read_text().splitlines()
  assert lines[2].startswith('| system | protocol | merging | mIoU (detectron2 0.6) | ')
  assert any(x.startswith(f'| prefix | standard | A | {first:.1f} | ') for x in lines)
  assert '- prefix, standard: 7.4 labels per image; they hold 9.4 %' in '\n'.join(lines)
  with (workdir / 'per_class.csv').open() as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == 72 and rows[1]['prefix standard'] == ''  # is in no truth
  assert float(rows[71]['prefix standard']) == pytest.approx(100 * iou[71], abs=0.005)


def test_a_stopped_evaluation_goes_on(
  config: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  config.eval.save_every = 1
  config.systems.update(rules=('A',), distractors=(), protocols=('standard',))
  evaluate_systems(Settings.of(config), tmp_path / 'whole')
  seen: list[str] = []
  original = judges.Several.count

  def count(self: Any, sample: Any, **more: Any) -> Any:
    seen.append(sample.image_id)
    return original(self, sample, **more)

  monkeypatch.setattr(judges.Several, 'count', count)
  with monkeypatch.context() as patch:
    for module in (counted, preemption):
      patch.setattr(module, 'asked', lambda: len(seen) >= 2)
    with pytest.raises(preemption.Stopped, match='of 5 steps are counted'):
      evaluate_systems(Settings.of(config), tmp_path / 'broken')
  assert 2 <= len(seen) < 5
  evaluate_systems(Settings.of(config), tmp_path / 'broken')
  assert len(seen) == len(set(seen)) == 5
  whole, broken = (counts_of(tmp_path / x) for x in ('whole', 'broken'))
  assert list(whole) == list(broken)
  for name, x in whole.items():
    np.testing.assert_array_equal(broken[name], x, err_msg=name)
  assert not list((tmp_path / 'broken').glob('counted_*'))
