"""A tiny CoSeg of either kind."""

import dataclasses

from tiny_clipseg import CLIP

from ovs_jax.models import clipseg_decoder, coseg, coseg_slots

DECODER = dataclasses.replace(
  clipseg_decoder.PRESETS['coseg'],
  reduce_dim=8,
  mlp=12,
  extract=(0, 1, 2),
  strides=(2, 2),
)


def tiny(kind='prefix', *, language=None, **changes):
  """Returns a configuration with one layer of everything."""
  layers = {'prefix': (2, 0), 'cross': (1, 1)}[kind]
  sizes = dataclasses.replace(
    coseg_slots.PRESETS[kind],
    num_slots=4,
    encoder_layers=layers[0],
    decoder_layers=layers[1],
    heads=2,
    mlp=16,
    **(language or {}),
  )
  return dataclasses.replace(
    coseg.PRESETS[kind],
    clip=CLIP,
    decoder=DECODER,
    language=sizes,
    **{'image_size': 8, **changes},
  )
