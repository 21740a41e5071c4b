"""Tests of the drawn world: the pictures, the captions and the builder."""

import collections
import csv
import importlib.resources
import itertools
import os
import pathlib
import re
import signal

import numpy as np
import pytest

from ovs_jax.core.preemption import Preemption, Stopped
from ovs_jax.core.types import VOID
from ovs_jax.data import scenes, scenes_captions, scenes_draw
from ovs_jax.data.build import locked
from ovs_jax.data.scenes_draw import MIN_PIXELS, NAMES, NUM_THINGS, SHAPES, UNSEEN

_TINY = {'clip': 20, 'train': 4, 'val': 3}


def _config(name: str, **numbers: int) -> scenes.ScenesConfig:
  return scenes.ScenesConfig(name=name, **{**_TINY, **numbers})


@pytest.fixture(scope='module')
def smoke() -> scenes.ScenesConfig:
  return next(config for config in scenes.CONFIGS if config.name == 'smoke')


@pytest.fixture(scope='module')
def drawn() -> list[scenes_draw.Scene]:
  rng = np.random.default_rng(1)
  return [scenes_draw.draw_scene(rng) for _ in range(150)]


@pytest.fixture(scope='module')
def table() -> list[dict[str, str]]:
  path = importlib.resources.files('ovs_jax.text') / 'names' / 'scenes.tsv'
  return list(csv.DictReader(path.read_text().splitlines(), delimiter='\t'))


@pytest.fixture(scope='module')
def spoken(table: list[dict[str, str]]) -> dict[str, int]:
  """Every name and synonym, with its train id."""
  return {
    name: int(row['train_id'])
    for row in table
    for name in [row['name'], *row['synonyms'].split('|')]
  }


def _mentioned(caption: str, spoken: dict[str, int]) -> set[int]:
  return {i for name, i in spoken.items() if re.search(rf'\b{name}\b', caption)}


# The classes.


def test_table_agrees_with_the_constants(table: list[dict[str, str]]) -> None:
  assert [int(row['train_id']) for row in table] == list(range(72))
  assert [int(row['source_value']) for row in table] == list(range(72))
  assert tuple(row['name'] for row in table) == NAMES
  for i, row in enumerate(table):
    assert row['kind'] == ('thing' if i < NUM_THINGS else 'stuff')
    assert row['split'] == ('unseen' if i in UNSEEN else 'seen')
    assert tuple(row['synonyms'].split('|')) == scenes_captions.synonyms(i)


def test_class_counts(table: list[dict[str, str]]) -> None:
  counts = collections.Counter((row['kind'], row['split']) for row in table)
  assert counts == {
    ('thing', 'seen'): 40,
    ('stuff', 'seen'): 6,
    ('thing', 'unseen'): 24,
    ('stuff', 'unseen'): 2,
  }
  assert {NAMES[i] for i in UNSEEN if i >= NUM_THINGS} == {'water', 'snow'}


def test_unseen_words_occur_in_seen_classes() -> None:
  seen = collections.Counter(
    word for i in range(NUM_THINGS) if i not in UNSEEN for word in NAMES[i].split()
  )
  assert set(seen) == {*scenes_draw.COLOURS, *SHAPES}
  assert set(seen.values()) == {5}


def test_names_are_unambiguous(table: list[dict[str, str]]) -> None:
  names = [n for row in table for n in [row['name'], *row['synonyms'].split('|')]]
  assert len(names) == len(set(names))


# The pictures.


def test_a_scene_depends_on_its_seed_alone() -> None:
  first = scenes_draw.draw_scene(np.random.default_rng(3))
  other = scenes_draw.draw_scene(np.random.default_rng(4))
  again = scenes_draw.draw_scene(np.random.default_rng(3))
  np.testing.assert_array_equal(first.image, again.image)
  np.testing.assert_array_equal(first.label, again.label)
  assert first.regions == again.regions
  assert (first.image != other.image).any()


def test_masks_and_regions_agree(drawn: list[scenes_draw.Scene]) -> None:
  for scene in drawn:
    assert scene.image.shape == (128, 128, 3) and scene.image.dtype == np.uint8
    assert scene.label.shape == (128, 128) and scene.label.dtype == np.uint8
    assert 2 <= len(scene.stuff) <= 3 and 2 <= len(scene.things) <= 6
    assert sum(region.pixels for region in scene.regions) == 128 * 128
    for index, region in enumerate(scene.regions):
      mask = scene.mask(index)
      top, left, bottom, right = region.box
      assert region.pixels == mask.sum() == mask[top:bottom, left:right].sum()
      assert region.pixels >= MIN_PIXELS
      assert mask[[top, bottom - 1]].any(1).all()
      assert mask[:, [left, right - 1]].any(0).all()
      assert (scene.label[mask] == region.train_id).all()


@pytest.mark.parametrize('shape', SHAPES)
def test_shapes_fit_their_radius(shape: str) -> None:
  axis = np.linspace(-1.5, 1.5, 151)
  inside = scenes_draw._DISTANCES[shape](axis[None, :], axis[:, None]) < 0
  radius = np.hypot(axis[None, :], axis[:, None])
  assert inside.any() and radius[inside].max() < 1.25  # what `_place` leaves room for
  assert inside.sum() * 0.02**2 > 0.5  # square radii: the smallest can be seen


def test_colours_are_where_the_masks_say(drawn: list[scenes_draw.Scene]) -> None:
  colours = np.array(list(scenes_draw.COLOURS.values()))
  right = total = 0
  for scene in drawn:
    for index, region in enumerate(scene.regions):
      if region.train_id < NUM_THINGS:
        mean = scene.image[scene.mask(index)].mean(0)
        light = mean.sum() / colours.sum(1, keepdims=True)
        nearest = np.abs(colours * light - mean).sum(1).argmin()
        right += nearest == region.train_id // len(SHAPES)
        total += 1
  assert right / total > 0.9


def test_shapes_prefer_their_stuff(drawn: list[scenes_draw.Scene]) -> None:
  tied = [
    region.train_id % len(SHAPES) == region.ground - NUM_THINGS
    for scene in drawn
    for region in scene.things
  ]
  assert 0.38 < np.mean(tied) < 0.57  # 0.4 + 0.6 / 8 = 0.475


def test_things_are_balanced(drawn: list[scenes_draw.Scene]) -> None:
  things = np.array([r.train_id for scene in drawn for r in scene.things])
  for words in things // len(SHAPES), things % len(SHAPES):
    counts = np.bincount(words, minlength=8)
    assert counts.min() > 0.5 * counts.mean()


# The captions.


def test_captions_name_what_is_there(
  drawn: list[scenes_draw.Scene], spoken: dict[str, int]
) -> None:
  rng = np.random.default_rng(2)
  named, there = 0, 0
  for scene in drawn:
    present = {region.train_id for region in scene.regions}
    captions = scenes_captions.describe(rng, scene)
    assert 1 <= len(captions) <= 5
    for caption in captions:
      mentioned = _mentioned(caption, spoken)
      assert mentioned and mentioned <= present, (caption, mentioned, present)
      named, there = named + len(mentioned), there + len(present)
  assert named / there < 0.6  # a caption leaves much unsaid


@pytest.mark.parametrize('train_id', [0, 8, 31, 64, 67, 71])
def test_close_up_captions_name_one_class(
  train_id: int, spoken: dict[str, int]
) -> None:
  rng = np.random.default_rng(train_id)
  for _ in range(100):
    captions = scenes_captions.describe_one(rng, train_id)
    assert 1 <= len(captions) <= 2
    for caption in captions:
      assert _mentioned(caption, spoken) == {train_id}, caption


def test_captions_are_varied() -> None:
  rng = np.random.default_rng(5)
  captions = [scenes_captions.describe_one(rng, 0)[0] for _ in range(1500)]
  plain = [re.sub('crimson|red', 'C', re.sub('circle|ball', 'S', c)) for c in captions]
  assert len(set(plain)) > 100
  assert 0.2 < np.mean(['crimson' in c for c in captions]) < 0.3
  assert 0.2 < np.mean(['ball' in c for c in captions]) < 0.3


def test_articles_agree(drawn: list[scenes_draw.Scene]) -> None:
  rng = np.random.default_rng(6)
  texts = [c for scene in drawn for c in scenes_captions.describe(rng, scene)]
  for train_id, _ in itertools.product(range(len(NAMES)), range(5)):
    texts += scenes_captions.describe_one(rng, train_id)
  for text in texts:
    assert not re.search(r'\ba [aeiou]|\ban [^aeiou]|[{}]|  |\.\S', text), text


# The splits.


def test_examples_are_deterministic(smoke: scenes.ScenesConfig) -> None:
  for split in scenes.SPLITS:
    pairs = zip(
      scenes.examples(smoke, split), scenes.examples(smoke, split), strict=True
    )
    for one, two in itertools.islice(pairs, 12):
      assert one['image_id'] == two['image_id']
      assert one['captions'] == two['captions']
      np.testing.assert_array_equal(one['image'], two['image'])
      np.testing.assert_array_equal(one['label'], two['label'])


def test_splits_and_seeds_are_disjoint() -> None:
  pictures = []
  for seed in range(2):
    config = _config('x', seed=seed)
    for split in scenes.SPLITS:
      pictures += [e['image'].tobytes() for e in scenes.examples(config, split)]
  streams = [
    scenes.generator(s, p, i) for s in (0, 1) for p in scenes.SPLITS for i in (0, 1)
  ]
  assert len(set(pictures)) == len(pictures) == 2 * sum(_TINY.values())
  assert len({rng.integers(2**62) for rng in streams}) == len(streams)


def test_a_smaller_world_is_the_beginning_of_a_larger_one() -> None:
  small = list(scenes.examples(_config('x', clip=7), 'clip'))
  large = list(scenes.examples(_config('y', clip=20), 'clip'))
  assert len(small) == 7 and len(large) == 20
  for one, two in zip(small, large, strict=False):
    np.testing.assert_array_equal(one['image'], two['image'])


def test_train_hides_unseen_masks_and_val_does_not(smoke: scenes.ScenesConfig) -> None:
  train = np.unique([e['label'] for e in scenes.examples(smoke, 'train')])
  val = np.unique([e['label'] for e in scenes.examples(smoke, 'val')])
  assert VOID in train and not UNSEEN & set(train.tolist())
  assert VOID not in val and UNSEEN & set(val.tolist())


def test_unseen_names_occur_in_captions(
  smoke: scenes.ScenesConfig, spoken: dict[str, int]
) -> None:
  for split in 'clip', 'train':
    captions = [c for e in scenes.examples(smoke, split) for c in e['captions']]
    mentioned = set().union(*(_mentioned(caption, spoken) for caption in captions))
    assert len(mentioned & UNSEEN) > 15


def test_close_ups_show_mostly_one_thing(smoke: scenes.ScenesConfig) -> None:
  sizes = set()
  for example in scenes.examples(smoke, 'clip'):
    assert example['label'].shape == example['image'].shape[:2]
    assert (example['label'] == VOID).all()
    assert 1 <= len(example['captions']) <= 2
    sizes.add(example['image'].shape)
  assert len(sizes) > 50


def test_close_ups_contain_their_thing(drawn: list[scenes_draw.Scene]) -> None:
  rng = np.random.default_rng(7)
  for scene in drawn:
    for index, region in enumerate(scene.regions):
      if region.train_id < NUM_THINGS:
        top, left, bottom, right = scenes.crop_thing(rng, region)
        inside = scene.mask(index)[top:bottom, left:right].sum()
        assert inside / region.pixels > 0.75


# The builder.


def test_build_reads_back_what_was_drawn(
  tmp_path: pathlib.Path, smoke: scenes.ScenesConfig, capsys: pytest.CaptureFixture
) -> None:
  builder = scenes.prepare(tmp_path, 'smoke')
  output = capsys.readouterr()
  assert output.out == '' and output.err.count('drawing') == output.err.count('\r')
  assert builder.info.splits['clip'].num_examples == 256
  for split in scenes.SPLITS:
    expected = {e['image_id']: e for e in scenes.examples(smoke, split)}
    read = list(builder.as_dataset(split=split).as_numpy_iterator())
    assert len(read) == len(expected) == getattr(smoke, split)
    for example in read:
      other = expected[example['image_id'].decode()]
      np.testing.assert_array_equal(example['image'], other['image'])
      np.testing.assert_array_equal(example['label'][..., 0], other['label'])
      assert [c.decode() for c in example['captions']] == other['captions']


def test_preparing_twice_draws_once(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  scenes.prepare(tmp_path, _config('tiny'))
  monkeypatch.setattr(scenes_draw, 'draw_scene', None)
  builder = scenes.prepare(tmp_path, _config('tiny'))
  assert builder.info.splits['clip'].num_examples == _TINY['clip']


def test_other_numbers_under_the_same_name_are_refused(tmp_path: pathlib.Path) -> None:
  scenes.prepare(tmp_path, _config('tiny'))
  with pytest.raises(ValueError, match='another name'):
    scenes.prepare(tmp_path, _config('tiny', seed=1))


@pytest.mark.parametrize('error', [RuntimeError, KeyboardInterrupt])
def test_interrupted_preparation_starts_again(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
  config = _config('tiny')
  drawn = iter(range(4))
  original = scenes_draw.draw_scene

  def fail_later(rng: np.random.Generator, *, parts: bool) -> scenes_draw.Scene:
    if next(drawn, None) is None:
      raise error
    return original(rng)

  monkeypatch.setattr(scenes_draw, 'draw_scene', fail_later)
  with pytest.raises(error):
    scenes.prepare(tmp_path, config)
  monkeypatch.undo()
  folder = tmp_path / 'scenes' / 'tiny'
  assert not (folder / '1.0.0').exists()

  killed = folder / 'incomplete.ABCDEF_1.0.0'  # what SIGKILL leaves
  killed.mkdir()
  (killed / 'scenes-clip.tfrecord-00000-of-00001').write_bytes(b'half')
  builder = scenes.prepare(tmp_path, config)
  assert not killed.exists()
  assert len(list(builder.as_dataset(split='clip'))) == _TINY['clip']


def test_a_notice_ends_the_drawing(tmp_path: pathlib.Path) -> None:
  with Preemption(), pytest.raises(Stopped, match='scenes was not finished'):
    os.kill(os.getpid(), signal.SIGTERM)
    scenes.prepare(tmp_path, 'smoke')
  assert [path.name for path in (tmp_path / 'scenes/smoke').iterdir()] == [
    '.prepare.lock'
  ]


def test_a_notice_ends_the_wait_for_another_process(tmp_path: pathlib.Path) -> None:
  with Preemption(), locked(tmp_path):
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Stopped, match='another process is still building'):
      with locked(tmp_path):
        raise AssertionError


def test_unknown_configuration(tmp_path: pathlib.Path) -> None:
  with pytest.raises(ValueError, match='known: default, smoke'):
    scenes.prepare(tmp_path, 'huge')


def test_unusable_data_dir(tmp_path: pathlib.Path) -> None:
  (tmp_path / 'file').write_text('')
  with pytest.raises(OSError, match='Choose a data_dir'):
    scenes.prepare(tmp_path / 'file' / 'data', 'smoke')


def test_full_disk(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(scenes, '_NEEDED_BYTES', 10**15)
  with pytest.raises(OSError, match='MB needed'):
    scenes.prepare(tmp_path, 'smoke')
