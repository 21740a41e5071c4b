"""Swin: counts, values against another computation, shifts, padding, drop path."""

import dataclasses
import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ovs_jax.convert import backbones as convert_backbones
from ovs_jax.core.tree import count_parameters, flatten
from ovs_jax.models.content import Content
from ovs_jax.models.swin import (
  PRESETS,
  Swin,
  SwinConfig,
  region_labels,
  relative_index,
  unite,
  windows,
)

GOLDEN = pathlib.Path(__file__).parents[1] / 'goldens' / 'swin.npz'


@functools.cache
def shapes_of(config):
  return convert_backbones.shapes(config)


@pytest.fixture(scope='module')
def golden():
  with np.load(GOLDEN) as f:
    return {name: f[name] for name in f.files}


@pytest.fixture(scope='module')
def model(golden):
  weights = {k[2:]: v.astype(np.float32) for k, v in golden.items() if k[:2] == 'w/'}
  config, params = convert_backbones.convert(weights)
  return config, jax.tree.map(jnp.asarray, params)


@pytest.mark.parametrize(
  'name, count',
  [
    # Published: 28 M, 50 M, 88 M, 197 M with ImageNet's classifier; OVSeg's Swin-B
    # has 86.88 M without.
    ('swin_tiny', 27_520_698),
    ('swin_small', 48_838_602),
    ('swin_base', 86_880_376),
    ('swin_large', 195_201_204),
  ],
)
def test_parameter_counts(name, count):
  assert count_parameters(shapes_of(PRESETS[name])) == count


def test_shapes_at_full_size():
  config = PRESETS['swin_base']
  image = jax.ShapeDtypeStruct((2, 640, 672, 3), jnp.float32)
  features = jax.eval_shape(
    lambda p, x: Swin(config).apply({'params': p}, x), shapes_of(config), image
  )
  assert [x.shape for x in features] == [
    (2, 160, 168, 128),
    (2, 80, 84, 256),
    (2, 40, 42, 512),
    (2, 20, 21, 1024),
  ]


@pytest.mark.parametrize('name', ['odd', 'small'])
def test_values_against_independent_computation(golden, model, name):
  config, params = model
  assert config == SwinConfig(4, (2, 1, 2), (1, 2, 4), 4)
  image = jnp.asarray(golden[f'image_{name}'])[None]
  run = jax.jit(Swin(config).apply)
  for i, x in enumerate(run({'params': params}, image)):
    # Sums in float32 of what was summed in float64.
    np.testing.assert_allclose(x[0], golden[f'{name}_{i}'], rtol=1e-4, atol=2e-5)


@pytest.mark.slow
def test_remat_gives_the_same_gradients(golden, model):
  config, params = model
  image = jnp.asarray(golden['image_small'])[None]

  def loss(params, remat):
    features = Swin(config, remat=remat).apply({'params': params}, image)
    return sum(jnp.sum(jnp.sin(x)) for x in features)

  plain, again = (
    jax.jit(jax.grad(loss), static_argnums=1)(params, r) for r in (False, True)
  )
  for path, gradient in flatten(plain).items():
    # Of the keys' biases they are 0 but for rounding.
    scale = max(float(np.abs(gradient).max()), 1e-1)
    np.testing.assert_allclose(
      flatten(again)[path], gradient, atol=1e-4 * scale, err_msg=path
    )


def test_bfloat16_stays_close(golden, model):
  config, params = model
  image = jnp.asarray(golden['image_odd'])[None]
  low = jax.jit(Swin(config, jnp.bfloat16).apply)({'params': params}, image)
  for i, x in enumerate(low):
    assert x.dtype == jnp.bfloat16
    want = golden[f'odd_{i}']
    error = np.abs(x[0].astype(np.float32) - want)
    assert error.mean() < 0.05 * np.abs(want).mean()


def test_relative_index_of_the_published_window():
  index = relative_index(12)
  assert index.shape == (144, 144) and index.max() == 528 and index.min() == 0
  assert index[0, 0] == 11 * 23 + 11
  assert index[0, 143] == 0 and index[143, 0] == 528  # (-11, -11) and (11, 11)
  assert index[13, 0] == 12 * 23 + 12  # one down, one to the right


def test_windows_and_back():
  x = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
  cut = windows(x, 2)
  assert cut.shape == (2, 6, 4, 3)
  np.testing.assert_array_equal(cut[1, 4, :, 0], x[1, 2:4, 2:4, 0].ravel())
  np.testing.assert_array_equal(unite(cut, (4, 6)), x)


def test_regions_of_a_shift():
  labels = np.asarray(region_labels((4, 8), 4, None))
  # One row of windows, two columns. Rolled by two: the last two rows and, in the last
  # window, the last two columns come from the other side.
  first = [0, 0, 0, 0, 0, 0, 0, 0, 4, 4, 4, 4, 4, 4, 4, 4]
  last = [0, 0, 1, 1, 0, 0, 1, 1, 4, 4, 5, 5, 4, 4, 5, 5]
  np.testing.assert_array_equal(labels, [first, last])


def test_what_is_padded_on_does_not_show(golden, model):
  config, params = model
  run = jax.jit(Swin(config).apply)
  # 32 x 64 pixels: 8 x 16 tokens, then 4 x 8 and 2 x 4, which fill no window.
  image = jax.random.normal(jax.random.key(0), (1, 32, 64, 3))
  want = run({'params': params}, image)
  for size in ((64, 64), (96, 160)):
    padded = jnp.full((1, *size, 3), 7.0).at[:, :32, :64].set(image)
    padded = jnp.where(jnp.abs(padded) == 7, 0.0, padded)
    content = Content(jnp.array([32, 64]), size)
    got = run({'params': params}, padded, content=content)
    for x, y in zip(want, got, strict=True):
      np.testing.assert_allclose(y[:, : x.shape[1], : x.shape[2]], x, atol=2e-5)
      assert not np.any(y[:, x.shape[1] :]) and not np.any(y[:, :, x.shape[2] :])


def test_drop_path_is_per_image_and_follows_the_key(golden, model):
  config, params = model
  image = jnp.repeat(jnp.asarray(golden['image_small'])[None], 4, axis=0)

  module = Swin(dataclasses.replace(config, drop_path=0.9))
  apply = jax.jit(functools.partial(module.apply, train=True))

  def run(seed):
    return apply({'params': params}, image, rngs={'dropout': jax.random.key(seed)})

  plain = jax.jit(module.apply)({'params': params}, image)
  dropped = run(0)
  # The first block never drops, the others do for each image by itself.
  assert np.abs(dropped[-1] - plain[-1]).max() > 0.1
  assert np.abs(dropped[-1][0] - dropped[-1][1]).max() > 0.1
  for x, y in zip(dropped, run(0), strict=True):
    np.testing.assert_array_equal(x, y)
  assert np.abs(run(1)[-1] - dropped[-1]).max() > 0.1


def test_config_survives_json_and_is_checked():
  config = PRESETS['swin_base']
  stored = json.loads(json.dumps(dataclasses.asdict(config)))
  assert SwinConfig.from_dict(stored) == config
  with pytest.raises(ValueError, match='do not divide the widths'):
    SwinConfig(10, (1, 1), (2, 3), 4)
  with pytest.raises(ValueError, match='do not divide the widths'):
    SwinConfig(12, (1, 1), (2,), 4)
