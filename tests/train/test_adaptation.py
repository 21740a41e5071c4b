"""Adapting CLIP with what the configurations of full size ask for, at a tiny size."""

import importlib
import json
import pathlib
import shutil
from collections import Counter
from typing import Any

import jax
import numpy as np
import pytest
import tiny_configs

from configs import (
  adaptation,
  ft_vitb16,
  ft_vitl14,
  gt_classes_vitl14,
  mpt_ft_vitl14,
  mpt_vitl14,
)
from ovs_jax.bench import drawn
from ovs_jax.core.checkpoint import load_model
from ovs_jax.core.tree import flatten
from ovs_jax.data import pair_batches, pairs, transforms
from ovs_jax.models import mask_prompts
from ovs_jax.models.clip import PRESETS, ClipConfig, init_clip
from ovs_jax.settings import Settings
from ovs_jax.train import loop
from ovs_jax.train.epochs import steps_of
from ovs_jax.train.needs import check_needs
from ovs_jax.train.optimizer import build_optimizer, learning_rate_scales
from ovs_jax.train.recipes import make_recipe
from ovs_jax.train.recipes.clip_regions import ClipRegions
from ovs_jax.train.recipes.recipe import described


def tuning(
  data_dir: str, clip: pathlib.Path, pairs_dir: pathlib.Path, **adapt: Any
) -> Any:
  """Prompt tuning as at full size, but tiny."""
  config = adaptation.prompt_tuning('tiny', 'vitl14', '')
  tiny_configs.shrink(config, data_dir)
  config.clip.update(dtype='float32', remat=False)
  config.init.update(clip=str(clip), pairs=str(pairs_dir), labelled=str(pairs_dir))
  config.train.disk_megabytes = 10
  config.adapt.update(adapt)
  return config


@pytest.fixture(scope='module')
def run(
  data_dir: str,
  clip_run: pathlib.Path,
  pairs_dir: pathlib.Path,
  tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Any, pathlib.Path]:
  """Returns a run that used everything at once."""
  directory = tmp_path_factory.mktemp('adapted')
  config = tuning(
    data_dir,
    clip_run,
    pairs_dir,
    balance=1.0,
    duplicates='positives',
    loss_chunk=4,
    evaluate_every=2,
    evaluate_batch=16,
  )
  config.init.more_pairs = ((f'{pairs_dir}/.', 0.5),)
  loop.train(Settings.of(config), directory)
  return config, directory


@pytest.mark.parametrize('module', [mpt_vitl14, ft_vitl14, mpt_ft_vitl14])
def test_bfloat16_is_for_training_and_not_stored(module: Any) -> None:
  recipe = make_recipe(Settings.of(config := module.get_config()))
  assert recipe.clip.dtype == 'bfloat16'
  stored, asked = dict(recipe.model_config['clip']), config.clip.to_dict()
  assert (stored['dtype'], asked['dtype']) == ('float32', 'bfloat16')
  asked['dtype'] = 'float32'
  assert ClipConfig.from_dict(stored) == ClipConfig.from_dict(asked)


def test_the_type_of_a_description_is_float32_at_any_depth() -> None:
  given = {'dtype': 'bfloat16', 'clip': {'dtype': 'bfloat16', 'width': 3}}
  assert described('coseg', coseg=given, template='a {}') == {
    'model': 'coseg',
    'coseg': {'dtype': 'float32', 'clip': {'dtype': 'float32', 'width': 3}},
    'template': 'a {}',
  }


def test_only_the_prompts_are_stored_and_the_rest_is_bit_identical(
  run: tuple[Any, pathlib.Path], clip_run: pathlib.Path
) -> None:
  config, directory = run
  stored, _ = load_model(directory, kind='prompts')
  assert list(flatten(stored)) == ['visual/mask_prompt']
  params, clip = load_model(clip_run)
  sizes, whole = mask_prompts.add_prompts(
    ClipConfig.from_dict(clip['clip']), params, directory
  )
  assert sizes.prompt_depth == config.clip.prompt_depth == 2
  before, after = flatten(params), flatten(whole)
  for path, value in before.items():
    assert value.tobytes() == after[path].tobytes(), path
  start, _ = ClipRegions(Settings.of(config)).prepare(jax.random.key(config.seed))
  assert np.any(start['visual']['mask_prompt'] != after['visual/mask_prompt'])
  size = sum(p.stat().st_size for p in (directory / 'best').rglob('*') if p.is_file())
  assert size < 100_000 < sum(x.nbytes for x in before.values())


@pytest.mark.slow
def test_evaluations_are_kept_and_the_best_step_too(
  run: tuple[Any, pathlib.Path],
) -> None:
  _, directory = run
  lines = (directory / 'evaluations.jsonl').read_text().splitlines()
  scores = [json.loads(line) for line in lines]
  assert [line['step'] for line in scores] == [0, 2, 4]
  for line in scores:
    assert 0 <= line['top1'] <= line['top5'] == 100  # of four classes
  best = load_model(directory / 'best', kind='prompts')[1]['evaluation']
  assert best['top1'] == max(line['top1'] for line in scores)
  # The first of equal ones.
  assert best == next(line for line in scores if line['top1'] == best['top1'])


@pytest.mark.slow
def test_a_stopped_run_of_prompts_goes_on(
  run: tuple[Any, pathlib.Path], tmp_path: pathlib.Path
) -> None:
  config, directory = run
  shutil.copytree(directory, tmp_path / 'run')
  shutil.rmtree(tmp_path / 'run' / 'checkpoints' / '4')
  loop.train(Settings.of(config), tmp_path / 'run')
  for name in ('.', 'best'):
    expected, got = (load_model(d / name)[0] for d in (directory, tmp_path / 'run'))
    for path, value in flatten(expected).items():
      np.testing.assert_array_equal(value, flatten(got)[path])
  lines = (tmp_path / 'run' / 'evaluations.jsonl').read_text()
  assert lines == (directory / 'evaluations.jsonl').read_text()


def test_cached_texts_are_those_of_the_tower(
  data_dir: str, clip_run: pathlib.Path, pairs_dir: pathlib.Path
) -> None:
  losses, pictures = [], []
  for cached in (True, False):
    config = tuning(data_dir, clip_run, pairs_dir, cache_text=cached)
    recipe = ClipRegions(Settings.of(config))
    params, constants = recipe.prepare(jax.random.key(0))
    batch = next(recipe.batches(0))
    assert batch['image'].dtype == batch['mask'].dtype == np.uint8
    assert ('noun' in batch) == cached and ('tokens' in batch) != cached
    assert constants.keys() == ({'nouns'} if cached else set())
    pictures.append(batch['image'])
    given = params, constants, batch, jax.random.key(0)
    losses.append(float(jax.jit(recipe.loss)(*given)[0]))
  np.testing.assert_array_equal(*pictures)
  assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_boxes_show_what_is_around(
  data_dir: str, clip_run: pathlib.Path, pairs_dir: pathlib.Path
) -> None:
  batch = {}
  for prior in ('mask', 'box'):
    config = tuning(data_dir, clip_run, pairs_dir, prior=prior, cache_text=False)
    batch[prior] = next(ClipRegions(Settings.of(config)).batches(0))
  assert (batch['box']['mask'] == 1).all() and (batch['mask']['mask'] == 0).any()
  inside = batch['mask']['mask'] > 0
  assert inside.mean() < 0.6
  assert np.any(batch['box']['image'] != batch['mask']['image'])


def test_sampling_by_noun() -> None:
  nouns = ['man'] * 90 + ['dog'] * 9 + ['axolotl']
  alike = pair_batches.expected_shows(nouns, 1.0, 1.0)
  assert alike.mean() == pytest.approx(1)
  for noun in ('man', 'dog', 'axolotl'):
    own = np.array([n == noun for n in nouns])
    assert alike[own].sum() == pytest.approx(100 / 3)
  assert (pair_batches.expected_shows(nouns, 0.0, 0.5) == 0.5).all()
  root = pair_batches.expected_shows(nouns, 0.5, 1.0)
  assert root[-1] / root[0] == pytest.approx(90**0.5)
  shows = pair_batches.draw_shows(alike, np.random.default_rng(0))
  assert shows[-1] in (33, 34) and shows.sum() == pytest.approx(100, abs=12)
  whole = pair_batches.draw_shows(np.full(5, 2.0), np.random.default_rng(0))
  assert (whole == 2).all()


def test_weighted_batches_resume_and_mix(pairs_dir: pathlib.Path) -> None:
  builder, names = pairs.load(pairs_dir), pairs.nouns(pairs_dir)
  steps = [transforms.keep('image_id')]
  options: dict[str, Any] = {'balance': 0.0, 'batch_size': 8, 'seed': 3}
  sources = [(builder, names, 1.0), (builder, names, 0.5)]

  def take(count: int, start: int, **more: Any) -> list[tuple[bytes, ...]]:
    stream = pair_batches.weighted_batches(
      sources, steps, start=start, **options, **more
    )
    return [tuple(next(stream)['image_id']) for _ in range(count)]

  whole = take(9, 0)
  assert take(4, 5) == whole[5:]
  # An epoch: every pair once, and about half of them once more.
  seen = Counter(x for batch in whole[:4] for x in batch)
  assert set(seen.values()) <= {1, 2} and len(seen) >= 20
  # Two processes have the two halves of the same batches.
  size = options['batch_size']
  halves = [take(9, 0, rows=rows) for rows in np.split(np.arange(size), 2)]
  assert [a + b for a, b in zip(*halves, strict=True)] == whole
  with pytest.raises(ValueError, match='fewer than one batch of 640'):
    options['batch_size'] = 640
    take(1, 0)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'store': 'prompt'}, "Did you mean 'prompts'"),
    ({'duplicates': 'negative'}, "Did you mean 'negatives'"),
    ({'prior': 'crop'}, "expected one of 'mask', 'box'"),
  ],
)
def test_unknown_choices(
  data_dir: str, tmp_path: pathlib.Path, changes: dict[str, str], message: str
) -> None:
  with pytest.raises(ValueError, match=message):
    ClipRegions(Settings.of(tuning(data_dir, tmp_path, tmp_path, **changes)))


def test_an_epoch_has_every_pair_as_often_as_its_source_weighs(
  data_dir: str, clip_run: pathlib.Path, pairs_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  config = tuning(data_dir, clip_run, pairs_dir)
  count = len(pairs.nouns(pairs_dir))
  config.train.update(steps=0, epochs=1.5)
  assert make_recipe(Settings.of(config)).examples() == count
  config.init.more_pairs = ((f'{pairs_dir}/.', 0.5),)
  recipe = make_recipe(Settings.of(config))
  assert recipe.examples() == round(1.5 * count)
  steps = int(1.5 * (round(1.5 * count) // 8))
  assert steps_of(recipe.config, recipe) == steps
  loop.train(Settings.of(config), tmp_path)
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  assert [json.loads(line)['step'] for line in lines] == list(range(1, steps + 1))


@pytest.mark.parametrize(
  ('steps', 'epochs', 'message'),
  [
    (0, 0.0, 'steps is 0 and config.train.epochs is 0.0; give one of them'),
    (4, 1.0, 'steps is 4 and config.train.epochs is 1.0; give one of them'),
    (0, 0.01, 'are no whole batch of 8; lower config.train.batch_size'),
  ],
)
def test_steps_or_epochs(
  steps: int,
  epochs: float,
  message: str,
  data_dir: str,
  clip_run: pathlib.Path,
  pairs_dir: pathlib.Path,
  tmp_path: pathlib.Path,
) -> None:
  config = tuning(data_dir, clip_run, pairs_dir)
  config.train.update(steps=steps, epochs=epochs)
  with pytest.raises(ValueError, match=message):
    loop.train(Settings.of(config), tmp_path)


def test_choices_that_exclude_each_other(
  data_dir: str, clip_run: pathlib.Path, pairs_dir: pathlib.Path
) -> None:
  config = tuning(data_dir, clip_run, pairs_dir)
  config.optimizer.groups = ((r'^visual/', 1.0), (r'.*', None))
  with pytest.raises(ValueError, match=r'would lose \d+ trained parameters, such as'):
    ClipRegions(Settings.of(config)).prepare(jax.random.key(0))
  config.adapt.store = 'all'
  config.optimizer.groups = ((r'^(text|visual)/', 1.0), (r'.*', None))
  with pytest.raises(ValueError, match='parameters of the text tower are trained'):
    ClipRegions(Settings.of(config)).prepare(jax.random.key(0))
  config = tuning(data_dir, clip_run, pairs_dir, evaluate_every=1)
  config.init.labelled = ''
  with pytest.raises(ValueError, match='config.init.labelled names no pairs'):
    ClipRegions(Settings.of(config)).prepare(jax.random.key(0))


class TestFullSize:
  """What is trained at full size, against the reference's numbers."""

  def scales(self, config: Any) -> tuple[dict[str, float], dict[str, Any]]:
    sizes = ClipConfig.from_dict(config.clip)
    tree = jax.eval_shape(lambda key: init_clip(sizes, key), jax.random.key(0))
    return learning_rate_scales(Settings.of(config).optimizer, tree), flatten(tree)

  def test_fine_tuning_trains_the_tower(self) -> None:
    config = ft_vitl14.get_config('script')
    scales, leaves = self.scales(config)
    count = sum(leaves[path].size for path in scales)
    assert count == 303_966_208 + 1  # with the temperature
    optimizer = Settings.of(config).optimizer
    _, schedule = build_optimizer(optimizer, scales, 17_270)
    for step, rate in ((0, 5e-8), (99, 5e-6), (100, 5e-6), (8635, 2.52287e-6)):
      assert float(schedule(step)) == pytest.approx(rate, rel=1e-4)

  def test_prompt_tuning_trains_the_prompts(self) -> None:
    scales, leaves = self.scales(mpt_vitl14.get_config())
    assert {path: leaves[path].shape for path in scales} == {
      'visual/mask_prompt': (3, 256, 1024)
    }
    script = mpt_vitl14.get_config('script')
    assert set(self.scales(script)[0]) == set(mask_prompts.PATHS)
    assert script.optimizer.learning_rate == 0.05
    assert script.optimizer.weight_decay == 0

  def test_the_other_recipes(self) -> None:
    joint = mpt_ft_vitl14.get_config('joint')
    scales, _ = self.scales(joint)
    rate = joint.optimizer.learning_rate
    assert scales['visual/mask_prompt'] * rate == pytest.approx(2e-2)
    assert scales['visual/proj'] * rate == pytest.approx(5e-6)
    assert PRESETS['l14'].vision_width == 1024

  @pytest.mark.parametrize(
    ('module', 'argument', 'pairs_in_all', 'steps'),
    [  # those of the authors' data are the reference's, of 5 epochs
      (ft_vitl14, 'script', 442_117, 17_270),
      (ft_vitb16, 'script', 442_117, 4_315),
      (mpt_vitl14, '', 442_117, 8_635),
      (gt_classes_vitl14, 'script', 965_036, 37_695),
      (mpt_vitl14, '', 335_000, 6_540),
    ],
  )
  def test_it_lasts_five_epochs_of_the_pairs_there_are(
    self,
    module: Any,
    argument: str,
    pairs_in_all: int,
    steps: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
  ) -> None:
    monkeypatch.setattr(ClipRegions, 'examples', lambda recipe: pairs_in_all)
    config = module.get_config(argument)
    settings = Settings.of(config)
    assert steps_of(settings, make_recipe(settings)) == steps
    assert f'5 epochs of {pairs_in_all:,} examples' in capsys.readouterr().out

  @pytest.mark.parametrize('name', ['mpt_vitl14', 'mine_coco_captions'])
  def test_what_is_missing_is_said_at_once(
    self, name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
  ) -> None:
    monkeypatch.chdir(tmp_path)
    config = importlib.import_module(f'configs.{name}').get_config()
    with config.unlocked():
      config.dataset.data_dir = str(tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
      check_needs(Settings.of(config))
    text = str(caught.value)
    assert f'{name} cannot start' in text and f'configs/{name}.py:smoke' in text
    assert 'python -m ovs_jax.convert --download=ViT-L/14' in text
    commands = {
      'mpt_vitl14': 'launch/run.sh --config=configs/mine_coco_captions.py',
      'mine_coco_captions': 'python -m ovs_jax.data.prepare --dataset=coco_captions',
    }
    assert commands[name] in text
    (tmp_path / 'checkpoints' / 'clip_vit_l14').mkdir(parents=True)
    with pytest.raises(FileNotFoundError) as caught:
      check_needs(Settings.of(config))
    assert 'ovs_jax.convert --download' not in str(caught.value)


@pytest.mark.parametrize(
  ('as_bytes', 'duplicates'), [(True, 'negatives'), (False, 'ignored')]
)
def test_drawn_batches_are_like_those_of_pairs(
  as_bytes: bool, duplicates: str, data_dir: str, pairs_dir: pathlib.Path
) -> None:
  config = tiny_configs.prompt_tuning(data_dir, '', str(pairs_dir))
  config.adapt.update(uint8=as_bytes, duplicates=duplicates)
  recipe = make_recipe(Settings.of(config))
  shapes = [
    {name: (x.shape, np.dtype(x.dtype)) for name, x in batch.items()}
    for batch in (
      drawn.draw_batch(recipe, 8, jax.random.key(0)),
      next(recipe.batches(0)),
    )
  ]
  assert shapes[0] == shapes[1]
  config.adapt.cache_text = True
  recipe = make_recipe(Settings.of(config))
  drawn_batch = drawn.draw_batch(recipe, 8, jax.random.key(0))
  assert 'tokens' not in drawn_batch and drawn_batch['noun'].shape == (8,)
  nouns = drawn.draw_constants(recipe, 8)['nouns']
  np.testing.assert_allclose(np.linalg.norm(nouns, axis=1), [1] * 8, rtol=1e-5)
