"""A tiny OVSeg model with drawn parameters, for the tests of what uses one."""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tiny_configs

from ovs_jax.core.checkpoint import save_model
from ovs_jax.core.tree import flatten, unflatten
from ovs_jax.inference.encode import EncodedImage
from ovs_jax.models import clip, maskformer, ovseg
from ovs_jax.models.stored import MODELS
from ovs_jax.ops.regions import RegionConfig

CONFIG = ovseg.OvSegConfig(
  # Few layers, and those in a loop: compiling is most of the time of these tests.
  proposer=dataclasses.replace(maskformer.PRESETS['tiny'], layers=1),
  clip=dataclasses.replace(
    clip.PRESETS['tiny'], vision_layers=3, prompt_depth=3, unroll=1
  ),
  region=RegionConfig(size=48, threshold=0.4, fill='mean', expand=1.0, matting=False),
  chunk=32,
)

# What a checkpoint holds beside the parameters.
STORED: dict[str, Any] = {
  'model': 'ovseg',
  **CONFIG.to_dict(),
  'test': {'shortest': 40, 'longest': 96},
  'templates': 'single',
  'classifier': 'ensemble',
  'weight': 0.7,
}


def draw_params(config: ovseg.OvSegConfig = CONFIG) -> dict[str, Any]:
  """Random parameters without the compilation that a real initialisation takes."""
  shapes = jax.eval_shape(lambda: MODELS['ovseg'].init(config, jax.random.key(0)))
  generator = np.random.default_rng(0)

  def draw(path: str, shape: tuple[int, ...]) -> np.ndarray:
    if path.endswith('scale'):
      return np.ones(shape, np.float32)
    fan_in = shape[-2] if len(shape) > 1 else 25
    if path.endswith('embedding'):
      fan_in = 25  # tokens count as much as their places do
    return generator.normal(0, fan_in**-0.5, shape).astype(np.float32)

  return unflatten({path: draw(path, x.shape) for path, x in flatten(shapes).items()})


def handmade(
  masks: Any, rows: Any, *, valid: Any = None, size: tuple[int, int] | None = None
) -> EncodedImage:
  """Returns an encoded image whose masks and embeddings are given."""
  masks = jnp.asarray(masks, jnp.float32)
  q, h, w = masks.shape
  rows = jnp.asarray(rows, jnp.float32)
  inner = ovseg.Encoded(
    embeddings=rows,
    regions=rows,
    masks=masks,
    boxes=jnp.tile(jnp.array([[0, 0, w, h]]), (q, 1)),
    valid=jnp.ones(q, bool) if valid is None else jnp.asarray(valid),
    no_object=jnp.eye(1, rows.shape[1]),
  )
  return EncodedImage(size or (h, w), (h, w), inner)


def smallest() -> ovseg.OvSegConfig:
  """Returns an OVSeg of the smallest parts."""
  clip_ = dataclasses.replace(
    clip.PRESETS['tiny'], **tiny_configs.CLIP_SIZES, prompt_depth=3
  )
  proposer = dataclasses.replace(
    maskformer.PRESETS['tiny'], **tiny_configs.PROPOSER_SIZES
  )
  region = dataclasses.replace(CONFIG.region, size=clip_.image_size, threshold=0.1)
  return ovseg.OvSegConfig(proposer, clip_, region, chunk=8)


def save_smallest(directory: pathlib.Path) -> None:
  """Writes an OVSeg of the smallest parts, which trains in seconds."""
  config = smallest()
  save_model(directory, draw_params(config), {**STORED, **config.to_dict()})
