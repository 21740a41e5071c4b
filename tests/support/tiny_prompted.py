"""Tiny CLIPSeg and CoSeg checkpoints that read real text, with drawn parameters."""

import dataclasses
import functools
import pathlib

import jax
import numpy as np
import tiny_clipseg
import tiny_coseg

from ovs_jax.core.checkpoint import save_model
from ovs_jax.core.tree import flatten, unflatten
from ovs_jax.models import clipseg, coseg

CLIP = dataclasses.replace(
  tiny_clipseg.CLIP, context_length=77, vocab_size=49408, text_width=16
)
CLIPSEG = dataclasses.replace(tiny_clipseg.TINY, clip=CLIP)
COSEG = dataclasses.replace(tiny_coseg.tiny('prefix'), clip=CLIP)


@functools.cache
def drawn(kind):
  """Returns parameters of either model; both have the same CLIP."""
  init, config = {
    'clipseg': (clipseg.init_clipseg, CLIPSEG),
    'coseg': (coseg.init_coseg, COSEG),
  }[kind]
  shapes = flatten(jax.eval_shape(lambda key: init(config, key), jax.random.key(0)))
  rng = np.random.default_rng(0)

  def draw(path: str, shape: tuple[int, ...]) -> np.ndarray:
    # What is added later must not drown the condition of the first step.
    small = 'reduce_1' in path or 'reduce_2' in path
    return ((0.01 if small else 0.3) * rng.normal(size=shape)).astype(np.float32)

  return unflatten({path: draw(path, x.shape) for path, x in sorted(shapes.items())})


def save(directory: pathlib.Path) -> dict[str, pathlib.Path]:
  """Writes a checkpoint of each kind."""
  stored = {
    'clipseg': {'model': 'clipseg', 'clipseg': CLIPSEG.to_dict()},
    'coseg': {'model': 'coseg', 'coseg': COSEG.to_dict(), 'template': 'a photo of {}'},
    'clip': {'model': 'clip', 'clip': dataclasses.asdict(CLIP)},
  }
  for kind, config in stored.items():
    params = drawn('clipseg')['clip'] if kind == 'clip' else drawn(kind)
    save_model(directory / kind, params, config)
  return {kind: directory / kind for kind in stored}
