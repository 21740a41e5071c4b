"""What the recipes feed, compute and keep in bounds."""

import math
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_configs

from ovs_jax.core.checkpoint import load_model, save_model
from ovs_jax.core.tree import flatten
from ovs_jax.core.types import Params
from ovs_jax.models.clip import PRESETS, Clip, init_clip
from ovs_jax.models.clip_fast import encode_images
from ovs_jax.ops.regions import normalise
from ovs_jax.settings import Settings
from ovs_jax.text import vocabulary
from ovs_jax.text.tokenizer import tokenize
from ovs_jax.train.recipes import clip_pretrain
from ovs_jax.train.recipes.clip_regions import ClipRegions
from ovs_jax.train.recipes.proposer import Proposer, deep_loss
from ovs_jax.train.state import draw_params, merge_params, split_params


def test_split_and_merge_are_inverse() -> None:
  params = {'a': {'b': jnp.ones(1), 'c': jnp.zeros(2)}, 'd': jnp.ones(3)}
  trainable, frozen = split_params(params, {'a/c'})
  assert set(trainable) == {'a/c'} and set(frozen) == {'a/b', 'd'}
  merged = merge_params(trainable, frozen)
  assert jax.tree.structure(merged) == jax.tree.structure(params)


@pytest.mark.parametrize(
  ('given', 'kept'), [(-0.5, 0.0), (2.0, 2.0), (9.0, math.log(100))]
)
def test_the_temperature_stays_in_bounds(given: float, kept: float) -> None:
  params = clip_pretrain.clamp_scale({'logit_scale': jnp.float32(given), 'x': 1})
  assert float(params['logit_scale']) == pytest.approx(kept)
  assert params['x'] == 1


def test_captions_become_tokens_of_one_length() -> None:
  tokens = clip_pretrain.tokenize_batch(
    PRESETS['tiny'], np.array([b'a red ball', b'a ' * 50]), 8
  )
  assert tokens.shape == (2, 8)
  np.testing.assert_array_equal(tokens[0], tokenize(['a red ball'])[0, :8])
  assert tokens[1, -1] == 49_407  # cut, but still with its end


def test_pretraining_sees_captioned_images(data_dir: str) -> None:
  recipe = clip_pretrain.ClipPretrain(Settings.of(tiny_configs.pretraining(data_dir)))
  batch = next(recipe.batches(0))
  assert batch['image'].shape == (8, 16, 16, 3) and batch['image'].dtype == np.uint8
  assert batch['tokens'].shape == (8, 16)
  assert (batch['tokens'][:, 0] == 49_406).all()


class TestMosaics:
  """Images named by their patches, among others."""

  def recipe(self, data_dir: str, **train: Any) -> clip_pretrain.ClipPretrain:
    config = tiny_configs.pretraining(data_dir)
    config.train.update({'batch_size': 16, 'patch_sides': (8,), **train})
    return clip_pretrain.ClipPretrain(Settings.of(config))

  def test_an_image_is_the_mean_of_its_patches_in_the_whole(self) -> None:
    config = self.recipe('unused').clip
    params = clip_pretrain.init_clip(config, jax.random.key(0))
    draw = np.random.default_rng(0)
    image = draw.integers(0, 256, (32, 16, 16, 3)).astype(np.uint8)
    got = clip_pretrain.mosaics(config, params, jnp.asarray(image), sides=(8, 16))
    assert got.shape == (32, 16)
    small = jax.image.resize(image[:16].astype(np.float32), (16, 8, 8, 3), 'linear')
    for part, side in ((np.asarray(small), 8), (image[16:], 16)):
      rows = [np.concatenate(list(part[i : i + 4]), axis=1) for i in range(0, 16, 4)]
      whole = normalise(jnp.asarray(np.concatenate(rows))[None])
      last = config.vision_layers - 1
      tokens = Clip(config).apply(
        {'params': params},
        whole,
        method=lambda m, x, last=last: m.visual.project(m.features(x, (last,))[last]),
      )
      n = side // config.patch
      grid = np.asarray(tokens)[0, 1:].reshape(4, n, 4, n, -1).mean(axis=(1, 3))
      want = grid.reshape(16, -1)
      want /= np.linalg.norm(want, axis=1, keepdims=True)
      mine = got[:16] if side == 8 else got[16:]
      np.testing.assert_allclose(mine, want, atol=1e-5)

  def test_both_losses_have_their_weights(self, data_dir: str) -> None:
    batch = next(self.recipe(data_dir).batches(0))
    params, _ = self.recipe(data_dir).prepare(jax.random.key(0))

    def loss(**train: Any) -> tuple[float, dict[str, Any]]:
      recipe = self.recipe(data_dir, **train)
      total, metrics = jax.jit(recipe.loss)(params, {}, batch, jax.random.key(0))
      return float(total), metrics

    whole, metrics = loss()
    assert 'patches' not in metrics
    parts, metrics = loss(image_weight=0.0, patch_weight=1.0)
    assert 'accuracy' not in metrics and parts == pytest.approx(metrics['patches'])
    both, _ = loss(image_weight=0.5, patch_weight=2.0)
    assert both == pytest.approx(0.5 * whole + 2 * parts, rel=1e-5)
    assert abs(whole - parts) > 1e-3

  def test_a_text_tower_is_taken_over(
    self, data_dir: str, clip_run: pathlib.Path
  ) -> None:
    config = tiny_configs.pretraining(data_dir)
    config.init.clip, config.clip.image_size = str(clip_run), 32  # of another size
    recipe = clip_pretrain.ClipPretrain(Settings.of(config))
    params, stored = recipe.prepare(jax.random.key(3))[0], load_model(clip_run)[0]
    for path, value in flatten({'text': stored['text']}).items():
      np.testing.assert_array_equal(flatten(params)[path], value, err_msg=path)
    assert params['visual']['positional_embedding'].shape == (17, 16)
    config.clip.text_width = 32
    with pytest.raises(ValueError, match='the CLIP checkpoint'):
      clip_pretrain.ClipPretrain(Settings.of(config)).prepare(jax.random.key(3))

  @pytest.mark.parametrize(
    ('train', 'message'),
    [
      ({'image_weight': 0.0}, 'both 0: nothing would be learnt'),
      ({'patch_weight': 1.0, 'batch_size': 24}, 'expected a multiple of 16'),
      ({'patch_weight': 1.0, 'patch_sides': (8, 8, 8)}, 'a multiple of 48'),
      ({'patch_weight': 1.0, 'patch_sides': (12,)}, r'\[12\] are no multiples of the'),
    ],
  )
  def test_what_cannot_be_is_refused(self, train: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
      self.recipe('unused', **train)


class TestProposer:
  def loss(
    self, data_dir: str, clip_run: pathlib.Path, **settings: Any
  ) -> tuple[Callable[[Params], Any], Params]:
    """Returns `deep_loss` with `settings` on a batch, and drawn parameters."""
    config = tiny_configs.proposer(data_dir, str(clip_run))
    recipe = Proposer(Settings.of(config))
    params, constants = recipe.prepare(jax.random.key(1))
    text = jnp.asarray(constants['text'])
    batch = jax.tree.map(jnp.asarray, next(recipe.batches(0)))

    def loss(params: Params) -> Any:
      given = {'weights': dict(config.train.set_weights), **settings}
      key = jax.random.key(0)
      return deep_loss(recipe.model, params, batch, key, text=text, **given)

    return loss, params

  @pytest.mark.parametrize(
    ('setting', 'metric'),
    [('pilot_weight', 'pilot'), ('attention_weight', 'attention')],
  )
  def test_auxiliary_losses_count_as_much_as_they_weigh(
    self, data_dir: str, clip_run: pathlib.Path, setting: str, metric: str
  ) -> None:
    results = []
    for weight in (0.0, 0.5, 2.5):
      loss, params = self.loss(data_dir, clip_run, **{setting: weight})
      results.append(loss(params))
    (_, without), (half, metrics), (more, _) = results
    assert metric not in without and metrics[metric] > 0
    # One decoder layer: what is logged is the whole.
    np.testing.assert_allclose(more - half, 2.0 * metrics[metric], rtol=1e-3)

  def test_pilots_learn_masks_with_the_weights_of_the_others(
    self, data_dir: str, clip_run: pathlib.Path
  ) -> None:
    plain, params = self.loss(data_dir, clip_run)
    piloted, _ = self.loss(data_dir, clip_run, pilot_weight=1.0)
    (_, before), (total, after) = plain(params), piloted(params)
    assert after['mask'] > before['mask'] and after['dice'] > before['dice']
    np.testing.assert_allclose(after['ce'], before['ce'], rtol=1e-5)
    want = 3 * after['ce'] + 20 * after['mask'] + 5 * after['dice'] + after['pilot']
    np.testing.assert_allclose(total, want, rtol=1e-5)

  def test_without_weights_of_the_set_only_pilots_learn(
    self, data_dir: str, clip_run: pathlib.Path
  ) -> None:
    weights = {'ce': 0.0, 'mask': 0.0, 'dice': 0.0}
    loss, params = self.loss(data_dir, clip_run, weights=weights, pilot_weight=1.0)
    gradients = flatten(jax.jit(jax.grad(lambda p: loss(p)[0]))(params))
    moved = {path.split('/')[0] for path, x in gradients.items() if np.any(x)}
    assert moved == {'backbone', 'query_decoder', 'class_embed', 'no_object'}
    assert not np.any(gradients['query_decoder/query_embed'])

  def test_masks_may_be_compared_at_a_coarser_grid(
    self, data_dir: str, clip_run: pathlib.Path
  ) -> None:
    (fine, params), (coarse, _) = (
      self.loss(data_dir, clip_run, mask_stride=stride) for stride in (1, 2)
    )
    (_, one), (_, two) = fine(params), coarse(params)
    assert one['mask'] != two['mask']
    np.testing.assert_allclose(one['mask'], two['mask'], rtol=0.05)

  def test_masks_of_rare_sizes_count_more_if_asked(
    self, data_dir: str, clip_run: pathlib.Path
  ) -> None:
    found = []
    for balance in (0.0, 1.0):
      config = tiny_configs.proposer(data_dir, str(clip_run))
      with config.unlocked():
        config.train.size_balance = balance
        config.train.pilot_weight = 1.0
      recipe = Proposer(Settings.of(config))
      params, constants = recipe.prepare(jax.random.key(1))
      constants = jax.tree.map(jnp.asarray, constants)
      batch = jax.tree.map(jnp.asarray, next(recipe.batches(0)))
      one = batch['valid'] & (jnp.cumsum(batch['valid'].ravel()) == 1).reshape(
        batch['valid'].shape
      )
      for given in (batch, {**batch, 'valid': one}):
        found.append(recipe.loss(params, constants, given, jax.random.key(0))[1])
    plain, plain_one, balanced, balanced_one = found
    assert plain['ce'] == balanced['ce'] and plain['pilot'] == balanced['pilot']
    for name in ('mask', 'dice'):
      assert abs(balanced[name] / plain[name] - 1) > 1e-3
      np.testing.assert_allclose(balanced_one[name], plain_one[name], rtol=1e-6)

  def test_things_of_other_scenes_are_pasted(
    self, data_dir: str, clip_run: pathlib.Path
  ) -> None:
    config = tiny_configs.proposer(data_dir, str(clip_run))
    with config.unlocked():
      config.train.paste_scenes = 0
    plain = next(Proposer(Settings.of(config)).batches(0))
    with config.unlocked():
      config.train.paste_scenes = 2
    pasted = next(Proposer(Settings.of(config)).batches(0))
    again = next(Proposer(Settings.of(config)).batches(0))
    for name in plain:
      np.testing.assert_array_equal(pasted[name], again[name])
    changed = (pasted['image'] != plain['image']).any(-1).mean()
    assert 0.01 < changed < 0.5
    assert pasted['valid'].sum() > plain['valid'].sum()

  def test_targets_are_rows_of_the_seen_classes(
    self, data_dir: str, clip_run: pathlib.Path
  ) -> None:
    recipe = Proposer(Settings.of(tiny_configs.proposer(data_dir, str(clip_run))))
    names = vocabulary.load('scenes')
    assert len(recipe.seen) == names.splits.count('seen')
    batch = next(recipe.batches(0))
    assert batch['valid'].any(axis=1).all()
    rows = batch['classes'][batch['valid']]
    assert rows.min() >= 0 and rows.max() < len(recipe.seen)
    # Each class has its place among the seen; unseen ones are void in the labels.
    own = batch['ids'][batch['valid']]
    np.testing.assert_array_equal(np.array(recipe.seen)[rows], own)

  def test_another_embedding_size_is_refused(
    self, data_dir: str, clip_run: pathlib.Path
  ) -> None:
    config = tiny_configs.proposer(data_dir, str(clip_run))
    config.proposer.embed_dim = 8
    with pytest.raises(ValueError, match='embeds in 16 dimensions'):
      Proposer(Settings.of(config)).prepare(jax.random.key(0))

  def test_a_missing_clip_is_named(self, data_dir: str, tmp_path: pathlib.Path) -> None:
    config = tiny_configs.proposer(data_dir, str(tmp_path / 'no'))
    with pytest.raises(FileNotFoundError, match='CLIP checkpoint .*/no not found'):
      Proposer(Settings.of(config)).prepare(jax.random.key(0))


@pytest.fixture(scope='module')
def inputs(
  data_dir: str, clip_run: pathlib.Path, pairs_dir: pathlib.Path
) -> tuple[str, str, str]:
  """Returns data, CLIP and pairs."""
  return data_dir, str(clip_run), str(pairs_dir)


class TestClipRegions:
  def test_batches_hold_crops_masks_and_sentences(
    self, inputs: tuple[str, str, str]
  ) -> None:
    batch = next(
      ClipRegions(Settings.of(tiny_configs.prompt_tuning(*inputs))).batches(0)
    )
    assert batch['image'].shape == (8, 16, 16, 3)
    assert batch['image'].dtype == np.float32
    assert set(np.unique(batch['mask'])) <= {0.0, 1.0}
    sentences = tokenize([f'a photo of a {noun}.' for noun in tiny_configs.NOUNS])[
      :, :16
    ]
    known = {tuple(row) for row in sentences}
    assert {tuple(row) for row in batch['tokens']} <= known

  def test_prompts_are_drawn_where_the_checkpoint_has_none(
    self, inputs: tuple[str, str, str], tmp_path: pathlib.Path
  ) -> None:
    recipe = ClipRegions(Settings.of(tiny_configs.prompt_tuning(*inputs)))
    drawn, _ = recipe.prepare(jax.random.key(0))
    assert drawn['visual']['mask_prompt'].shape == (2, 4, 16)
    # A CLIP with prompts keeps them, and fine-tuning drops them.
    save_model(tmp_path / 'prompted', drawn, recipe.model_config)
    again, _ = ClipRegions(
      Settings.of(
        tiny_configs.prompt_tuning(inputs[0], str(tmp_path / 'prompted'), inputs[2])
      )
    ).prepare(jax.random.key(1))
    for path, x in flatten(drawn).items():
      np.testing.assert_array_equal(flatten(again)[path], x, err_msg=path)
    tuned, _ = ClipRegions(
      Settings.of(
        tiny_configs.fine_tuning(inputs[0], str(tmp_path / 'prompted'), inputs[2])
      )
    ).prepare(jax.random.key(1))
    assert 'mask_prompt' not in tuned['visual']

  def test_a_clip_of_another_size_is_refused(
    self, inputs: tuple[str, str, str]
  ) -> None:
    config = tiny_configs.prompt_tuning(*inputs)
    config.clip.vision_width = 32
    said = 'config.clip.vision_width is 32, there it is 16'
    with pytest.raises(ValueError, match=said):
      ClipRegions(Settings.of(config)).prepare(jax.random.key(0))

  def test_the_loss_is_infonce_at_the_temperature_of_the_parameters(
    self, inputs: tuple[str, str, str]
  ) -> None:
    recipe = ClipRegions(Settings.of(tiny_configs.fine_tuning(*inputs)))
    params, constants = recipe.prepare(jax.random.key(0))
    pixels = np.random.default_rng(0).uniform(0, 255, (4, 16, 16, 3))
    image = jnp.asarray(pixels, jnp.float32)
    tokens = jnp.asarray(tokenize(list(tiny_configs.NOUNS))[:, :16].astype(np.int32))
    batch = {'image': image, 'mask': jnp.ones((4, 16, 16)), 'tokens': tokens}
    seen = encode_images(recipe.clip, params, normalise(image), None)
    read = Clip(recipe.clip).apply({'params': params}, tokens, method='encode_text')
    rows, columns = (np.asarray(x) for x in (seen, read))
    rows, columns = (
      x / np.linalg.norm(x, axis=1, keepdims=True) for x in (rows, columns)
    )
    loss = jax.jit(recipe.loss)
    for scale in (1.0, 7.0):
      given = {**params, 'logit_scale': jnp.log(jnp.float32(scale))}
      found, metrics = loss(given, constants, batch, jax.random.key(0))
      odds = np.exp(scale * rows @ columns.T)
      right = np.diag(odds)
      both = np.log(odds.sum(1) / right).mean() + np.log(odds.sum(0) / right).mean()
      assert float(found) == pytest.approx(both / 2, rel=1e-5)
      assert float(metrics['scale']) == pytest.approx(scale)

  def test_equal_sentences_are_each_others_negatives(
    self, inputs: tuple[str, str, str]
  ) -> None:
    config = tiny_configs.fine_tuning(*inputs)
    recipe = ClipRegions(Settings.of(config))
    params, constants = recipe.prepare(jax.random.key(0))
    rng = np.random.default_rng(0)
    one = tokenize(['a red ball'])[:, :16].astype(np.int32)
    batch = {
      'image': rng.uniform(0, 255, (3, 16, 16, 3)).astype(np.float32),
      'mask': np.ones((3, 16, 16), np.float32),
      'tokens': np.repeat(one, 3, axis=0),
    }
    batch = jax.tree.map(jnp.asarray, batch)
    given = params, constants, batch, jax.random.key(0)
    _, metrics = jax.jit(recipe.loss)(*given)
    # Whatever the image, one of three equal texts is the best guess.
    assert float(metrics['accuracy']) == pytest.approx(1 / 3)


def test_only_what_is_asked_for_is_drawn() -> None:
  config, key = PRESETS['tiny'], jax.random.key(3)
  whole = flatten(draw_params(init_clip, config, key))
  part = flatten(draw_params(init_clip, config, key, 'visual/class_em|logit'))
  assert list(part) == list(whole)
  drawn = {path for path, x in part.items() if isinstance(x, jax.Array)}
  assert drawn == {'visual/class_embedding', 'logit_scale'}
  for path, x in part.items():
    assert (x.shape, x.dtype) == (whole[path].shape, whole[path].dtype)
    if path in drawn:
      np.testing.assert_array_equal(x, whole[path])
