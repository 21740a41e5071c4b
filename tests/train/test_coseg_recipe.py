"""CoSeg and CLIPSeg through the loop: targets, phrases, and what is trained."""

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import tiny_configs
from PIL import Image

from configs import scenes
from ovs_jax.core.checkpoint import load_model
from ovs_jax.core.tree import flatten
from ovs_jax.core.types import VOID, Batch
from ovs_jax.models.clip import encode_prompts
from ovs_jax.models.coseg import CoSegConfig
from ovs_jax.models.stored import load
from ovs_jax.settings import Settings
from ovs_jax.text.tokenizer import tokenize
from ovs_jax.train import loop
from ovs_jax.train.recipes.clipseg import ClipSegTraining
from ovs_jax.train.recipes.coseg import CoSegTraining

DECODER = {'reduce_dim': 8, 'mlp': 8, 'extract': (0, 1), 'strides': (4, 2)}


def coseg(data_dir: str, clip: str) -> ml_collections.ConfigDict:
  """CoSeg with options that the paper only suggests."""
  config = tiny_configs.shrink(scenes.coseg_training(clip, 'prefix'), data_dir, steps=2)
  config.coseg.decoder.update({**DECODER, 'film_steps': (0, 1), 'head': 'complex'})
  config.train.paste_scenes = 0
  config.coseg.language.update(num_slots=6, encoder_layers=1, heads=2, mlp=8)
  config.coseg.update(image_size=16, size_embedding='area')
  config.slots.update(
    matching='hungarian', language_loss='vocabulary', ignore_unlabeled=True
  )
  config.slots.more_labels = ('hat', 'hair brush')
  config.slots.weights.update(dice=1.0, focal=1.0, area=0.1)
  return config


def clipseg(data_dir: str, clip: str) -> ml_collections.ConfigDict:
  config = tiny_configs.shrink(scenes.clipseg_training(clip), data_dir)
  config.clipseg.decoder.update(DECODER)
  config.clipseg.image_size = 16
  return config


def write_table(directory: pathlib.Path, count: int) -> None:
  """Makes `phrases.csv` of images of noise under three phrases."""
  rng = np.random.default_rng(0)
  lines = ['image,mask,phrase']
  for i in range(count):
    pixels = rng.integers(0, 256, (20, 24, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(directory / f'{i}.png')
    Image.fromarray(pixels[..., 0] > 128).save(directory / f'{i}_mask.png')
    lines.append(f'{i}.png,{i}_mask.png,thing {i % 3}')
  (directory / 'phrases.csv').write_text('\n'.join(lines))


@pytest.fixture(scope='module')
def run(
  data_dir: str, clip_run: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, pathlib.Path, dict[str, Any]]:
  directory = tmp_path_factory.mktemp('coseg')
  config = coseg(data_dir, str(clip_run))
  return config, directory, loop.train(Settings.of(config), directory)


def test_clip_stays_and_everything_else_moves(
  run: tuple[Any, pathlib.Path, dict[str, Any]], clip_run: pathlib.Path
) -> None:
  config, directory, result = run
  trained, stored = load_model(directory, kind='coseg')
  assert CoSegConfig.from_dict(stored['coseg']).language.num_slots == 6
  recipe = CoSegTraining(Settings.of(config))
  params, constants = recipe.prepare(jax.random.key(config.seed))
  before = flatten(params)
  after = flatten(trained)
  moved = {path for path in before if np.any(before[path] != after[path])}
  wanted = {path for path in before if not path.startswith('clip/')}
  assert moved <= wanted
  # Zero in theory: a key's bias.
  assert {path for path in wanted - moved if not path.endswith('k/bias')} == set()
  given = flatten({'clip': load_model(clip_run)[0]})
  for path, value in given.items():
    np.testing.assert_array_equal(after[path], value, err_msg=path)
  assert set(result) >= {'bce', 'dice', 'focal', 'language', 'area', 'right_labels'}
  assert all(np.isfinite(result[name]) for name in ('bce', 'dice', 'language', 'area'))
  anchors = constants['anchors']
  assert anchors.shape == (len(recipe.seen) + 3, 16)
  texts = [[f'a photo of a {name}'] for name in ('hat', 'hair brush', 'unlabeled')]
  found = load(clip_run, kinds=('clip',), what='CLIP')
  expected = encode_prompts(found.config, found.params, texts, tokenize)
  np.testing.assert_allclose(anchors[-3:], expected, atol=1e-6)


def test_targets_know_the_seen_classes_only(data_dir: str) -> None:
  recipe = CoSegTraining(Settings.of(coseg(data_dir, '')))
  first, second = recipe.seen[0], recipe.seen[3]
  unseen = next(k for k in range(100) if k not in recipe.seen)
  label = np.full((1, 16, 16), VOID, np.uint8)
  label[0, :4], label[0, 4:6], label[0, 6:9] = first, second, unseen
  ids, masks, ignore = recipe.targets(jnp.asarray(label))
  none = len(recipe.seen) + 2
  assert ids.tolist() == [[0, 3, none, none, none, none]]
  assert masks.sum(axis=(2, 3)).tolist() == [[64, 32, 0, 0, 0, 0]]
  assert ignore.sum() == 160


@pytest.mark.parametrize('more', [('hat', 'red circle'), ('hat', 'hat')])
def test_labels_are_said_once(data_dir: str, more: tuple[str, ...]) -> None:
  config = coseg(data_dir, '')
  config.slots.more_labels = more
  with pytest.raises(ValueError, match=rf"more_labels names '{more[1]}', .*leave it"):
    CoSegTraining(Settings.of(config))


def test_phrases_are_of_classes_that_are_there_or_not(data_dir: str) -> None:
  config = clipseg(data_dir, '')
  recipe = ClipSegTraining(Settings.of(config))
  label = np.full((4, 4), VOID, np.uint8)
  label[:2] = recipe.seen[5]
  rng = np.random.default_rng(0)
  drawn = [recipe.choose(label, rng) for _ in range(200)]
  count = len(config.phrases.templates)
  empty = [not mask.any() for mask, _ in drawn]
  assert 20 < sum(empty) < 60  # a fifth
  for mask, phrase in drawn:
    assert mask.any() == (phrase // count == 5)
    assert not mask.any() or (mask == (label == recipe.seen[5])).all()
  assert {phrase % count for _, phrase in drawn} == set(range(count))
  mask, _ = recipe.choose(np.full((4, 4), VOID), rng)
  assert not mask.any()


def batch_of(config: Any, rows: Any = None) -> Batch:
  """Some rows of the second batch."""
  return next(ClipSegTraining(Settings.of(config)).batches(1, rows))


@pytest.mark.parametrize('own', [False, True], ids=['classes', 'table'])
def test_processes_draw_for_their_rows_of_the_batch(
  own: bool, data_dir: str, tmp_path: pathlib.Path
) -> None:
  config = clipseg(data_dir, '')
  if own:
    write_table(tmp_path, 20)
    config.phrases.table = str(tmp_path / 'phrases.csv')
    config.phrases.negative = 0.5
  whole = batch_of(config)
  size = config.train.batch_size
  parts = [batch_of(config, rows) for rows in np.split(np.arange(size), 4)]
  assert len(set(whole['phrase'].tolist())) > 2
  for name, value in whole.items():
    together = np.concatenate([part[name] for part in parts])
    np.testing.assert_array_equal(together, value, err_msg=name)


def test_unknown_choices_are_refused(data_dir: str) -> None:
  config = coseg(data_dir, '')
  config.slots.matching = 'hungary'
  with pytest.raises(ValueError, match="Did you mean 'hungarian'"):
    CoSegTraining(Settings.of(config))
  config.slots.update(matching='hungarian', forced=0.5)
  with pytest.raises(ValueError, match='knows before decoding'):
    CoSegTraining(Settings.of(config))
  config.slots.update(forced=0.0, cache='somewhere')
  config.train.paste_scenes = 1
  with pytest.raises(ValueError, match='no two are the same'):
    CoSegTraining(Settings.of(config))


def test_a_decoder_goes_on_only_with_its_own_clip(
  data_dir: str, clip_run: pathlib.Path
) -> None:
  config = clipseg(data_dir, str(clip_run))
  config.init.clipseg = str(clip_run)
  with pytest.raises(ValueError, match="a 'clipseg' model was expected"):
    ClipSegTraining(Settings.of(config)).prepare(jax.random.key(0))


def test_cached_activations_train_to_the_same_numbers(
  run: tuple[Any, pathlib.Path, dict[str, Any]], tmp_path: pathlib.Path
) -> None:
  """To the last bit from the cache, and up to rounding without one."""
  config, directory, _ = run
  again = config.copy_and_resolve_references()
  again.slots.cache = str(tmp_path / 'cache')
  names = ('filled', 'read')
  for name in names:
    loop.train(Settings.of(again), tmp_path / name)
  filled, read = (flatten(load_model(tmp_path / name)[0]) for name in names)
  before = flatten(
    CoSegTraining(Settings.of(config)).prepare(jax.random.key(config.seed))[0]
  )
  for path, value in flatten(load_model(directory)[0]).items():
    np.testing.assert_array_equal(read[path], filled[path], err_msg=path)
    if not path.endswith('k/bias'):  # whose gradient is rounding alone
      moved = np.abs(value - before[path]).max()
      error = np.abs(value - filled[path]).max()
      assert error <= 0.01 * moved, f'{path}: {error} of {moved}'
  assert len(list((tmp_path / 'cache').rglob('*.npz'))) == 16  # two batches of eight


def test_no_activations_go_through_the_host(
  run: tuple[Any, pathlib.Path, dict[str, Any]],
) -> None:
  recipe = CoSegTraining(Settings.of(run[0]))
  batch = next(recipe.batches(0))
  assert {name: x.dtype for name, x in batch.items()} == {
    'image': np.uint8,
    'label': np.uint8,
  }
  assert batch['image'].shape == (8, 16, 16, 3)


def test_a_users_own_table_trains_the_decoder(
  data_dir: str, clip_run: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  write_table(tmp_path, 8)
  config = clipseg(data_dir, str(clip_run))
  config.phrases.table = str(tmp_path / 'phrases.csv')
  config.train.steps = 2
  result = loop.train(Settings.of(config), tmp_path / 'run')
  assert np.isfinite(result['bce'])
  recipe = ClipSegTraining(Settings.of(config))
  _, constants = recipe.prepare(jax.random.key(0))
  assert len(constants['phrases']) == 3 * len(config.phrases.templates)
  batch = next(recipe.batches(0))
  assert batch['phrase'].max() < 3 * len(config.phrases.templates)
  config.phrases.table = 'nowhere.csv'
  config.init.clip = 'nowhere'
  with pytest.raises(FileNotFoundError, match='2 missing inputs'):
    ClipSegTraining(Settings.of(config)).prepare(jax.random.key(0))


def test_pasted_things_have_slots(data_dir: str) -> None:
  """More classes are in a picture, and none that has no masks."""
  config = coseg(data_dir, '')
  config.coseg.image_size = 128
  counts = []
  for others in (0, 2):
    config.train.paste_scenes = others
    recipe = CoSegTraining(Settings.of(config))
    labels = [np.unique(x) for x in next(recipe.batches(0))['label']]
    assert {k for ids in labels for k in ids.tolist()} <= {*recipe.seen, VOID}
    counts.append(sum(len(ids) for ids in labels))
  assert counts[1] > counts[0] + 8


def test_what_helps_lets_the_loss_fall(
  data_dir: str, clip_run: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  """The recipe of the drawn world, all options at once, with masks of its own size."""
  config = tiny_configs.shrink(
    scenes.coseg_training(str(clip_run), 'cross'), data_dir, steps=20
  )
  config.coseg.decoder.update(reduce_dim=16, mlp=16, extract=(0, 1))
  config.coseg.language.update(
    num_slots=6, encoder_layers=1, decoder_layers=1, heads=2, mlp=16
  )
  config.coseg.image_size = 32
  config.train.log_every = 1
  loop.train(Settings.of(config), tmp_path)
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]

  def mean(name: str, part: slice) -> float:
    return float(np.mean([row[name] for row in rows[part]]))

  for name in ('loss', 'text'):
    assert mean(name, slice(-5, None)) < mean(name, slice(5)), name
