"""Frozen parameters do not move, and batch statistics never do."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_ovseg

from configs import proposer_r101c, proposer_swin_b
from ovs_jax.core.checkpoint import save_model
from ovs_jax.core.tree import flatten, map_with_path
from ovs_jax.models.maskformer import PRESETS, MaskFormer, init_maskformer
from ovs_jax.ops.losses import SET_WEIGHTS
from ovs_jax.settings import Settings
from ovs_jax.train.loop import make_step
from ovs_jax.train.optimizer import build_optimizer, learning_rate_scales
from ovs_jax.train.recipes import Recipe
from ovs_jax.train.recipes.proposer import (
  Proposer,
  deep_loss,
  load_backbone,
  load_proposer,
)
from ovs_jax.train.state import TrainState, split_params

SMALL = dataclasses.replace(
  PRESETS['tiny'],
  backbone='r_mini',
  pixel_width=8,
  mask_dim=8,
  groups=4,
  num_queries=4,
  width=16,
  heads=2,
  feed_forward=16,
  layers=1,
  embed_hidden=16,
  embed_dim=8,
)


def shapes(config: Any) -> Any:
  return jax.eval_shape(lambda key: init_maskformer(config, key), jax.random.key(0))


def random_params(config: Any) -> dict[str, Any]:
  rng = np.random.default_rng(0)

  def draw(path: str, x: Any) -> jax.Array:
    if path.endswith(('scale', 'var')):
      return jnp.ones(x.shape)
    return jnp.asarray(rng.normal(0, 0.2, x.shape), jnp.float32)

  return map_with_path(draw, shapes(config))


def test_frozen_norms_and_stages_stay_where_they_are() -> None:
  config = proposer_r101c.get_config()
  config.optimizer.warmup = 0  # else the first steps are too small to be seen
  image = jax.random.uniform(jax.random.key(0), (1, 32, 32, 3), maxval=255)

  class Sines(Recipe):
    def loss(self, params: Any, constants: Any, batch: Any, key: Any) -> Any:
      out = MaskFormer(SMALL).apply({'params': params}, batch['image'])
      losses = (out.embeddings, out.mask_logits, out.no_object)
      return sum(jnp.mean(jnp.sin(x)) for x in losses), {}

  before = random_params(SMALL)
  step, optimizer, trainable = make_step(Sines(), Settings.of(config), before)
  start = optimizer.init(split_params(before, trainable)[0])
  state = TrainState(jnp.int32(0), before, start)
  state, _ = jax.jit(step)(state, {}, {'image': image})
  after = flatten(state.params)
  for path, value in flatten(before).items():
    stem = path.startswith(('backbone/stem_conv', 'backbone/res2_'))
    frozen = stem or (path.startswith('backbone/') and '/norm/' in path)
    assert (path in trainable) != frozen, path
    if frozen or path.endswith('conv/kernel'):
      assert np.array_equal(after[path], value) == frozen, path


def test_batch_statistics_have_no_gradient_whatever_the_groups_say() -> None:
  image = jnp.ones((1, 32, 32, 3))

  def loss(params: Any) -> jax.Array:
    out = MaskFormer(SMALL).apply({'params': params}, image)
    return jnp.sum(jnp.sin(out.mask_logits))

  gradients = flatten(jax.jit(jax.grad(loss))(random_params(SMALL)))
  norms = [path for path in gradients if path[:9] == 'backbone/' and '/norm/' in path]
  assert len(norms) == 4 * 18  # 3 in the stem and res2, 4 in the others
  assert all(not np.any(gradients[path]) for path in norms)
  assert np.any(gradients['backbone/stem_conv1/conv/kernel'])


@pytest.mark.parametrize(
  'module, preset', [(proposer_swin_b, 'swin_b_l14'), (proposer_r101c, 'r101c_b16')]
)
def test_the_recipes_groups_fit_the_full_models(module: Any, preset: str) -> None:
  config = module.get_config()
  tree = shapes(PRESETS[preset])
  assert PRESETS[preset] == type(PRESETS[preset])(**config.proposer)
  scales = learning_rate_scales(Settings.of(config).optimizer, tree)
  _, schedule = build_optimizer(
    Settings.of(config).optimizer, scales, config.train.steps
  )
  decayed = dict(config.optimizer.decay)
  assert decayed[r'.*'] == 1.0
  leaves = flatten(tree)
  millions = sum(leaves[path].size for path in scales if path[:9] == 'backbone/') / 1e6
  if preset == 'swin_b_l14':
    assert set(scales) == set(leaves) and set(scales.values()) == {1.0}
    for step, rate in ((0, 6e-11), (750, 2.98312e-5), (60_000, 3.21532e-5)):
      assert float(schedule(step)) == pytest.approx(rate, rel=1e-4)
  else:
    assert millions == pytest.approx(42.17, abs=0.01)  # what the reference trains
    assert scales['backbone/res5_0/conv2/conv/kernel'] == 0.1
    assert scales['pixel_decoder/layer_4/kernel'] == 1.0


def test_training_starts_from_a_backbone(tmp_path: Any) -> None:
  params = map_with_path(lambda _, x: np.ones(x.shape, np.float32), shapes(SMALL))
  backbone = params['backbone']
  sizes = dataclasses.asdict(SMALL.backbone_config())
  save_model(tmp_path / 'alone', backbone, {'model': 'backbone', 'backbone': sizes})
  stored = {'model': 'proposer', 'proposer': dataclasses.asdict(SMALL)}
  save_model(tmp_path / 'proposer', params, stored)
  save_model(tmp_path / 'clip', {'x': np.ones(1)}, {'model': 'clip'})
  for name in ('alone', 'proposer'):
    got = load_backbone(str(tmp_path / name), SMALL, backbone)
    assert flatten(got).keys() == flatten(backbone).keys()
    assert all(np.all(x == 1) for x in flatten(got).values())
  other = dataclasses.replace(SMALL, backbone='swin_mini')
  for name, config, text in (
    ('alone', other, 'has a ResNet backbone, config.proposer.backbone asks for a Swin'),
    ('clip', SMALL, "'clip' model; a 'backbone' or 'proposer' or 'ovseg' model was"),
  ):
    with pytest.raises(ValueError, match=text):
      load_backbone(str(tmp_path / name), config, backbone)
  wider = shapes(dataclasses.replace(SMALL, backbone='tiny'))['backbone']
  with pytest.raises(ValueError, match='of another shape'):
    load_backbone(str(tmp_path / 'alone'), SMALL, wider)


def test_training_goes_on_from_a_proposer(tmp_path: Any) -> None:
  drawn = random_params(SMALL)
  params = map_with_path(lambda _, x: np.ones(x.shape, np.float32), shapes(SMALL))
  stored = {'model': 'proposer', 'proposer': dataclasses.asdict(SMALL)}
  save_model(tmp_path / 'proposer', params, stored)
  clip = dataclasses.replace(tiny_ovseg.CONFIG.clip, embed_dim=SMALL.embed_dim)
  whole = dataclasses.replace(tiny_ovseg.CONFIG, proposer=SMALL, clip=clip)
  inside = {**tiny_ovseg.draw_params(whole), 'proposer': params}
  save_model(tmp_path / 'ovseg', inside, {**whole.to_dict(), 'model': 'ovseg'})
  closed = dataclasses.replace(SMALL, num_classes=5, embed_dim=0, embed_hidden=0)
  classes = map_with_path(lambda _, x: np.ones(x.shape, np.float32), shapes(closed))
  stored = {'model': 'proposer', 'proposer': dataclasses.asdict(closed)}
  save_model(tmp_path / 'maskformer', classes, stored)
  for name in ('proposer', 'ovseg', 'maskformer'):
    got = flatten(load_proposer(str(tmp_path / name), SMALL, drawn))
    assert got.keys() == flatten(drawn).keys()
    for path, value in got.items():
      fresh = name == 'maskformer' and path.startswith(('class_embed', 'no_object'))
      want = flatten(drawn)[path] if fresh else np.ones(value.shape)
      np.testing.assert_array_equal(value, want, err_msg=path)


def test_unfit_proposers_are_explained(tmp_path: Any) -> None:
  params = map_with_path(lambda _, x: np.ones(x.shape, np.float32), shapes(SMALL))
  stored = {'model': 'proposer', 'proposer': dataclasses.asdict(SMALL)}
  save_model(tmp_path / 'proposer', params, stored)
  save_model(tmp_path / 'clip', {'x': np.ones(1)}, {'model': 'clip'})
  for name, changes, text in (
    ('proposer', {'backbone': 'swin_mini'}, 'has a ResNet backbone, config.proposer'),
    (
      'proposer',
      {'embed_dim': 12},
      'embeds in 8 dimensions, config.proposer.embed_dim',
    ),
    ('proposer', {'num_queries': 5}, 'of another shape'),
    ('clip', {}, "holds a 'clip' model; a 'proposer' or 'ovseg' model was"),
  ):
    model = dataclasses.replace(SMALL, **changes)
    with pytest.raises(ValueError, match=text):
      load_proposer(str(tmp_path / name), model, shapes(model))
  config = proposer_r101c.get_config()
  config.init.proposer, config.init.backbone = 'a', 'b'
  with pytest.raises(ValueError, match='config.init.proposer=a brings a backbone of'):
    Proposer(Settings.of(config))


def gradients(config: Any, *counts: int) -> list[dict[str, Any]]:
  """Returns loss and gradients on one picture, with so many true masks."""
  rng = np.random.default_rng(1)
  batch = {
    'image': jnp.asarray(rng.uniform(0, 255, (1, 32, 32, 3)), jnp.float32),
    'label': jnp.asarray(rng.integers(0, 4, (1, 32, 32)), jnp.uint8),
    'ids': jnp.asarray([[0, 1, 3]]),
    'classes': jnp.asarray([[2, 0, 1]]),
  }
  text = jnp.eye(3, SMALL.embed_dim)

  def loss(params: Any, valid: Any) -> Any:
    given = {**batch, 'valid': valid}
    return deep_loss(
      config, params, given, jax.random.key(0), text=text, weights=SET_WEIGHTS
    )

  found, run = [], jax.jit(jax.value_and_grad(loss, has_aux=True))
  for count in counts:
    (total, parts), grads = run(random_params(config), jnp.arange(3)[None] < count)
    found.append({'loss': total, **parts, **flatten(grads)})
  return found


@pytest.mark.slow
def test_options_of_memory_and_precision_and_pictures_without_targets() -> None:
  plain, none = gradients(SMALL, 2, 0)
  assert float(plain['mask']) > 0 and float(plain['dice']) > 0
  (again,) = gradients(dataclasses.replace(SMALL, remat=True), 2)
  largest = max(float(np.abs(value).max()) for value in plain.values())
  for path, value in plain.items():
    # Gradients that are 0 but for rounding have that of the others.
    scale = max(0.01 * largest, float(np.abs(value).max()))
    np.testing.assert_allclose(again[path], value, atol=2e-5 * scale, err_msg=path)
  (low,) = gradients(dataclasses.replace(SMALL, dtype='bfloat16'), 2)
  assert float(low['loss']) == pytest.approx(float(plain['loss']), rel=0.03)
  assert all(x.dtype == jnp.float32 for x in low.values())
  assert float(none['mask']) == float(none['dice']) == 0
  assert all(np.isfinite(x).all() for x in none.values())
  assert np.any(none['class_embed/layer_1/kernel'])
  assert not np.any(none['mask_embed/layer_2/kernel'])
