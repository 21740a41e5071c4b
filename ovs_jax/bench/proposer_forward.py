"""One picture through the proposer, as prediction runs it."""

import dataclasses
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp

from ovs_jax.bench import drawn
from ovs_jax.bench.measure import Variant, Workload, compile_program
from ovs_jax.core.lookup import lookup
from ovs_jax.core.tree import count_parameters
from ovs_jax.core.types import Params
from ovs_jax.models.maskformer import (
  PRESETS,
  MaskFormer,
  MaskFormerConfig,
  init_maskformer,
)


@dataclasses.dataclass(frozen=True)
class Options:
  """What `--set` changes.

  Attributes:
    preset: of the proposer: tiny, swin_b_l14 or r101c_b16.
    side: of the pictures, in pixels.
    batch: pictures at once.
    dtype: of the computation.
  """

  preset: str = 'swin_b_l14'
  side: int = 640
  batch: int = 1
  dtype: str = 'float32'


def build(options: Options) -> Workload:
  """The whole picture, and the same with a size that hides padding."""
  config = proposer_config(options.preset, options.dtype)
  params = drawn.fill(functools.partial(init_maskformer, config))
  side = options.side
  image = jax.random.uniform(
    jax.random.key(0), (options.batch, side, side, 3), maxval=255.0
  )
  size = jnp.full(2, side, jnp.int32)
  began = time.perf_counter()
  plain = compile_program(
    jax.jit(lambda params, image: _outputs(config, params, image, None)), params, image
  )
  compiling = time.perf_counter() - began
  hidden = jax.jit(lambda params, image, size: _outputs(config, params, image, size))
  masked = compile_program(hidden, params, image, size)
  pairs = zip(plain(params, image), masked(params, image, size), strict=True)
  error = max(float(jnp.abs(a - b).max() / jnp.abs(a).max()) for a, b in pairs)
  variants = [
    Variant('package', lambda: plain(params, image), program=plain),
    Variant('bucket', lambda: masked(params, image, size), program=masked),
  ]
  facts = {
    'parameters': count_parameters(params),
    'compile_seconds': round(compiling, 1),
    'largest relative difference': error,
  }
  return Workload('pictures', options.batch, variants, facts)


def _outputs(
  config: MaskFormerConfig, params: Params, image: Any, size: Any
) -> tuple[jax.Array, jax.Array]:
  out = MaskFormer(config).apply({'params': params}, image, size=size)
  return out.embeddings, out.mask_logits


def proposer_config(preset: str, dtype: str) -> MaskFormerConfig:
  """Returns the sizes of a preset that computes in `dtype`."""
  config = lookup(PRESETS, preset, 'proposer preset')
  return dataclasses.replace(config, dtype=dtype)
