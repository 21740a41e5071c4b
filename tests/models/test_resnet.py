"""The backbone: counts, strides, dilation and norms."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ovs_jax.core.tree import count_parameters, flatten
from ovs_jax.models.resnet import PRESETS, FrozenBatchNorm, ResNet, ResNetConfig

TINY = ResNetConfig((1, 1, 1, 2), 2, 2, 4, (1, 2), 'frozen')


def shapes_of(config, size=(64, 64)):
  image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
  return jax.eval_shape(ResNet(config).init, jax.random.key(0), image)['params']


def test_parameter_count_of_r101c():
  leaves = flatten(shapes_of(PRESETS['r101c']))
  kernels = sum(x.size for path, x in leaves.items() if path.endswith('kernel'))
  frozen = sum(
    x.size
    for path, x in leaves.items()
    if path.endswith('kernel') and path.startswith(('stem', 'res2'))
  )
  # 42.518 M convolution weights, 42.172 M of them beyond the stem and res2.
  assert (kernels, kernels - frozen) == (42_518_208, 42_172_416)
  assert count_parameters(shapes_of(PRESETS['r101c'])) == 42_729_664


@pytest.mark.parametrize('size, res5', [((512, 704), (16, 22)), ((75, 61), (3, 2))])
def test_strides(size, res5):
  config = PRESETS['r50c']
  image = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
  features = jax.eval_shape(
    lambda p, x: ResNet(config).apply({'params': p}, x), shapes_of(config), image
  )
  assert [x.shape[-1] for x in features] == [256, 512, 1024, 2048]
  assert features[-1].shape == (2, *res5, 2048)


def test_dilation_acts_in_res5_only():
  image = jax.random.normal(jax.random.key(1), (1, 64, 64, 3))
  rng = np.random.default_rng(0)
  params = {
    'params': jax.tree.map(
      lambda x: jnp.asarray(rng.uniform(0.1, 1, x.shape), x.dtype), shapes_of(TINY)
    )
  }
  undilated = dataclasses.replace(TINY, multi_grid=(1,))
  plain = jax.jit(ResNet(undilated).apply)(params, image)
  dilated = jax.jit(ResNet(TINY).apply)(params, image)
  for a, b in zip(plain[:3], dilated[:3], strict=True):
    np.testing.assert_array_equal(a, b)
  assert np.abs(plain[3] - dilated[3]).max() > 1e-3


def test_frozen_norm_uses_stored_statistics():
  x = jnp.array([[[[3.0, -1.0]]]])
  params = {
    'scale': jnp.array([2.0, 1.0]),
    'bias': jnp.array([0.5, 0.0]),
    'mean': jnp.array([1.0, 0.0]),
    'var': jnp.array([4.0 - 1e-5, 1.0 - 1e-5]),
  }
  y = FrozenBatchNorm().apply({'params': params}, x)
  np.testing.assert_allclose(y[0, 0, 0], [2.5, -1.0], rtol=1e-6)  # 2 (3 - 1) / 2 + 0.5


def test_config_survives_json():
  stored = {**dataclasses.asdict(TINY), 'depths': [1, 1, 1, 2], 'multi_grid': [1, 2]}
  assert ResNetConfig.from_dict(stored) == TINY
