"""Masked crops through CLIP's image tower with mask prompts."""

import dataclasses

import jax
import jax.numpy as jnp

from ovs_jax.bench import plain
from ovs_jax.bench.agreement import Agreement
from ovs_jax.bench.measure import Variant, Workload, compile_program
from ovs_jax.core.lookup import lookup
from ovs_jax.models.clip import PRESETS, Clip


@dataclasses.dataclass(frozen=True)
class Options:
  """What `--set` changes.

  Attributes:
    preset: of CLIP: tiny, b32, b16, l14 or l14_336.
    batch: crops at once.
    dtype: the tower computes in.
    depth: of the mask prompts.
  """

  preset: str = 'b16'
  batch: int = 8
  dtype: str = 'float32'
  depth: int = 3


def build(options: Options) -> Workload:
  """The tower as prediction runs it, and one operation after the other."""
  config = dataclasses.replace(
    lookup(PRESETS, options.preset, 'CLIP preset'),
    prompt_depth=options.depth,
    dtype=options.dtype,
  )
  side, grid = config.image_size, config.image_size // config.patch
  crops = jax.random.normal(jax.random.key(0), (options.batch, side, side, 3))
  keep = jax.random.bernoulli(jax.random.key(1), 0.6, (options.batch, grid * grid))
  model = Clip(config)
  text = jnp.zeros((1, config.context_length), jnp.int32)
  params = jax.jit(model.init)(jax.random.key(2), crops[:1], text)['params']
  encode = jax.jit(
    lambda params, crops, keep: model.apply(
      {'params': params}, crops, keep, method='encode_image'
    )
  )
  program = compile_program(encode, params, crops, keep)
  facts: dict[str, float] = {}
  watch = Agreement(facts)
  variants = [
    Variant(
      'package',
      watch.values('package', lambda: program(params, crops, keep)),
      program=program,
    ),
    Variant(
      'plain',
      watch.values(
        'plain', lambda: plain.encode_crops(config, params['visual'], crops, keep)
      ),
    ),
  ]
  return Workload('crops', options.batch, variants, facts)
