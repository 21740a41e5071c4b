"""The decoder of CLIPSeg in both layouts: its names, its table, its sizes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ovs_jax.convert.hf_clip import BLOCK
from ovs_jax.convert.rules import Rule, table
from ovs_jax.convert.tensors import Source, count, shapes_of
from ovs_jax.models.clipseg_decoder import DecoderConfig

HEADS = 4  # of everything that was released; shapes do not tell
DROPOUT = 0.1  # PyTorch's default, which trained them


@dataclasses.dataclass(frozen=True)
class Layout:
  """How one of the two calls the tensors of a decoder.

  Attributes:
    prefix: of all of them.
    blocks: of the transformer blocks.
    head: of the transposed convolutions.
  """

  prefix: str
  blocks: str
  head: str


HF = Layout('decoder.', 'layers', 'transposed_convolution')
ORIGINAL = Layout('', 'blocks', 'trans_conv')


_RULES = """
  <map:film_mul|film_add>   <map>           linear
  reduces.<step>            reduce_<step>   linear
"""
_ORIGINAL_BLOCK = """
  self_attn     attn     attention
  norm<i:1|2>   ln_<i>   norm
  linear1       c_fc     linear
  linear2       c_proj   linear
"""


def decoder_rules(layout: Layout, *, head: str) -> list[Rule]:
  """Returns the table of a decoder with this head; targets are below `decoder`."""
  parts = {'.0': 'conv conv', '.2': 'up upconv', '.4': 'out upconv'}
  parts = parts if head == 'complex' else {'': 'out upconv'}
  heads = ' '.join(f'{layout.head}{part} head/{to}' for part, to in parts.items())
  return [
    *table(_RULES + heads, layout.prefix, 'decoder/'),
    *table(
      BLOCK if layout is HF else _ORIGINAL_BLOCK,
      f'{layout.prefix}{layout.blocks}.<step>.',
      'decoder/block_<step>/',
    ),
  ]


def infer_decoder(
  source: Source, layout: Layout, settings: Mapping[str, Any] | None = None
) -> DecoderConfig:
  """Returns the sizes of a decoder: shapes first, then config.json.

  Raises:
    ValueError: tensors that tell them are missing.
  """
  settings = settings or {}
  hidden = 'mlp.fc1.bias' if layout is HF else 'linear1.bias'
  complex_head = f'{layout.prefix}{layout.head}.0.weight' in source
  kernels = ['.2.weight', '.4.weight'] if complex_head else ['.weight']
  kernels = [f'{layout.prefix}{layout.head}{kernel}' for kernel in kernels]
  needed = [
    f'{layout.prefix}reduces.0.weight',
    f'{layout.prefix}{layout.blocks}.0.{hidden}',
    *kernels,
  ]
  reduce, mlp, *heads = shapes_of(source, needed, what='a CLIPSeg')
  steps = count(source, f'{layout.prefix}reduces.')
  extract = tuple(settings.get('extract_layers', (3, 6, 9)))
  if len(extract) != steps:
    raise ValueError(f'{steps} reductions for the activations of blocks {extract}')
  return DecoderConfig(
    reduce_dim=reduce[0],
    heads=settings.get('decoder_num_attention_heads', HEADS),
    mlp=mlp[0],
    extract=extract,
    order='deep_first',
    film_steps=(settings.get('conditional_layer', 0),),
    film_position='before',
    film_shared=True,
    keep_class=True,
    head='complex' if complex_head else 'simple',
    strides=tuple(shape[-1] for shape in heads),
    dropout=DROPOUT,
  )
