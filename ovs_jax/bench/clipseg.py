"""One picture under many prompts, through CLIPSeg."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.bench.measure import Variant, Workload
from ovs_jax.core.lookup import lookup
from ovs_jax.models import clipseg
from ovs_jax.models.clip import PRESETS as CLIPS
from ovs_jax.models.clipseg import PRESETS, ClipSegConfig, init_clipseg
from ovs_jax.models.clipseg_decoder import tiny


@dataclasses.dataclass(frozen=True)
class Options:
  """What `--set` changes.

  Attributes:
    preset: of CLIPSeg: rd64, rd64_refined or rd16; or tiny.
    prompts: masks asked for; the paper's data sets have 20 and 171.
    size: side of the picture; 0 is the preset's.
    chunk: prompts decoded at once; 0 is the preset's.
    repeated: whether to measure also what runs CLIP's image tower for every prompt.
    dtype: the networks compute in.
  """

  preset: str = 'rd64_refined'
  prompts: int = 20
  size: int = 0
  chunk: int = 0
  repeated: bool = False
  dtype: str = 'float32'


def sizes(options: Options) -> ClipSegConfig:
  """Returns the model that the options ask for."""
  table = {**PRESETS, 'tiny': None}
  config = lookup(table, options.preset, 'CLIPSeg preset')
  if config is None:
    config = ClipSegConfig(tiny('rd64_refined'), 64, 4, CLIPS['tiny'])
  clip = dataclasses.replace(config.clip, dtype=options.dtype)
  return dataclasses.replace(
    config,
    clip=clip,
    image_size=options.size or config.image_size,
    chunk=options.chunk or config.chunk,
  )


def build(options: Options) -> Workload:
  """As `predict` runs it: the picture once, the prompts in chunks."""
  config = sizes(options)
  side = config.image_size
  params = jax.device_put(init_clipseg(config, jax.random.key(0)))
  image = jax.random.normal(jax.random.key(1), (1, side, side, 3))
  shape = (options.prompts, config.clip.embed_dim)
  prompts = np.asarray(jax.random.normal(jax.random.key(2), shape))

  def package() -> np.ndarray:
    return clipseg.segment(config, params, image, prompts)[0]

  def repeated() -> np.ndarray:
    found = [clipseg.segment(config, params, image, p[None])[0] for p in prompts]
    return np.concatenate(found)

  variants = [Variant('package', package)]
  facts: dict[str, object] = {'prompts': options.prompts, 'side': side}
  if options.repeated:
    variants.append(Variant('tower for every prompt', repeated))
    difference = jnp.abs(package() - repeated()).max()
    facts['largest difference'] = float(difference)
  return Workload('masks', options.prompts, variants, facts)
