"""The decoder of CLIPSeg in both layouts: its names, its table, its sizes."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from ovs_jax.convert.hf_clip import block_rules
from ovs_jax.convert.rules import Rule, attention_rules, below, linear_rules, norm_rules
from ovs_jax.convert.tensors import Source, count, shapes_of
from ovs_jax.convert.transforms import CONV, UPCONV
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


def decoder_rules(layout: Layout, *, head: str) -> list[Rule]:
  """Returns the table of a decoder with this head; targets are below `decoder`."""
  block = f'{layout.blocks}.<step>'
  to = 'block_<step>'
  if layout is HF:
    blocks = block_rules(block, to)
  else:
    blocks = [
      *attention_rules(f'{block}.self_attn', f'{to}/attn'),
      *norm_rules(f'{block}.norm<i:1|2>', f'{to}/ln_<i>'),
      *linear_rules(f'{block}.linear1', f'{to}/c_fc'),
      *linear_rules(f'{block}.linear2', f'{to}/c_proj'),
    ]
  if head == 'complex':
    heads = [
      *linear_rules(f'{layout.head}.0', 'head/conv', CONV),
      *linear_rules(f'{layout.head}.2', 'head/up', UPCONV),
      *linear_rules(f'{layout.head}.4', 'head/out', UPCONV),
    ]
  else:
    heads = linear_rules(layout.head, 'head/out', UPCONV)
  table = [
    *linear_rules('<map:film_mul|film_add>', '<map>'),
    *linear_rules('reduces.<step>', 'reduce_<step>'),
    *blocks,
    *heads,
  ]
  return below(table, layout.prefix, 'decoder/')


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
  steps = count(source, rf'{re.escape(layout.prefix)}reduces\.(\d+)\.weight')
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
