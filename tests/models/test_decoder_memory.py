"""What the mask decoder keeps for the backward pass, with and without `remat`."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.models.clipseg_decoder import ClipSegDecoder, DecoderConfig, init_decoder

B, K, GRID, MLP, HEADS, WIDTH = 2, 3, (2, 2), 24, 2, 6
CONFIG = DecoderConfig(
  reduce_dim=4,
  heads=HEADS,
  mlp=MLP,
  extract=(0, 1),
  order='deep_first',
  film_steps=(0, 1),
  film_position='after',
  film_shared=True,
  keep_class=False,
  head='complex',
  strides=(2, 2),
  dropout=0.3,
)


def loss(params: Any, *, remat: bool) -> jax.Array:
  rng = np.random.default_rng(0)
  draw = functools.partial(rng.normal, size=(B, 5, WIDTH))
  activations = tuple(jnp.asarray(draw(), jnp.float32) for _ in CONFIG.extract)
  condition = jnp.asarray(rng.normal(size=(B, K, 5)), jnp.float32)
  logits = ClipSegDecoder(CONFIG, jnp.float32, remat).apply(
    {'params': params},
    activations,
    condition,
    GRID,
    train=True,
    rngs={'dropout': jax.random.key(1)},
  )
  return jnp.mean(logits**2)


PARAMS = init_decoder(CONFIG, jax.random.key(0), width=WIDTH, embed_dim=5)


def kept(remat: bool) -> set[tuple[int, ...]]:
  """Shapes of what one pass leaves for the other."""
  run = functools.partial(loss, remat=remat)
  left = jax.eval_shape(lambda p: jax.vjp(run, p)[1], PARAMS)
  return {x.shape for x in jax.tree.leaves(left)}


def test_hidden_units_and_attention_of_slots_are_not_kept() -> None:
  large = {(B * K, 4, MLP), (B * K, HEADS, 4, 4), (B * K, 4, 4, 2)}
  assert large <= kept(False)
  assert not large & kept(True)
  # Nor those of the block that all slots share.
  assert not {(B, 4, MLP), (B, HEADS, 4, 4)} & kept(True)


def test_the_gradients_are_the_same() -> None:
  """To rounding, units dropped and all."""
  want, got = (
    jax.jit(jax.grad(functools.partial(loss, remat=x)))(PARAMS) for x in (False, True)
  )
  for a, b in zip(jax.tree.leaves(want), jax.tree.leaves(got), strict=True):
    np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-7)
