"""CoSeg's language models against their layers written out in NumPy."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_coseg import tiny

from ovs_jax.models.coseg import LANGUAGE_MODELS

HEADS, WIDTH, SLOTS, LENGTH = 2, 10, 4, 6
PATCHES = np.random.default_rng(0).normal(size=(2, LENGTH, WIDTH)).astype(np.float32)


def norm(x: np.ndarray, p: Any) -> np.ndarray:
  x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
  return x * p['scale'] + p['bias']


def attend(q: np.ndarray, kv: np.ndarray, p: Any, allowed: Any = True) -> np.ndarray:
  def split(x: np.ndarray, name: str) -> np.ndarray:
    return np.einsum('bnd,dhe->bhne', x, p[name]['kernel']) + p[name]['bias'][:, None]

  q, k, v = split(q, 'q'), split(kv, 'k'), split(kv, 'v')
  scores = np.einsum('bhne,bhme->bhnm', q, k) / math.sqrt(WIDTH // HEADS)
  weights = np.where(allowed, np.exp(scores), 0)
  weights = weights / weights.sum(-1, keepdims=True)
  mixed = np.einsum('bhnm,bhme->bnhe', weights, v)
  return np.einsum('bnhe,hed->bnd', mixed, p['out']['kernel']) + p['out']['bias']


def feed_forward(x: np.ndarray, p: Any, *, pre: bool) -> np.ndarray:
  hidden = x @ p['c_fc']['kernel'] + p['c_fc']['bias']
  if pre:  # GELU
    hidden = hidden * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2))) / 2
  hidden = np.maximum(hidden, 0) if not pre else hidden
  return hidden @ p['c_proj']['kernel'] + p['c_proj']['bias']


def encoder(x: np.ndarray, p: Any, *, pre: bool, allowed: Any = True) -> np.ndarray:
  if pre:
    y = norm(x, p['ln_1'])
    x = x + attend(y, y, p['attn'], allowed)
    return x + feed_forward(norm(x, p['ln_2']), p, pre=True)
  x = norm(x + attend(x, x, p['attn'], allowed), p['ln_1'])
  return norm(x + feed_forward(x, p, pre=False), p['ln_2'])


def decoder(
  x: np.ndarray, memory: np.ndarray, p: Any, *, pre: bool, allowed: Any = True
) -> np.ndarray:
  if pre:
    y = norm(x, p['ln_1'])
    x = x + attend(y, y, p['self_attn'], allowed)
    x = x + attend(norm(x, p['ln_2']), memory, p['cross_attn'])
    return x + feed_forward(norm(x, p['ln_3']), p, pre=True)
  x = norm(x + attend(x, x, p['self_attn'], allowed), p['ln_1'])
  x = norm(x + attend(x, memory, p['cross_attn']), p['ln_2'])
  return norm(x + feed_forward(x, p, pre=False), p['ln_3'])


def slots(p: Any, *, plain: bool) -> tuple[np.ndarray, np.ndarray]:
  """The slots with their places, and the patches with theirs, if these are learned."""
  place = np.zeros((SLOTS, WIDTH))
  for n in range(SLOTS):
    for i in range(0, WIDTH, 2):
      angle = n / 10000 ** (i / WIDTH)
      place[n, i : i + 2] = math.sin(angle), math.cos(angle)
  x = p['tokens'] + (place if plain else p['position'])
  patches = PATCHES if plain else PATCHES + p['image_position']
  return np.repeat(x[None], len(PATCHES), axis=0), patches


def prefix(p: Any, *, pre: bool, alone: bool, plain: bool) -> np.ndarray:
  x = np.concatenate(slots(p['slots'], plain=plain), axis=1)
  allowed = np.ones((SLOTS + LENGTH,) * 2, bool)
  if alone:  # slots see themselves and patches, patches each other
    allowed[:, :SLOTS] = np.eye(SLOTS + LENGTH, SLOTS, dtype=bool)
  for i in range(2):
    x = encoder(x, p[f'block_{i}'], pre=pre, allowed=allowed)
  x = x[:, :SLOTS]
  return norm(x, p['ln_final']) if pre else x


def cross(p: Any, *, pre: bool, alone: bool, plain: bool) -> np.ndarray:
  x, memory = slots(p['slots'], plain=plain)
  allowed = np.eye(SLOTS, dtype=bool) if alone else True
  memory = encoder(memory, p['encoder_0'], pre=pre)
  memory = norm(memory, p['ln_encoder']) if pre else memory
  x = decoder(x, memory, p['decoder_0'], pre=pre, allowed=allowed)
  return norm(x, p['ln_final']) if pre else x


@pytest.mark.parametrize('variant', ['paper', 'alone, before'])
@pytest.mark.parametrize('kind', ['prefix', 'cross'])
def test_language_models_are_what_is_written(kind: str, variant: str) -> None:
  paper = variant == 'paper'
  changes = {
    'pre_norm': True,
    'context': False,
    'slot_position': 'learned',
    'image_position': 'learned',
  }
  config = tiny(kind, language={} if paper else changes).language
  model = LANGUAGE_MODELS[kind](config, jnp.float32)
  patches = jnp.asarray(PATCHES)
  grid = (1, patches.shape[1])  # plays no part in learned positions
  init = functools.partial(model.init, grid=grid)
  shapes = jax.eval_shape(init, jax.random.key(0), patches)['params']
  rng = np.random.default_rng(1)
  params = jax.tree.map(lambda x: 0.5 * rng.normal(size=x.shape), shapes)
  single = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
  got = jax.jit(lambda p, x: model.apply({'params': p}, x, grid))(single, patches)
  written = {'prefix': prefix, 'cross': cross}[kind]
  want = written(params, pre=not paper, alone=not paper, plain=paper)
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
