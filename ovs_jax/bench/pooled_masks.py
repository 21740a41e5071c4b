"""The masks of a picture, pooled from one look of CLIP at it, beside a crop for each.

The mode `pooled` (FC-CLIP's way) beside `exact`, as far as CLIP is concerned: the
picture in the proposer's size, random weights, and masks that all show something.
"""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from ovs_jax.bench.agreement import Agreement
from ovs_jax.bench.measure import Variant, Workload, compile_program
from ovs_jax.core.lookup import lookup
from ovs_jax.core.types import Array, Float, Num, Params
from ovs_jax.inference import one_pass
from ovs_jax.models import clip, clip_mix, maskformer, ovseg
from ovs_jax.ops.regions import RegionConfig
from ovs_jax.ops.resize import resize_bilinear


@dataclasses.dataclass(frozen=True)
class Options:
  """What `--set` changes.

  Attributes:
    preset: of a CLIP whose features are pooled.
    side: of the picture in pixels, a multiple of the CLIP's patch.
    masks: how many.
    dtype: that CLIP computes in.
  """

  preset: str = 'convnext_large_d'
  side: int = 640
  masks: int = 100
  dtype: str = 'float32'


def build(options: Options) -> Workload:
  """Both ways to embeddings of all masks."""
  tower = dataclasses.replace(
    lookup(clip.PRESETS, options.preset, 'CLIP preset'), dtype=options.dtype
  )
  region = RegionConfig(
    size=tower.image_size, threshold=0.4, fill='mean', expand=1.0, matting=False
  )
  proposer = dataclasses.replace(
    maskformer.PRESETS['tiny'], embed_dim=tower.embed_dim, num_queries=options.masks
  )
  config = ovseg.OvSegConfig(proposer, tower, region, chunk=32)
  params = {'clip': clip.init_clip(tower, jax.random.key(0))}
  keys = jax.random.split(jax.random.key(1))
  sides = (options.side, options.side)
  image = jax.random.uniform(keys[0], (*sides, 3), maxval=255)
  blots = 4 * jax.random.normal(keys[1], (options.masks, 6, 6))
  masks = jax.nn.sigmoid(resize_bilinear(blots, sides))

  facts: dict[str, Any] = {}
  variants = []
  watch = Agreement(facts)
  for name, embed in (('pooled', _pooled), ('crops', _crops)):
    run = jax.jit(functools.partial(embed, config))
    program = compile_program(run, params, image, masks)
    once = functools.partial(program, params, image, masks)
    variants.append(Variant(name, watch.values(name, once), program=program))
  facts['binary masks cover'] = float(np.mean(np.asarray(masks) > region.threshold))
  return Workload('masks', options.masks, variants, facts)


def _pooled(
  config: ovseg.OvSegConfig,
  params: Params,
  image: Num[Array, 'h w 3'],
  masks: Float[Array, 'q h w'],
) -> Float[Array, 'q d']:
  rows = one_pass.embed_masks(config, params['clip'], image, masks, enlarge=False)
  return clip.unit(rows)


def _crops(
  config: ovseg.OvSegConfig,
  params: Params,
  image: Num[Array, 'h w 3'],
  masks: Float[Array, 'q h w'],
) -> Float[Array, 'q d']:
  regions = clip_mix.cut_regions(config, image, masks)
  return clip.unit(clip_mix.embed_all(config, params, regions))
