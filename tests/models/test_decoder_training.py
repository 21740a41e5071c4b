"""The decoder in training, against DETR's layer written out in NumPy, and its draws."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ovs_jax.models.layers import MlpHead
from ovs_jax.models.query_decoder import DecoderLayer, QueryDecoder

WIDTH, HEADS, HIDDEN, QUERIES, CELLS, RATE = 16, 4, 24, 5, 7, 0.3


def layer() -> DecoderLayer:
  return DecoderLayer(HEADS, HIDDEN, RATE, jnp.float32)


def inputs() -> tuple[np.ndarray, ...]:
  rng = np.random.default_rng(0)
  shapes = [(QUERIES, WIDTH)] * 2 + [(CELLS, WIDTH)] * 2
  return tuple(rng.normal(size=(2, *shape)).astype(np.float32) for shape in shapes)


def norm(x: np.ndarray, p: Any) -> np.ndarray:
  x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
  return x * p['scale'] + p['bias']


def attention(
  q: np.ndarray, k: np.ndarray, v: np.ndarray, p: Any, mask: np.ndarray
) -> np.ndarray:
  """Attends with weights that lose what `mask` (b, heads, q, k) has as 0."""

  def split(x: np.ndarray, name: str) -> np.ndarray:
    return np.einsum('bnd,dhe->bhne', x, p[name]['kernel']) + p[name]['bias'][:, None]

  q, k, v = split(q, 'q'), split(k, 'k'), split(v, 'v')
  scores = np.einsum('bhne,bhme->bhnm', q, k) / np.sqrt(WIDTH // HEADS)
  weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
  mixed = np.einsum('bhnm,bhme->bnhe', weights * mask / (1 - RATE), v)
  return np.einsum('bnhe,hed->bnd', mixed, p['out']['kernel']) + p['out']['bias']


def detr(given: tuple[np.ndarray, ...], p: Any, masks: list[np.ndarray]) -> np.ndarray:
  """The layer with five dropouts, in their order."""
  x, query, memory, position = given
  left = iter(masks)

  def drop(y: np.ndarray) -> np.ndarray:
    return y * next(left) / (1 - RATE)

  y = attention(x + query, x + query, x, p['self_attn'], next(left))
  x = norm(x + drop(y), p['norm1'])
  y = attention(x + query, memory + position, memory, p['cross_attn'], next(left))
  x = norm(x + drop(y), p['norm2'])
  hidden = x @ p['linear1']['kernel'] + p['linear1']['bias']
  y = drop(np.maximum(hidden, 0)) @ p['linear2']['kernel'] + p['linear2']['bias']
  return norm(x + drop(y), p['norm3'])


def test_training_drops_what_detr_drops() -> None:
  given = inputs()
  drawn = layer().init(jax.random.key(0), *map(jnp.asarray, given), None, False)[
    'params'
  ]
  params = jax.tree.map(
    lambda x: np.random.default_rng(x.size).normal(size=x.shape) / 4 + np.asarray(x),
    drawn,
  )
  rng = np.random.default_rng(1)
  masks: list[np.ndarray] = []

  def ours(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    if not isinstance(context.module, nn.Dropout):
      return call(*args, **kwargs)
    assert context.module.rate == RATE and not context.module.deterministic
    masks.append(rng.random(args[0].shape) >= RATE)
    return args[0] * masks[-1] / (1 - RATE)

  with nn.intercept_methods(ours):
    found = layer().apply({'params': params}, *map(jnp.asarray, given), None, True)
  assert [m.shape[1:] for m in masks] == [
    (HEADS, QUERIES, QUERIES),
    (QUERIES, WIDTH),
    (HEADS, QUERIES, CELLS),
    (QUERIES, WIDTH),
    (QUERIES, HIDDEN),
    (QUERIES, WIDTH),
  ]
  np.testing.assert_allclose(found, detr(given, params, masks), atol=2e-5)


def test_nothing_is_dropped_outside_of_training() -> None:
  given = inputs()
  params = layer().init(jax.random.key(0), *map(jnp.asarray, given), None, False)[
    'params'
  ]
  params = jax.tree.map(np.asarray, params)
  ones = [np.ones(()) * (1 - RATE)] * 6
  found = layer().apply({'params': params}, *map(jnp.asarray, given), None, False)
  np.testing.assert_allclose(found, detr(given, params, ones), atol=2e-5)


@pytest.mark.parametrize(
  ('path', 'bound'),
  [  # what PyTorch, DETR and MaskFormer draw uniformly within
    ('layer_0/self_attn/q/kernel', (6 / (4 * 256)) ** 0.5),
    ('layer_0/self_attn/k/kernel', (6 / (4 * 256)) ** 0.5),
    ('layer_0/cross_attn/v/kernel', (6 / (4 * 256)) ** 0.5),
    ('layer_0/cross_attn/out/kernel', (6 / (2 * 256)) ** 0.5),
    ('layer_0/linear1/kernel', (6 / (256 + 512)) ** 0.5),
    ('layer_0/linear1/bias', 256**-0.5),
    ('layer_0/linear2/bias', 512**-0.5),
    ('layer_0/self_attn/q/bias', 0.0),
    ('input_proj/kernel', (3 / 128) ** 0.5),
  ],
)
def test_parameters_are_drawn_as_the_reference_draws_them(
  path: str, bound: float
) -> None:
  decoder = QueryDecoder(10, 256, 8, 512, 1, 0.1, jnp.float32)
  drawn = decoder.init(jax.random.key(0), jnp.zeros((1, 2, 2, 128)), False)['params']
  value = drawn
  for name in path.split('/'):
    value = value[name]
  check_uniform(np.asarray(value), bound)


def test_the_heads_are_drawn_as_pytorch_draws_linear_layers() -> None:
  head = MlpHead((400, 100), jnp.float32)
  drawn = head.init(jax.random.key(0), jnp.zeros((1, 64)))['params']
  for i, inputs_of_layer in enumerate((64, 400)):
    for value in drawn[f'layer_{i}'].values():
      check_uniform(np.asarray(value), inputs_of_layer**-0.5)


def check_uniform(value: np.ndarray, bound: float) -> None:
  """The largest values come close to the bound; the deviation is a uniform one's."""
  assert np.abs(value).max() <= bound
  if bound:
    few = value.size < 1000
    assert np.abs(value).max() > bound * (0.95 if few else 0.999)
    np.testing.assert_allclose(value.std(), bound / 3**0.5, rtol=0.15 if few else 0.02)
