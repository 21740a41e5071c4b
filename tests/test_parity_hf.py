"""The helper that finds the block in which two towers part."""

import jax
import jax.numpy as jnp
import numpy as np
from parity_hf import compare_blocks, vision_states

from ovs_jax.models.clip import PRESETS, init_clip


def test_the_wrong_block_is_found():
  config = PRESETS['tiny']
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(lambda k: init_clip(config, k), jax.random.key(0))
  params = jax.tree.map(
    lambda x: jnp.asarray(0.2 * rng.normal(size=x.shape), x.dtype), shapes
  )
  image = jnp.asarray(rng.normal(size=(1, 48, 48, 3)), jnp.float32)
  states = [np.asarray(x) for x in vision_states(config, params, image)]
  bias = params['visual']['blocks']['c_proj']['bias']
  params['visual']['blocks']['c_proj']['bias'] = bias.at[1].add(1.0)
  rows = [line.split() for line in compare_blocks(config, params, states).splitlines()]
  carried, own = ([float(row[column]) > 1e-3 for row in rows[1:]] for column in (1, 2))
  assert carried == [False, True, True, True]
  assert own == [False, True, False, False]
