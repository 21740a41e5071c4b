"""A tiny CLIPSeg, and its tensors in the layouts of others, made without converters."""

import dataclasses

import numpy as np

from ovs_jax.models.clip import PRESETS as CLIPS
from ovs_jax.models.clipseg import ClipSegConfig
from ovs_jax.models.clipseg_decoder import PRESETS as DECODERS

CLIP = dataclasses.replace(
  CLIPS['tiny'],
  embed_dim=10,
  image_size=8,
  patch=4,
  vision_width=64,
  vision_layers=3,
  vision_heads=1,
  text_width=64,
  text_layers=1,
  text_heads=1,
  context_length=7,
  vocab_size=20,
  unroll=1,
)
DECODER = dataclasses.replace(
  DECODERS['rd64_refined'],
  reduce_dim=8,
  mlp=12,
  extract=(0, 1, 2),
  strides=(2, 2),
)
TINY = ClipSegConfig(clip=CLIP, decoder=DECODER, image_size=8, chunk=4)


def with_decoder(**changes):
  """Returns the tiny model with another decoder."""
  return dataclasses.replace(TINY, decoder=dataclasses.replace(DECODER, **changes))


def original_shapes(config):
  """Returns names and shapes of a released file, the dead layer included."""
  d, c = config.decoder, config.clip
  n = d.reduce_dim
  found = {}
  for name, rows, columns in (
    ('film_mul', n, c.embed_dim),
    ('film_add', n, c.embed_dim),
    ('reduce', n, c.vision_width),
    *((f'reduces.{i}', n, c.vision_width) for i in range(len(d.extract))),
  ):
    found |= {f'{name}.weight': (rows, columns), f'{name}.bias': (rows,)}
  for i in range(len(d.extract)):
    block = f'blocks.{i}'
    for name, rows, columns in (
      ('self_attn.in_proj_', 3 * n, n),
      ('self_attn.out_proj.', n, n),
      ('linear1.', d.mlp, n),
      ('linear2.', n, d.mlp),
    ):
      found[f'{block}.{name}weight'] = (rows, columns)
      found[f'{block}.{name}bias'] = (rows,)
    for norm in ('norm1', 'norm2'):
      found |= {f'{block}.{norm}.weight': (n,), f'{block}.{norm}.bias': (n,)}
  if d.head == 'simple':
    s = d.strides[0]
    found |= {'trans_conv.weight': (n, 1, s, s), 'trans_conv.bias': (1,)}
  else:
    s, t = d.strides
    found |= {'trans_conv.0.weight': (n, n, 3, 3), 'trans_conv.0.bias': (n,)}
    found |= {'trans_conv.2.weight': (n, n // 2, s, s), 'trans_conv.2.bias': (n // 2,)}
    found |= {'trans_conv.4.weight': (n // 2, 1, t, t), 'trans_conv.4.bias': (1,)}
  return found


def to_hf(source):
  """Returns a decoder with original names by those of Hugging Face."""
  parts = {
    'blocks.': 'layers.',
    'linear': 'mlp.fc',
    'norm': 'layer_norm',
    'trans_conv': 'transposed_convolution',
  }
  found = {}
  for name, value in source.items():
    if name.startswith('reduce.'):
      continue
    if 'in_proj_' in name:
      block, kind = name.replace('blocks.', 'layers.').split('in_proj_')
      for part, rows in zip('qkv', np.split(value, 3), strict=True):
        found[f'decoder.{block}{part}_proj.{kind}'] = np.ascontiguousarray(rows)
      continue
    for old, new in parts.items():
      name = name.replace(old, new)
    found[f'decoder.{name}'] = value
  return found
