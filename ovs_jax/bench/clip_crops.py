"""Masked crops through CLIP's image tower with mask prompts."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from ovs_jax.bench import plain
from ovs_jax.bench.agreement import Agreement
from ovs_jax.bench.measure import Variant, Workload, compile_program
from ovs_jax.core.lookup import lookup
from ovs_jax.core.types import Array, Params
from ovs_jax.models.clip import PRESETS, Clip


@dataclasses.dataclass(frozen=True)
class Options:
  """What `--set` changes.

  Attributes:
    preset: of CLIP: tiny, b32, b16, l14 or l14_336.
    batch: crops at once.
    dtype: the tower computes in.
    depth: of the mask prompts.
    shown: share of the patches that each crop shows.
  """

  preset: str = 'b16'
  batch: int = 8
  dtype: str = 'float32'
  depth: int = 3
  shown: float = 0.6


def build(options: Options) -> Workload:
  """The tower as prediction runs it, and one operation after the other."""
  config = dataclasses.replace(
    lookup(PRESETS, options.preset, 'CLIP preset'),
    prompt_depth=options.depth,
    dtype=options.dtype,
  )
  side, grid = config.image_size, config.image_size // config.patch
  crops = jax.random.normal(jax.random.key(0), (options.batch, side, side, 3))
  count = round(options.shown * grid * grid)
  keys = jax.random.split(jax.random.key(1), options.batch)
  draw = jax.vmap(lambda key: jax.random.permutation(key, grid * grid) < count)
  keep = draw(keys)
  model = Clip(config)
  text = jnp.zeros((1, config.context_length), jnp.int32)
  params = jax.jit(model.init)(jax.random.key(2), crops[:1], text)['params']

  def encode(params: Params, crops: Array, keep: Array, *, sparse: bool) -> Array:
    return model.apply(
      {'params': params}, crops, keep, sparse=sparse, method='encode_image'
    )

  facts: dict[str, float] = {}
  watch = Agreement(facts)
  variants = []
  for name, sparse in (('package', True), ('all patches', False)):
    run = functools.partial(encode, sparse=sparse)
    program = compile_program(jax.jit(run), params, crops, keep)
    once = functools.partial(program, params, crops, keep)
    variants.append(Variant(name, watch.values(name, once), program=program))
  variants.append(
    Variant(
      'plain',
      watch.values(
        'plain', lambda: plain.encode_crops(config, params['visual'], crops, keep)
      ),
    )
  )
  return Workload('crops', options.batch, variants, facts)
