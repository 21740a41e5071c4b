"""Every recipe through the loop: resuming, freezing, learning, and stopping."""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
import tiny_configs

from ovs_jax.core.checkpoint import load_model
from ovs_jax.core.tree import flatten
from ovs_jax.core.types import Array, Batch, Constants, Params
from ovs_jax.settings import Settings
from ovs_jax.train import loop
from ovs_jax.train.recipes import RECIPES

NAMES = ('clip_pretrain', 'proposer', 'mpt', 'ft')


class Killed(Exception):
  """Stands for the end of a process."""


@pytest.fixture(scope='session')
def configs(
  data_dir: str, clip_run: pathlib.Path, pairs_dir: pathlib.Path
) -> dict[str, Any]:
  """Returns the configuration of each recipe."""
  inputs = (data_dir, str(clip_run), str(pairs_dir))
  return {
    'clip_pretrain': tiny_configs.pretraining(data_dir),
    'proposer': tiny_configs.proposer(*inputs[:2]),
    'mpt': tiny_configs.prompt_tuning(*inputs),
    'ft': tiny_configs.fine_tuning(*inputs),
  }


@pytest.fixture(scope='session')
def unbroken(
  configs: dict[str, Any],
  clip_run: pathlib.Path,
  tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, tuple[pathlib.Path, dict[str, Any]]]:
  """Returns directory and result of four steps of each recipe."""
  # A CLIP of the same configuration is there; a finished run says what came out.
  directories = {n: tmp_path_factory.mktemp(n) for n in NAMES} | {NAMES[0]: clip_run}
  return {
    name: (directory, loop.train(Settings.of(configs[name]), directory))
    for name, directory in directories.items()
  }


def read_metrics(directory: pathlib.Path) -> list[dict[str, float]]:
  """The lines without what depends on the machine."""
  machine = ('images_per_second', 'memory_bytes', 'utilisation')
  lines = (directory / 'metrics.jsonl').read_text().splitlines()
  return [
    {
      k: v
      for k, v in json.loads(line).items()
      if k not in machine and not k.endswith('_share')
    }
    for line in lines
  ]


def stop_after(monkeypatch: pytest.MonkeyPatch, recipe: str, steps: int) -> None:
  """Lets the input of a recipe fail after some steps."""
  original = RECIPES[recipe]

  def build(config: Any) -> Any:
    built = original(config)
    batches = built.batches

    def few(start: int, rows: Any) -> Iterator[Batch]:
      for _, batch in zip(range(steps), batches(start, rows), strict=False):
        yield batch
      raise Killed

    built.batches = few
    return built

  monkeypatch.setitem(RECIPES, recipe, build)


@pytest.mark.parametrize(
  'name',
  [*(n for n in NAMES if n != 'ft'), pytest.param('ft', marks=pytest.mark.slow)],
)
def test_two_and_two_steps_are_four(
  name: str,
  configs: dict[str, Any],
  unbroken: dict[str, Any],
  tmp_path: pathlib.Path,
) -> None:
  config, begun = configs[name], tmp_path / 'metrics.jsonl'
  given_back: list[bool] = []
  with pytest.MonkeyPatch.context() as patch:
    stop_after(patch, config.recipe, 3)  # the third is lost: saved after the second
    patch.setattr(loop, 'give_back_memory', lambda: given_back.append(begun.exists()))
    with pytest.raises(Killed):
      loop.train(Settings.of(config), tmp_path)
  assert given_back == [False]  # what loading took, before the first step
  assert [line['step'] for line in read_metrics(tmp_path)] == [1, 2, 3]
  loop.train(Settings.of(config), tmp_path)
  directory, _ = unbroken[name]
  assert read_metrics(tmp_path) == read_metrics(directory)
  assert [line['step'] for line in read_metrics(tmp_path)] == [1, 2, 3, 4]
  expected, got = (flatten(load_model(d)[0]) for d in (directory, tmp_path))
  assert set(got) == set(expected)
  for path in expected:
    np.testing.assert_array_equal(got[path], expected[path], err_msg=path)


@pytest.mark.parametrize(
  ('name', 'trained'),
  [('mpt', 'visual/mask_prompt'), ('ft', 'visual/'), ('clip_pretrain', '')],
)
def test_only_what_is_chosen_moves(
  name: str, trained: str, configs: dict[str, Any], unbroken: dict[str, Any]
) -> None:
  directory, result = unbroken[name]
  recipe = RECIPES[configs[name].recipe](Settings.of(configs[name]))
  before = flatten(recipe.prepare(jax.random.key(configs[name].seed))[0])
  after = flatten(load_model(directory)[0])
  moved = {path for path in before if np.any(before[path] != after[path])}
  chosen = {path for path in before if path.startswith(trained)}
  # A key's bias shifts all scores of a softmax alike: it has no gradient.
  assert moved <= chosen
  assert {path for path in chosen - moved if not path.endswith('k/bias')} == set()
  assert result['trainable'] == sum(before[path].size for path in chosen)
  assert result['parameters'] == sum(x.size for x in before.values())


def test_a_finished_run_is_left_as_it_is(
  configs: dict[str, Any], unbroken: dict[str, Any]
) -> None:
  directory, _ = unbroken['mpt']
  before = read_metrics(directory)
  result = loop.train(Settings.of(configs['mpt']), directory)
  assert read_metrics(directory) == before
  assert result['trainable'] > 0


def test_a_checkpoint_of_another_model_is_refused(
  configs: dict[str, Any], unbroken: dict[str, Any], tmp_path: pathlib.Path
) -> None:
  directory, _ = unbroken['ft']
  with pytest.raises(ValueError, match='cannot be read|of another shape|missing'):
    loop.train(Settings.of(configs['mpt']), directory)


@pytest.mark.slow
def test_the_loss_falls(data_dir: str, tmp_path: pathlib.Path) -> None:
  config = tiny_configs.pretraining(data_dir)
  config.train.update(steps=30, save_every=30)
  config.optimizer.update(learning_rate=1e-2, warmup=5)
  loop.train(Settings.of(config), tmp_path)
  losses = [line['loss'] for line in read_metrics(tmp_path)]
  assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 0.2


def test_a_loss_that_is_not_finite_ends_the_run(
  configs: dict[str, Any], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  original = RECIPES['clip_pretrain']

  def build(config: Any) -> Any:
    built = original(config)
    prepare = built.prepare

    def spoil(key: Array) -> tuple[Params, Constants]:
      params, constants = prepare(key)
      return {**params, 'logit_scale': jax.numpy.float32(np.nan)}, constants

    built.prepare = spoil
    return built

  monkeypatch.setitem(RECIPES, 'clip_pretrain', build)
  with pytest.raises(FloatingPointError, match='the loss is nan at step 1.'):
    loop.train(Settings.of(configs['clip_pretrain']), tmp_path)
  assert len(read_metrics(tmp_path)) == 1
  assert not [p for p in (tmp_path / 'checkpoints').iterdir() if p.name.isdigit()]


def test_an_unknown_recipe_is_refused(data_dir: str, tmp_path: pathlib.Path) -> None:
  config = tiny_configs.pretraining(data_dir)
  config.recipe = 'clip_pretrian'
  with pytest.raises(ValueError, match="Did you mean 'clip_pretrain'"):
    loop.train(Settings.of(config), tmp_path)


@pytest.mark.parametrize(
  ('section', 'values', 'message'),
  [
    ('train', {'batch_size': 12}, 'batch_size 12 is not a multiple of 8'),
    ('mesh', {'data': 3}, 'does not fit the 8'),
    ('optimizer', {'groups': (('visul', 1.0), ('.*', None))}, 'visul'),
    ('optimizer', {'groups': (('.*', None),)}, 'freezes every parameter'),
  ],
)
def test_what_cannot_work_is_refused_early(
  data_dir: str,
  tmp_path: pathlib.Path,
  section: str,
  values: dict[str, Any],
  message: str,
) -> None:
  config = tiny_configs.pretraining(data_dir)
  config[section].update(values)
  with pytest.raises(ValueError, match=message):
    loop.train(Settings.of(config), tmp_path)


def test_a_full_disk_is_noticed_before_training(
  data_dir: str, tmp_path: pathlib.Path
) -> None:
  config = tiny_configs.pretraining(data_dir)
  config.train.disk_megabytes = 10**9
  with pytest.raises(OSError, match='this needs about 1000000000 MB'):
    loop.train(Settings.of(config), tmp_path)
