"""The evaluation of a model that knows the truth, and of its parts."""

import csv
import json
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_ovseg

from configs import scenes
from ovs_jax.core import preemption
from ovs_jax.core.checkpoint import save_model
from ovs_jax.core.types import VOID
from ovs_jax.data import load_dataset, load_names, pipeline
from ovs_jax.evaluate import counted, network, oracle, predictions, runner, sources
from ovs_jax.inference.names import NameEmbedder
from ovs_jax.models import ovseg
from ovs_jax.settings import Settings
from ovs_jax.text import vocabulary

ORACLES = {'oracle_masks', 'oracle_classes', 'oracle_vocabulary'}
PAINTED = {'proposer', 'clip', 'ensemble_0.20'} | ORACLES
AMONG_SEEN = {'proposer_seen', 'oracle_classes_seen'}
METHODS = PAINTED | AMONG_SEEN
CLASSES = 72
PROPOSALS = 24  # more than there are classes, -1 and void in a scene
SIDE = 128  # of the scenes


def test_crop_accuracy_is_balanced_over_classes() -> None:
  matrix = np.zeros((4, 4), np.int64)
  matrix[0, 0], matrix[1, 0] = 9, 1  # class 0: 90 %
  matrix[1, 1], matrix[0, 1] = 1, 1  # class 1: 50 %; class 2 has no crops
  matrix[2, 3] = 5  # void does not count
  got = runner.crop_accuracy(matrix, {'seen': [0], 'unseen': [1, 2], 'none': [2]})
  assert got['all'] == pytest.approx(70)
  assert got['seen'] == pytest.approx(90) and got['unseen'] == pytest.approx(50)
  assert np.isnan(got['none']) and got['count'] == 12


def label_of(image: Any) -> Any:
  """Reads the label that `hidden` put in the red channel."""
  return jnp.asarray(image)[..., 0].astype(jnp.int32)


def encode(
  config: Any, params: Any, image: Any, size: np.ndarray, side: int
) -> ovseg.Encoded:
  """Proposes a true mask for every class that is there, embedded as its class."""
  del config, params, side
  h, w = (int(n) for n in size)
  label = jnp.full(image.shape[:2], -1).at[:h, :w].set(label_of(image)[:h, :w])
  there = jnp.unique(label, size=PROPOSALS, fill_value=-1)
  valid = (there >= 0) & (there < CLASSES)
  masks = (label[None] == there.reshape(-1, 1, 1)) & valid.reshape(-1, 1, 1)
  eye = jnp.eye(CLASSES + 1)
  return ovseg.Encoded(
    embeddings=eye[jnp.where(valid, there, 0)],
    regions=eye[jnp.where(valid, there, 0)],
    masks=masks.astype(jnp.float32),
    boxes=jnp.zeros((PROPOSALS, 4), jnp.int32),
    valid=valid,
    no_object=eye[-1:],
  )


def embed_masks(model: Any, params: Any, image: Any, masks: Any) -> tuple[Any, Any]:
  """Embeds a mask as the number of its class, but takes class 0 for class 1."""
  del model, params
  inside = jnp.where(masks > 0.5, label_of(image)[None], 0)
  best = jnp.max(inside, axis=(1, 2))
  return jnp.where(best == 1, 0, best)[:, None], masks.any(axis=(1, 2))


def best_names(embeds: Any, text: Any, mix: Any) -> Any:
  """Reads that number."""
  del text, mix
  return embeds[:, 0]


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
  """Returns an OVSeg directory; of its parameters nothing follows."""
  path = tmp_path_factory.mktemp('model') / 'ovseg'
  stored = {**tiny_ovseg.STORED, 'weight': 0.2}
  stored['test'] = {'shortest': SIDE, 'longest': 4 * SIDE}
  save_model(path, tiny_ovseg.draw_params(), stored)
  return str(path)


@pytest.fixture
def config(
  data_dir: str, checkpoint: str, monkeypatch: pytest.MonkeyPatch, optimised: None
) -> Any:
  """Returns an evaluation whose model knows the truth."""
  original = pipeline.eval_batches

  def hidden(*args: Any, **kwargs: Any) -> Any:
    for batch in original(*args, **kwargs):
      image = np.repeat(batch['label'][..., None], 3, axis=-1)
      yield {**batch, 'image': image}

  def embed(self: Any, names: Any, templates: Any) -> np.ndarray:
    del self, templates
    return np.eye(len(names), CLASSES + 1, dtype=np.float32)

  monkeypatch.setattr(sources, 'eval_batches', hidden)
  monkeypatch.setattr(NameEmbedder, 'names', embed)
  monkeypatch.setattr(network, '_encode', encode)
  monkeypatch.setattr(oracle, '_embed_masks', embed_masks)
  monkeypatch.setattr(oracle, '_best_names', best_names)
  monkeypatch.setattr(runner.ovseg, 'image_gflops', lambda *_: {'clip': 1.0})
  config = scenes.evaluate(checkpoint)
  config.dataset.update(variant='smoke', data_dir=data_dir)
  return config


def labels(config: Any, *, by_id: bool = False) -> np.ndarray:
  """Label maps in the order of the data set, or of the images' ids."""
  found = list(pipeline.examples(load_dataset(Settings.of(config).dataset)[1], 'val'))
  if by_id:
    found.sort(key=lambda example: example['image_id'])
  return np.stack([example['label'] for example in found])


def test_the_truth_scores_100(config: Any, tmp_path: pathlib.Path) -> None:
  scores = runner.evaluate(Settings.of(config), tmp_path)
  assert set(scores['methods']) == METHODS
  assert scores['images'] == 16
  for name in METHODS - {'oracle_masks'}:
    assert scores['methods'][name]['miou'] == pytest.approx(100), name
    unseen = scores['methods'][name]['miou_unseen']
    if name in AMONG_SEEN:  # whose pixels are void there
      assert np.isnan(unseen)
    else:
      assert unseen == pytest.approx(100), name
  assert scores['crops']['proposal']['all'] == pytest.approx(100)
  present = set(np.unique(labels(config))) - {VOID}
  # Of the oracle's crops, those of class 1 are wrong, if there are any.
  expected = 100 * (1 - (1 in present) / len(present))
  assert scores['crops']['true_mask']['all'] == pytest.approx(expected)
  # Each class of an image is one crop; the filled-up batch adds none.
  crops = sum(len(set(np.unique(x)) - {VOID}) for x in labels(config))
  assert scores['crops']['true_mask']['count'] == crops


def test_files_hold_what_was_returned(config: Any, tmp_path: pathlib.Path) -> None:
  config.eval.pictures = 3
  config.suite.save_predictions = True
  scores = runner.evaluate(Settings.of(config), tmp_path)
  stored = json.loads((tmp_path / 'scores.json').read_text())
  assert stored['images'] == 16
  names = vocabulary.load('scenes')
  assert stored['vocabulary_sha256'] == names.sha256
  with (tmp_path / 'per_class.csv').open() as file:
    rows = list(csv.DictReader(file))
  assert [row['class'] for row in rows] == list(names.names)
  assert set(rows[0]) == {'class', 'split'} | METHODS
  for k, row in enumerate(rows):
    value = scores['methods']['clip']['iou_per_class'][k]
    assert float(row['clip'] or 'nan') == pytest.approx(value, abs=0.01, nan_ok=True)
  maps = predictions.SavedMaps(tmp_path / 'predictions', CLASSES)
  assert len(list(maps.directory.glob('*.png'))) == 16
  source = sources.load_source(
    Settings.of(config), sources.Target.parse('scenes/smoke')
  )
  first = next(sources.samples(source))
  saved = maps.read(first.image_id, (SIDE, SIDE))
  with np.load(tmp_path / 'pictures.npz') as kept:
    np.testing.assert_array_equal(kept['ensemble_0.20'][0], saved)
    assert set(kept) == PAINTED | {'image', 'label'}
    np.testing.assert_array_equal(kept['label'], labels(config)[:3])
    np.testing.assert_array_equal(
      kept['clip'][kept['label'] != VOID], kept['label'][kept['label'] != VOID]
    )


def test_a_missing_checkpoint_is_named(config: Any, tmp_path: pathlib.Path) -> None:
  config.eval.checkpoint = str(tmp_path / 'none')
  with pytest.raises(FileNotFoundError, match='/none not found'):
    runner.evaluate(Settings.of(config), tmp_path / 'out')


def test_counts_of_images_add_up_to_the_scores(
  config: Any, tmp_path: pathlib.Path
) -> None:
  scores = runner.evaluate(Settings.of(config), tmp_path)
  truth = labels(config, by_id=True)
  seen = np.array(
    [split == 'seen' for split in load_names(Settings.of(config).dataset).splits]
  )
  with np.load(tmp_path / 'counts.npz') as counts:
    assert set(counts) == METHODS | {'crop_true_mask', 'crop_proposal'}
    for name in METHODS:
      assert counts[name].shape == (16, 3, CLASSES)
      for image, rows in zip(truth, counts[name], strict=True):
        expected = np.bincount(image[image != VOID], minlength=CLASSES)
        if name in AMONG_SEEN:
          expected = np.where(seen, expected, 0)
        np.testing.assert_array_equal(rows[1], expected)
      right, true, predicted = counts[name].sum(axis=0)
      with np.errstate(invalid='ignore'):
        iou = 100 * right / (true + predicted - right)
      present = true > 0
      found = np.array(scores['methods'][name]['iou_per_class'])
      np.testing.assert_allclose(found[present], iou[present])
    shown = [len(set(np.unique(x)) - {VOID}) for x in truth]
    np.testing.assert_array_equal(counts['crop_true_mask'][:, 1].sum(axis=1), shown)


def be_host(monkeypatch: pytest.MonkeyPatch, index: int) -> None:
  """Lets the evaluation, and nothing else, take this process for one of two."""

  class Jax:
    process_index = staticmethod(lambda: index)
    process_count = staticmethod(lambda: 2)

  monkeypatch.setattr(counted, 'jax', Jax())
  monkeypatch.setattr(runner.hosts, 'primary', lambda: index == 0)


def test_two_hosts_count_what_one_does(
  config: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  alone = runner.evaluate(Settings.of(config), tmp_path / 'alone')
  parts: dict[int, list[bytes]] = {0: [], 1: []}
  for index in parts:
    be_host(monkeypatch, index)
    keep = parts[index].append
    monkeypatch.setattr(counted, 'gather', lambda p, keep=keep: keep(p) or [p])
    with pytest.raises(ValueError, match='^8 images of scenes/smoke:val were counted'):
      runner.evaluate(
        Settings.of(config), tmp_path / str(index)
      )  # as nobody sends the others
  merged = iter(zip(*parts.values(), strict=True))
  be_host(monkeypatch, 0)
  monkeypatch.setattr(counted, 'gather', lambda part: next(merged))
  together = runner.evaluate(Settings.of(config), tmp_path / 'together')
  for scores in (alone, together):
    scores.pop('seconds')
  np.testing.assert_equal(together, alone)
  with np.load(tmp_path / 'alone/counts.npz') as one:
    with np.load(tmp_path / 'together/counts.npz') as two:
      for name in one:
        np.testing.assert_array_equal(two[name], one[name], err_msg=name)
  assert not (tmp_path / '1/scores.json').exists()  # which the first one writes


def test_a_stopped_evaluation_goes_on(
  config: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  config.eval.save_every = 8
  whole = runner.evaluate(Settings.of(config), tmp_path / 'whole')
  seen: list[int] = []
  original = runner.ModelJudge.count

  def count(*args: Any, **kwargs: Any) -> Any:
    seen.append(1)
    return original(*args, **kwargs)

  monkeypatch.setattr(runner.ModelJudge, 'count', count)
  with monkeypatch.context() as patch:
    for module in (counted, preemption):
      patch.setattr(module, 'asked', lambda: len(seen) >= 3)
    with pytest.raises(preemption.Stopped, match='of 16 steps are counted'):
      runner.evaluate(Settings.of(config), tmp_path / 'broken')
  assert len(seen) < 16
  broken = runner.evaluate(Settings.of(config), tmp_path / 'broken')
  assert len(seen) == 16
  for scores in (whole, broken):
    scores.pop('seconds')
  np.testing.assert_equal(broken, whole)
  names = [
    sorted(p.name for p in (tmp_path / x).iterdir()) for x in ('whole', 'broken')
  ]
  assert names[0] == names[1]
  for name in ('counts.npz', 'pictures.npz'):
    with np.load(tmp_path / 'whole' / name) as one:
      with np.load(tmp_path / 'broken' / name) as two:
        for key in one:
          np.testing.assert_array_equal(two[key], one[key], err_msg=key)


def test_irrelevant_names_take_what_looks_like_them(
  config: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  """Two irrelevant names look like classes 0 and 1, and more so than these."""

  def embed(self: Any, names: Any, templates: Any) -> np.ndarray:
    del self, templates
    rows = np.eye(max(len(names), 1), CLASSES + 1, dtype=np.float32)
    return rows * 1.5 if len(names) == 4 else rows  # twice as many to choose from

  monkeypatch.setattr(NameEmbedder, 'names', embed)
  config.eval.distractors = (2,)
  config.suite.near = 2.0
  scores = runner.evaluate(Settings.of(config), tmp_path)['methods']
  assert 'distractors_0' not in scores
  crowded = np.array(scores['distractors_2']['accuracy_per_class'])
  present = sorted(set(np.unique(labels(config))) - {VOID})
  taken = [k for k in present if k < 2]
  assert np.all(crowded[taken] == 0)
  rest = [k for k in present if k >= 2]
  np.testing.assert_allclose(crowded[rest], 100)
  assert scores['distractors_2']['unassigned'] > 0 or not taken


def test_settings_are_told(config: Any, tmp_path: pathlib.Path) -> None:
  config.eval.templates = 'vild'
  settings = runner.evaluate(Settings.of(config), tmp_path)['settings']
  assert settings['lambda'] == 0.2 and settings['shortest_side'] == SIDE
  assert settings["not the checkpoint's"] == 'templates (its own: single)'
