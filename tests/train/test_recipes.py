"""What the recipes feed, compute and keep in bounds."""

import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_configs

from ovs_jax.core.checkpoint import save_model
from ovs_jax.core.tree import flatten
from ovs_jax.core.types import Params
from ovs_jax.text import vocabulary
from ovs_jax.text.tokenizer import tokenize
from ovs_jax.train.recipes import clip_pretrain
from ovs_jax.train.recipes.clip_regions import ClipRegions
from ovs_jax.train.recipes.proposer import Proposer, deep_loss
from ovs_jax.train.state import merge_params, split_params


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
  tokens = clip_pretrain.tokenize_batch(np.array([b'a red ball', b'a ' * 50]), 8)
  assert tokens.shape == (2, 8)
  np.testing.assert_array_equal(tokens[0], tokenize(['a red ball'])[0, :8])
  assert tokens[1, -1] == 49_407  # cut, but still with its end


def test_pretraining_sees_captioned_images(data_dir: str) -> None:
  recipe = clip_pretrain.ClipPretrain(tiny_configs.pretraining(data_dir))
  batch = next(recipe.batches(0))
  assert batch['image'].shape == (8, 16, 16, 3) and batch['image'].dtype == np.uint8
  assert batch['tokens'].shape == (8, 16)
  assert (batch['tokens'][:, 0] == 49_406).all()


class TestProposer:
  def test_features_that_queries_see_get_a_loss_of_their_own(
    self, data_dir: str, clip_run: pathlib.Path
  ) -> None:
    config = tiny_configs.proposer(data_dir, str(clip_run))
    recipe = Proposer(config)
    params = recipe.init(jax.random.key(1))
    batch = jax.tree.map(jnp.asarray, next(recipe.batches(0)))
    losses = [
      deep_loss(
        recipe.model,
        params,
        batch,
        jax.random.key(0),
        text=recipe._text,
        weights=dict(config.train.set_weights),
        pooled_weight=weight,
      )
      for weight in (0.0, 0.5, 2.0)
    ]
    (plain, without), (half, metrics), (more, _) = losses
    assert 'pooled' not in without and metrics['pooled'] > 0
    np.testing.assert_allclose(half - plain, 0.5 * metrics['pooled'], rtol=1e-3)
    np.testing.assert_allclose(more - plain, 2.0 * metrics['pooled'], rtol=1e-3)

  def test_without_weights_of_the_set_only_what_queries_see_learns(
    self, data_dir: str, clip_run: pathlib.Path
  ) -> None:
    recipe = Proposer(tiny_configs.proposer(data_dir, str(clip_run)))
    params = recipe.init(jax.random.key(1))
    batch = jax.tree.map(jnp.asarray, next(recipe.batches(0)))

    def loss(params: Params) -> jax.Array:
      return deep_loss(
        recipe.model,
        params,
        batch,
        jax.random.key(0),
        text=recipe._text,
        weights={'ce': 0.0, 'mask': 0.0, 'dice': 0.0},
        pooled_weight=1.0,
      )[0]

    gradients = flatten(jax.jit(jax.grad(loss))(params))
    moved = {path.split('/')[0] for path, x in gradients.items() if np.any(x)}
    assert moved == {'backbone', 'query_decoder', 'class_embed', 'no_object'}
    inside = {
      p.split('/')[1] for p, x in gradients.items() if 'decoder' in p and x.any()
    }
    assert inside == {'input_proj', 'norm'}

  def test_things_of_other_scenes_are_pasted(
    self, data_dir: str, clip_run: pathlib.Path
  ) -> None:
    config = tiny_configs.proposer(data_dir, str(clip_run))
    with config.unlocked():
      config.train.paste = 0.0
    plain = next(Proposer(config).batches(0))
    with config.unlocked():
      config.train.paste = 0.15
    pasted = next(Proposer(config).batches(0))
    again = next(Proposer(config).batches(0))
    for name in plain:
      np.testing.assert_array_equal(pasted[name], again[name])
    changed = (pasted['image'] != plain['image']).any(-1).mean()
    assert 0.01 < changed < 0.5
    assert pasted['valid'].sum() > plain['valid'].sum()

  def test_targets_are_rows_of_the_seen_classes(
    self, data_dir: str, clip_run: pathlib.Path
  ) -> None:
    recipe = Proposer(tiny_configs.proposer(data_dir, str(clip_run)))
    names = vocabulary.load('scenes')
    assert len(recipe.seen) == names.splits.count('seen')
    batch = next(recipe.batches(0))
    assert batch['valid'].any(axis=1).all()
    rows = batch['classes'][batch['valid']]
    assert rows.min() >= 0 and rows.max() < len(recipe.seen)
    # An unseen class has no row; its pixels are void in the training masks.
    unseen = [k for k, split in enumerate(names.splits) if split == 'unseen']
    assert all(recipe._row[k] == -1 for k in unseen if k < len(recipe._row))

  def test_another_embedding_size_is_refused(
    self, data_dir: str, clip_run: pathlib.Path
  ) -> None:
    config = tiny_configs.proposer(data_dir, str(clip_run))
    config.proposer.embed_dim = 8
    with pytest.raises(ValueError, match='embeds in 16 dimensions'):
      Proposer(config).init(jax.random.key(0))

  def test_a_missing_clip_is_named(self, data_dir: str, tmp_path: pathlib.Path) -> None:
    config = tiny_configs.proposer(data_dir, str(tmp_path / 'no'))
    with pytest.raises(FileNotFoundError, match='CLIP checkpoint .*/no not found'):
      Proposer(config).init(jax.random.key(0))


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
    batch = next(ClipRegions(tiny_configs.prompt_tuning(*inputs)).batches(0))
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
    recipe = ClipRegions(tiny_configs.prompt_tuning(*inputs))
    drawn = recipe.init(jax.random.key(0))
    assert drawn['visual']['mask_prompt'].shape == (2, 4, 16)
    # A CLIP with prompts keeps them, and fine-tuning drops them.
    save_model(tmp_path / 'prompted', drawn, recipe.model_config)
    again = ClipRegions(
      tiny_configs.prompt_tuning(inputs[0], str(tmp_path / 'prompted'), inputs[2])
    ).init(jax.random.key(1))
    for path, x in flatten(drawn).items():
      np.testing.assert_array_equal(flatten(again)[path], x, err_msg=path)
    tuned = ClipRegions(
      tiny_configs.fine_tuning(inputs[0], str(tmp_path / 'prompted'), inputs[2])
    ).init(jax.random.key(1))
    assert 'mask_prompt' not in tuned['visual']

  def test_a_clip_of_another_size_is_refused(
    self, inputs: tuple[str, str, str]
  ) -> None:
    config = tiny_configs.prompt_tuning(*inputs)
    config.clip.vision_width = 32
    with pytest.raises(ValueError, match='of another shape'):
      ClipRegions(config).init(jax.random.key(0))

  def test_equal_sentences_are_each_others_negatives(
    self, inputs: tuple[str, str, str]
  ) -> None:
    config = tiny_configs.fine_tuning(*inputs)
    params = ClipRegions(config).init(jax.random.key(0))
    rng = np.random.default_rng(0)
    one = tokenize(['a red ball'])[:, :16].astype(np.int32)
    batch = {
      'image': rng.uniform(0, 255, (3, 16, 16, 3)).astype(np.float32),
      'mask': np.ones((3, 16, 16), np.float32),
      'tokens': np.repeat(one, 3, axis=0),
    }
    batch = jax.tree.map(jnp.asarray, batch)
    _, metrics = jax.jit(ClipRegions(config).loss)(params, batch, jax.random.key(0))
    # Whatever the image, one of three equal texts is the best guess.
    assert float(metrics['accuracy']) == pytest.approx(1 / 3)
