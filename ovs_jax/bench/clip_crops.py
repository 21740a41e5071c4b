"""Masked crops through CLIP's image tower with mask prompts."""

import dataclasses
import functools

import jax

from ovs_jax.bench import plain
from ovs_jax.bench.agreement import Agreement
from ovs_jax.bench.measure import Variant, Workload, compile_program
from ovs_jax.core.lookup import lookup
from ovs_jax.models.clip import PRESETS, init_clip
from ovs_jax.models.clip_fast import encode_crops, encode_images


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
  params = init_clip(config, jax.random.key(2))

  facts: dict[str, float] = {}
  watch = Agreement(facts)
  variants = []
  for name, encode in (('package', encode_crops), ('all patches', encode_images)):
    run = jax.jit(functools.partial(encode, config))
    program = compile_program(run, params, crops, keep)
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
